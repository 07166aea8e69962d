//! Calls whose time is up: what they say, what becomes of what they asked for, and that they can be given more or less.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use group_redis::{Error, ErrorKind, GroupConnector, LockGuard, Membership, State};
use tokio::task::JoinSet;

use crate::locks_bad_days::{say, soon};
use crate::support::{Fixture, Recorder, eventually};

/// So long that nothing here ends because of it.
const LONG: Duration = Duration::from_secs(300);
/// More than may be under way at once.
const BURST: usize = 400;

/// The members that the server has, by their index and by their keys.
async fn stored(fixture: &Fixture) -> (BTreeSet<String>, BTreeSet<String>) {
    let index: Vec<String> = say(fixture, &["ZRANGE", &fixture.key("members"), "0", "-1"]).await;
    let pattern = fixture.key("members/");
    let keys: Vec<String> = say(fixture, &["KEYS", &format!("{pattern}*")]).await;
    let names = keys.iter().filter_map(|key| key.strip_prefix(&pattern).map(str::to_owned)).collect();
    (index.into_iter().collect(), names)
}

/// Joins many at the same moment; answers how each join ended.
async fn burst(group: &GroupConnector, names: impl Iterator<Item = String>) -> JoinSet<(String, Result<(), Error>)> {
    let mut joins = JoinSet::new();
    for name in names {
        let group = group.clone();
        joins.spawn(async move {
            let joined = group.join(&name).await.map(drop);
            (name, joined)
        });
    }
    joins
}

/// A join that gave up is in the group no longer than it takes to say so, and one that was never sent never is.
#[tokio::test(flavor = "multi_thread")]
async fn timed_out_join_is_never_found() {
    const ROUNDS: u64 = 50;
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let limit = Duration::from_millis(200);
    let watcher = fixture.builder().ttl(LONG).connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    let builder = fixture.builder().ttl(LONG).backoff_cap(limit).connect_timeout(limit).command_timeout(limit);
    let group = builder.connect().await.unwrap();
    group.join("keeper").await.unwrap();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    let mut never = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut connected = group.state();
        soon("it is connected", connected.wait_for(|state| state == State::Connected)).await;
        fixture.redis.freeze().await.unwrap();
        let mut joins = burst(&group, (0..BURST).map(|number| format!("{round}-{number}"))).await;
        let mut joined = BTreeSet::from(["keeper".to_owned()]);
        // From what is hardly noticed to what outlasts every join.
        tokio::time::sleep(limit * u32::try_from(round % 5).unwrap()).await;
        if round % 5 == 4 {
            while joins.len() > BURST / 2 {
                take(joins.join_next().await.unwrap().unwrap(), &mut ends, &mut never, &mut joined);
            }
        }
        fixture.redis.thaw().await.unwrap();
        while let Some(end) = soon("every join ends", joins.join_next()).await {
            take(end.unwrap(), &mut ends, &mut never, &mut joined);
        }
        eventually(&format!("round {round}: only those that joined are there"), async || {
            let (index, keys) = stored(&fixture).await;
            index == joined && keys == joined
        })
        .await;
        let view = soon("a new view", group.timeout(LONG).sync()).await.unwrap();
        assert_eq!(view.iter().map(|member| member.id().to_string()).collect::<BTreeSet<_>>(), joined);
        for name in joined.iter().filter(|name| *name != "keeper") {
            assert!(group.timeout(LONG).leave(name).await.unwrap());
        }
    }
    eventually("the end: only the keeper is there", async || stored(&fixture).await.0.len() == 1).await;
    seen.wait_for_names(&["keeper"]).await;
    let found = seen.read(|record| {
        let joined = record.told.iter().filter_map(|(_, told)| match told {
            crate::support::Told::Joined(member) => Some(member.id().to_string()),
            _ => None,
        });
        joined.filter(|name| never.contains(name)).collect::<Vec<_>>()
    });
    assert!(found.is_empty(), "these joins said that they were never sent: {found:?}");
    assert!(["joined", "never sent", "sent"].iter().all(|end| ends.contains_key(end)), "{ends:?}");
}

