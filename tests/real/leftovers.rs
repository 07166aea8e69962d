//! What is on the server when everybody has gone.

use std::time::{Duration, Instant};

use crate::locker::Locker;
use crate::locks_bad_days::{enqueue, queue, say};
use crate::support::{Fixture, PATIENCE, TTL, eventually};
use crate::worker::Worker;

/// All keys of the database but those of which the test knows, each with its ttl in ms.
async fn dump(fixture: &Fixture, known: &[&str]) -> Vec<(String, i64)> {
    let known: Vec<_> = known.iter().map(|key| fixture.key(key)).collect();
    let mut found = Vec::new();
    let mut keys: Vec<String> = say(fixture, &["KEYS", "*"]).await;
    keys.sort();
    for key in keys.into_iter().filter(|key| !known.contains(key)) {
        let left = say(fixture, &["PTTL", &key]).await;
        found.push((key, left));
    }
    found
}

async fn only_these_are_left(fixture: &Fixture, known: &[&str], within: Duration) {
    assert!(fixture.redis.is_own(), "all keys of the server are to be looked at");
    let gone = Instant::now();
    let mut left = dump(fixture, known).await;
    while !left.is_empty() && gone.elapsed() < within {
        tokio::time::sleep(Duration::from_millis(20)).await;
        left = dump(fixture, known).await;
    }
    let without_ttl: Vec<_> = left.iter().filter(|(_, ttl)| *ttl == -1).collect();
    assert!(left.is_empty(), "after {within:?}: {left:?}\nwithout a ttl: {without_ttl:?}");
}

/// After everybody has closed, only the revision and the persistent values are left.
#[tokio::test]
async fn closed_group_leaves_only_the_revision() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.connect().await, fixture.connect().await);
    one.join("a").await.unwrap();
    two.join("b").await.unwrap();
    let held = one.lock("x").acquire().await.unwrap();
    held.fenced().set("stays/a", &1).await.unwrap();
    let waiting = enqueue(&two.lock("x"), 1).await;
    let reading = [one.lock("y").read().acquire().await.unwrap(), two.lock("y").read().acquire().await.unwrap()];
    let permit = two.semaphore("s", 2).acquire().await.unwrap();
    let writing = enqueue(&one.lock("y"), 1).await;
    one.close().await.unwrap();
    let handed = waiting.await.unwrap().unwrap();
    two.close().await.unwrap();
    assert_eq!(writing.await.unwrap().unwrap_err().kind(), group_redis::ErrorKind::Closed);
    assert!(!held.is_held() && !handed.is_held() && !permit.is_held() && !reading[0].is_held());
    only_these_are_left(&fixture, &["revision", "persistent", "persistent/stays/a"], TTL * 5 + PATIENCE / 4).await;
}

#[tokio::test]
async fn killed_group_leaves_only_the_revision() {
    let fixture = Fixture::new().await;
    let member = Worker::start(&fixture, "m", TTL, 2, 3).await;
    let mut lockers = Vec::new();
    for name in ["a", "b", "c"] {
        lockers.push(Locker::start(&fixture, name, TTL).await);
    }
    lockers[0].ask("acquire x", "held x").await;
    lockers[0].ask("read y", "held y").await;
    lockers[1].ask("read y", "held y").await;
    lockers[1].ask("permit s 3", "held s").await;
    lockers[2].ask("permit s 3", "held s").await;
    for (place, locker) in lockers.iter_mut().enumerate() {
        for lock in ["x", "y", "s"] {
            locker.say(&format!("wait {lock} 2"));
            let is_there = async || queue(&fixture, lock).await.len() == (place + 1) * 2;
            eventually("it waits", is_there).await;
        }
    }
    // Old enough that the keys have been renewed, and handed around.
    tokio::time::sleep(TTL * 3).await;
    for locker in &lockers {
        locker.signal("-KILL");
    }
    member.signal("-KILL");
    only_these_are_left(&fixture, &["revision"], TTL * 5).await;
}

/// The last of a group is killed, one after the other.
#[tokio::test]
async fn killed_sweeper_leaves_nothing() {
    let fixture = Fixture::new().await;
    let mut lockers = Vec::new();
    for name in ["a", "b", "c"] {
        lockers.push(Locker::start(&fixture, name, TTL).await);
    }
    lockers[0].ask("acquire x", "held x").await;
    for (place, locker) in lockers[1..].iter_mut().enumerate() {
        locker.say("acquire x");
        eventually("it waits", async || queue(&fixture, "x").await.len() == place + 1).await;
    }
    while let Some(last) = lockers.first() {
        last.signal("-KILL");
        lockers.remove(0);
        if let Some(next) = lockers.first_mut() {
            next.ask("read y", "held y").await;
        }
    }
    only_these_are_left(&fixture, &["revision"], TTL * 5).await;
}
