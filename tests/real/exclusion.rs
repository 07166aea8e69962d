//! Mutual exclusion: many processes, frozen and killed while they work, and every lock's story is one of turns.
//!
//! What is claimed is read off what the server has put into one order, not off anybody's clock:
//!
//! - Each hold makes two fenced calls, `load` and `store`, and the server appends both to the journal of the lock as it
//!   runs them. One valid holder at a time: in the journal no two holds are interleaved, and their tokens rise strictly.
//! - `store` sets a counter to what `load` has read plus one. No lost update: it equals the number of `store`s.
//! - Grants out of a queue are inbox messages, which a subscriber hears in the order in which the server made them.
//!   First come, first served: of two that were seen in the queue of a lock at one moment, the one in front was granted
//!   first or, since its process was gone or its session lost by then, never. Who comes back with another session has
//!   another place. Acquisitions of a free lock are not looked at: they pass by nobody, or the queue would not have been empty.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::locker::Locker;
use crate::locks_bad_days::{queue, say};
use crate::support::{Fixture, TTL};

const LOCKS: usize = 5;
const WORKERS: usize = 20;
const ACQUISITIONS: u64 = 20_000;
/// How often each kind of bad day has to come.
const ENOUGH: usize = 4;
/// Far more than it takes: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(180);

/// Who was granted a lock: connector and nonce.
type Waiter = (String, String);

/// In which order grants were made, from now on.
async fn grants(fixture: &Fixture) -> Arc<Mutex<HashMap<Waiter, usize>>> {
    let client = redis::Client::open(fixture.redis.url()).unwrap();
    let mut listening = client.get_async_pubsub().await.unwrap();
    let prefix = fixture.key("inbox/");
    listening.psubscribe(format!("{prefix}*")).await.unwrap();
    let grants = Arc::new(Mutex::new(HashMap::new()));
    let noting = grants.clone();
    tokio::spawn(async move {
        let mut messages = listening.on_message();
        while let Some(message) = messages.next().await {
            let connector = message.get_channel_name()[prefix.len()..].to_owned();
            let message_text: String = message.get_payload().unwrap();
            if let Some(rest) = message_text.strip_prefix("grant ") {
                let mut grants = noting.lock().unwrap();
                let place = grants.len();
                grants.entry((connector, rest.split(' ').next().unwrap().to_owned())).or_insert(place);
            }
        }
    });
    grants
}

/// Who waits, first come first: connector and nonce, as the entries of a queue say.
fn waiters(entries: &[String]) -> Vec<Waiter> {
    let waiter = |entry: &String| {
        let mut words = entry.split(' ');
        let (connector, _) = words.next().unwrap().rsplit_once('-').unwrap();
        (connector.to_owned(), words.next().unwrap().to_owned())
    };
    entries.iter().map(waiter).collect()
}

async fn count(fixture: &Fixture, lock: usize) -> u64 {
    say::<Option<u64>>(fixture, &["GET", &fixture.key(&format!("persistent/count/lock-{lock}"))]).await.unwrap_or(0)
}

async fn start(fixture: &Fixture, number: usize) -> Locker {
    let mut locker = Locker::start(fixture, &format!("w{number}"), TTL).await;
    locker.say(&format!("work {LOCKS} 1000000"));
    locker
}

/// What the journal of a lock tells: how many holds, how many of them stored; fails where two are interleaved.
fn read(journal: &[String], lock: usize) -> (u64, u64) {
    let (mut last, mut last_was, mut holds, mut stores) = (0, "store", 0, 0);
    for (line, entry) in journal.iter().enumerate() {
        let history = || journal[line.saturating_sub(6)..=line].join("\n");
        let (token, what) = entry.split_once(' ').unwrap();
        let token: u64 = token.parse().unwrap();
        match what {
            "load" => {
                assert!(token > last, "lock-{lock}: a token that does not rise:\n{}", history());
                holds += 1;
            }
            _ => {
                let in_turn = token == last && last_was == "load";
                assert!(in_turn, "lock-{lock}: a write that was not its writer's turn:\n{}", history());
                stores += 1;
            }
        }
        (last, last_was) = (token, what);
    }
    (holds, stores)
}