fn take(
    (name, joined): (String, Result<(), Error>),
    ends: &mut BTreeMap<&str, usize>,
    never: &mut BTreeSet<String>,
    members: &mut BTreeSet<String>,
) {
    let end = match joined {
        Ok(()) => {
            members.insert(name);
            "joined"
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
            assert!(error.is_retryable(), "{error:?}");
            if error.is_unapplied() {
                never.insert(name);
                "never sent"
            } else {
                "sent"
            }
        }
    };
    *ends.entry(end).or_default() += 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_timeout_joins_behind_frozen_server() {
    const JOINS: usize = 2000;
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let watcher = fixture.builder().ttl(LONG).connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    let group = fixture.builder().ttl(LONG).connect().await.unwrap();
    group.join("first").await.unwrap();
    fixture.redis.freeze().await.unwrap();
    let mut joins = JoinSet::new();
    for number in 0..JOINS {
        let group = group.clone();
        joins.spawn(async move { group.join(format!("{number}")).timeout(LONG).await.map(drop) });
    }
    // The connect timeout and the command timeout together, which a join waits by default.
    tokio::time::sleep(Duration::from_secs(3)).await;
    fixture.redis.thaw().await.unwrap();
    while let Some(joined) = soon("every join ends", joins.join_next()).await {
        joined.unwrap().unwrap();
    }
    assert_eq!(group.members().len(), JOINS + 1);
    seen.wait_until("all are seen", |record| record.members.len() == JOINS + 1).await;
    assert_eq!(seen.read(|record| record.leaves), 0, "each has joined once");
}

/// Every call that waits for the server, with the timeouts that its handles have.
async fn every_call(group: &GroupConnector, me: &Membership) -> Vec<(&'static str, Error)> {
    let (lock, locks, election) = (group.lock("free"), group.locks(), group.elect("role"));
    let (ephemeral, persistent) = (group.ephemeral(), group.persistent());
    let mut errors = Vec::new();
    macro_rules! ends {
        ($($what:literal: $call:expr;)*) => {
            $(errors.push(($what, soon($what, $call).await.err().unwrap_or_else(|| panic!("{} was done", $what))));)*
        };
    }
    ends! {
        "join": group.join("other").into_future();
        "sync": group.sync();
        "try_acquire": lock.try_acquire();
        "holders": lock.holders();
        "waiters": lock.waiters();
        "break_lock": lock.break_lock();
        "named lock": locks.lock("free");
        "leader": election.leader();
        "candidates": election.candidates();
        "ephemeral set": ephemeral.set("x", &1);
        "ephemeral get": ephemeral.get::<u8>("x");
        "ephemeral list": ephemeral.list("");
        "ephemeral del": ephemeral.del("x");
        "persistent set": persistent.set("x", &1);
        "persistent compare_and_set": persistent.compare_and_set("x", None, &1);
        "persistent get": persistent.get::<u8>("x");
        "persistent list": persistent.list("");
        "persistent del": persistent.del("x");
        "update": me.update(&1);
        "leave": group.leave("second");
    }
    errors
}

async fn every_fenced_call(guard: &LockGuard) -> Vec<(&'static str, Error)> {
    let fenced = guard.fenced();
    vec![
        ("fenced set", soon("fenced set", fenced.set("x", &1)).await.unwrap_err()),
        ("fenced del", soon("fenced del", fenced.del("x")).await.unwrap_err()),
        ("fenced eval", soon("fenced eval", fenced.eval::<u8>("return 1", &[], &[])).await.unwrap_err()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_says_whether_it_was_sent() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let short = Duration::from_millis(50);
    let builder = || fixture.builder().ttl(LONG).without_presence();
    let group = builder().connect_timeout(LONG).command_timeout(LONG).connect().await.unwrap();
    let me = group.join("me").await.unwrap().timeout(short);
    let guard = group.lock("held").timeout(short).acquire().await.unwrap();
    group.join("second").await.unwrap();
    group.ephemeral().set("x", &1).await.unwrap();

    fixture.redis.freeze().await.unwrap();
    let mut errors = every_call(&group.timeout(short), &me).await;
    errors.extend(every_fenced_call(&guard).await);
    for (what, error) in errors {
        // What only reads has changed nothing: there it is of no use to say so.
        let is_right = error.kind() == ErrorKind::Timeout && (what == "sync" || !error.is_unapplied());
        assert!(is_right, "{what} was sent and not answered: {error:?}");
    }
    fixture.redis.thaw().await.unwrap();
    group.timeout(LONG).close().await.unwrap();

    let group = builder().connect().await.unwrap();
    let me = group.join("me").await.unwrap().timeout(short);
    let guard = group.lock("held").timeout(short).acquire().await.unwrap();
    group.join("second").await.unwrap();
    group.ephemeral().set("x", &1).await.unwrap();

    fixture.redis.stop().await.unwrap();
    let mut state = group.state();
    soon("the link is gone", state.wait_for(|state| state != State::Connected)).await;
    let mut errors = every_call(&group.timeout(short), &me).await;
    errors.extend(every_fenced_call(&guard).await);
    for (what, error) in errors {
        // A member that leaves is gone here at once, and the server is told later.
        let is_right = error.kind() == ErrorKind::Timeout && error.is_unapplied() != (what == "leave");
        assert!(is_right, "{what} was never sent: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_out_of_range_is_refused() {
    let fixture = Fixture::new().await;
    let group = fixture.builder().connect().await.unwrap();
    for refused in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(60 * 60 + 1)] {
        let me = group.join("me").await.unwrap().timeout(refused);
        let mut errors = every_call(&group.timeout(refused), &me).await;
        for (what, refusal) in [
            ("Join::timeout", group.join("other").timeout(refused).await.err()),
            ("Lock::timeout", group.lock("free").timeout(refused).try_acquire().await.err()),
            ("Election::timeout", group.elect("role").timeout(refused).leader().await.err()),
            ("NamedLocks::timeout", group.locks().timeout(refused).lock("free").await.err()),
            ("Ephemeral::timeout", group.ephemeral().timeout(refused).get::<u8>("x").await.err()),
            ("Persistent::timeout", group.persistent().timeout(refused).get::<u8>("x").await.err()),
            ("close", group.timeout(refused).close().await.err()),
        ] {
            errors.push((what, refusal.unwrap_or_else(|| panic!("{what} was done"))));
        }
        for (what, error) in errors {
            assert_eq!(error.kind(), ErrorKind::Config, "{what}: {error}");
            assert!(error.to_string().contains("timeout is") && error.is_unapplied(), "{what}: {error}");
        }
        me.timeout(LONG).leave().await.unwrap();
    }
    group.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_timeout_waits_for_the_write() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let limit = Duration::from_millis(100);
    let group = fixture.builder().ttl(LONG).connect_timeout(limit).command_timeout(limit).connect().await.unwrap();
    fixture.redis.freeze().await.unwrap();
    let persistent = group.persistent();
    let short = persistent.set("short", &1).await.unwrap_err();
    assert!(short.kind() == ErrorKind::Timeout && !short.is_unapplied(), "{short:?}");
    let patient = persistent.timeout(LONG);
    let mut set = Box::pin(patient.set("long", &1));
    assert!(futures_util::poll!(&mut set).is_pending());
    tokio::time::sleep(limit * 5).await;
    assert!(futures_util::poll!(&mut set).is_pending(), "it outlasts the command timeout");
    fixture.redis.thaw().await.unwrap();
    soon("it is set", set).await.unwrap();
    assert_eq!(soon("it is there", patient.get::<u8>("long")).await.unwrap(), Some(1));
}

/// With pauses that are as short as the first one at the most.
#[tokio::test(flavor = "multi_thread")]
async fn short_timeouts_retry_without_a_panic() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let short = Duration::from_millis(15);
    let group = fixture.builder().ttl(LONG).connect_timeout(short).command_timeout(short).connect_lazy().unwrap();
    let ephemeral = group.ephemeral().timeout(LONG);
    ephemeral.set("value", &1).await.unwrap();
    say::<()>(&fixture, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let limited = group.ephemeral().timeout(Duration::from_millis(400));
    let refused = tokio::spawn(async move { limited.set("value", &2).await }).await;
    say::<()>(&fixture, &["REPLICAOF", "NO", "ONE"]).await;
    assert!(refused.expect("no panic").is_err());
}
