//! A membership that nobody gave up and nobody took over: whatever was done to its keys, its owner puts it right.

use std::time::Duration;

use group_redis::{GroupConnector, LeaveCause, Membership, OnLost};
use tokio::time::timeout;

use super::support::{Fixture, PATIENCE, Recorder, eventually};

async fn say(fixture: &Fixture, command: &[&str]) {
    let mut connection = fixture.connection().await;
    redis::cmd(command[0]).arg(&command[1..]).query_async::<redis::Value>(&mut connection).await.unwrap();
}

/// Waits until the member is there for the watcher as its owner holds it, later than this incarnation.
async fn is_back(watcher: &GroupConnector, me: &Membership, before: group_redis::Incarnation, seen: &Recorder) {
    let back = watcher.wait_for(PATIENCE, |view| {
        view.get(me.id().as_str()).is_some_and(|it| !it.is_adopted() && it.incarnation() > before)
    });
    let view = back.await.unwrap_or_else(|error| panic!("{error}. {}", seen.history()));
    let held = timeout(PATIENCE, me.held()).await.unwrap_or_else(|_| panic!("not held. {}", seen.history()));
    assert_eq!(held, view.get(me.id().as_str()).map(|it| it.incarnation()), "{}", seen.history());
}

/// Another program's text in the place of a record is a member of its own until it is overwritten.
#[tokio::test]
async fn foreign_set_is_put_right() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    for ttl in ["500", "60000"] {
        let before = timeout(PATIENCE, me.held()).await.unwrap().unwrap();
        say(&fixture, &["SET", &fixture.key("members/a"), "text", "PX", ttl]).await;
        is_back(&watcher, &me, before, &seen).await;
    }
    assert!(group.leave("a").await.unwrap());
    seen.wait_for_names(&[]).await;
}

#[tokio::test]
async fn deleted_record_and_index_are_put_right() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    let before = me.incarnation().unwrap();
    say(&fixture, &["DEL", &fixture.key("members/a"), &fixture.key("members")]).await;
    is_back(&watcher, &me, before, &seen).await;
    assert_eq!(group.members().len(), 1);
}

#[tokio::test]
async fn on_lost_stop_ends_foreign_or_deleted() {
    let fixture = Fixture::new().await;
    let group = fixture.builder().on_lost(OnLost::Stop).connect().await.unwrap();
    let (a, b) = (group.join("a").await.unwrap(), group.join("b").await.unwrap());
    say(&fixture, &["DEL", &fixture.key("members/a"), &fixture.key("members")]).await;
    say(&fixture, &["SET", &fixture.key("members/b"), "text", "PX", "500"]).await;
    assert_eq!(timeout(PATIENCE, a.lost()).await.unwrap(), LeaveCause::Removed);
    timeout(PATIENCE, b.lost()).await.unwrap();
    assert_eq!((a.held().await, b.held().await), (None, None));
}

/// While the server evicts, members come and go. Once there is room again all of them are there, and know it.
async fn eviction_is_put_right(policy: &str) {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    let groups = [fixture.connect().await, fixture.connect().await, fixture.connect().await];
    let mut members = Vec::new();
    for name in 0..26 {
        members.push(groups[name % 3].join(format!("m{name:02}")).await.unwrap());
    }
    seen.wait_until("all are there", |record| record.members.len() == 26).await;
    say(&fixture, &["CONFIG", "SET", "maxmemory-policy", policy]).await;
    say(&fixture, &["CONFIG", "SET", "maxmemory", "8mb"]).await;
    let mut connection = fixture.connection().await;
    let mut written = 0_u64;
    let all_held = || members.iter().all(Membership::is_held);
    // On until memberships have been lost, and for a while after that.
    while (all_held() && seen.read(|record| record.leaves) < 26) || written < 200_000 {
        let mut pipe = redis::pipe();
        for _ in 0..500 {
            written += 1;
            pipe.cmd("SET").arg(format!("other-{written}")).arg("x".repeat(200)).arg("PX").arg(1000).ignore();
        }
        // The server has no room for some of them.
        let _ = pipe.query_async::<()>(&mut connection).await;
        assert!(written < 4_000_000, "nothing was evicted");
    }
    say(&fixture, &["CONFIG", "SET", "maxmemory", "0"]).await;
    // The last evictions may not have been told yet: the server itself is asked.
    let held = eventually("all are held, as the server has them", async || {
        let view = watcher.sync().await.unwrap();
        members.iter().all(|me| {
            let held = me.incarnation();
            held.is_some() && held == view.get(me.id().as_str()).map(|it| it.incarnation())
        })
    });
    if timeout(PATIENCE - Duration::from_secs(1), held).await.is_err() {
        let lost: Vec<_> = members.iter().filter(|me| !me.is_held()).collect();
        panic!("not held: {lost:?}. {}", seen.history());
    }
}

#[tokio::test]
async fn eviction_by_allkeys_lru_is_put_right() {
    eviction_is_put_right("allkeys-lru").await;
}

#[tokio::test]
async fn eviction_by_volatile_lru_is_put_right() {
    eviction_is_put_right("volatile-lru").await;
}