/// Twenty processes that are frozen and killed never hold a lock at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_and_killed_processes_exclude_each_other() {
    let fixture = Fixture::new().await;
    let grants = grants(&fixture).await;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(start(&fixture, number).await);
    }
    let began = Instant::now();
    let (mut snapshots, mut frozen) = (BTreeMap::<usize, Vec<Vec<Waiter>>>::new(), Vec::<(usize, Instant)>::new());
    let (mut kills, mut short, mut long, mut step, mut total) = (0, 0, 0, 0, 0);
    let (mut refused, mut failed) = (0, Vec::new());
    let mut note = |history: &[String]| {
        refused += history.iter().filter(|line| line.starts_with("refused")).count();
        failed.extend(history.iter().filter(|line| line.starts_with("failed")).cloned());
    };
    // A fast machine is through before it has had its bad days.
    while total < ACQUISITIONS || kills < ENOUGH || long < ENOUGH || short < ENOUGH {
        assert!(began.elapsed() < LIMIT, "{total} of {ACQUISITIONS} acquisitions in {LIMIT:?}");
        step += 1;
        total = 0;
        for lock in 0..LOCKS {
            total += count(&fixture, lock).await;
            let seen = waiters(&queue(&fixture, &format!("lock-{lock}")).await);
            snapshots.entry(lock).or_default().push(seen);
        }
        let now = Instant::now();
        frozen.retain(|(worker, until)| {
            let over = *until <= now;
            if over {
                workers[*worker].signal("-CONT");
            }
            !over
        });
        // One after the other, and so spread that most of the others are at work.
        let mut next = (0..WORKERS).map(|after| (step * 7 + after) % WORKERS);
        let awake = next.find(|worker| frozen.iter().all(|(other, _)| other != worker));
        if let Some(worker) = awake {
            match step % 90 {
                0 => {
                    workers[worker].signal("-STOP");
                    frozen.push((worker, now + TTL / 2));
                    short += 1;
                }
                30 => {
                    workers[worker].signal("-STOP");
                    frozen.push((worker, now + TTL * 2));
                    long += 1;
                }
                60 => {
                    workers[worker].signal("-KILL");
                    note(workers[worker].history());
                    kills += 1;
                    workers[worker] = start(&fixture, WORKERS + kills).await;
                }
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (worker, _) in frozen {
        workers[worker].signal("-CONT");
    }
    for mut worker in workers {
        worker.ask("leave", "left").await;
        note(worker.history());
    }
    let took = began.elapsed();

    let (mut holds, mut lost_around_the_fence) = (0, 0);
    for lock in 0..LOCKS {
        let journal = fixture.key(&format!("persistent/journal/lock-{lock}"));
        let journal: Vec<String> = say(&fixture, &["LRANGE", &journal, "0", "-1"]).await;
        let (loaded, stored) = read(&journal, lock);
        assert_eq!(count(&fixture, lock).await, stored, "lock-{lock}: an update was lost");
        holds += loaded;
        let plain = format!("plain:{}:lock-{lock}", fixture.group);
        lost_around_the_fence += stored.saturating_sub(say(&fixture, &["GET", &plain]).await);
    }
    let grants = grants.lock().unwrap();
    let (mut pairs, mut never) = (0, 0);
    for (lock, snapshots) in &snapshots {
        for seen in snapshots {
            let places: Vec<_> = seen.iter().filter_map(|waiter| grants.get(waiter)).collect();
            assert!(places.is_sorted(), "lock-{lock}: not in the order of the queue: {seen:?} were granted {places:?}");
            pairs += places.len().saturating_sub(1);
            never += seen.len() - places.len();
        }
    }
    println!(
        "{holds} holds in {took:?}, {refused} writes refused, {} grants, {pairs} pairs in order, {never} never; \
         {short} short and {long} long freezes, {kills} kills; {lost_around_the_fence} updates lost around the fence",
        grants.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(pairs > 500, "the test did not test much");
}
