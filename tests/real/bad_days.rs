//! What goes wrong with servers, links and processes; after each of it everybody knows the server's members.

use std::time::Duration;

use group_redis::testing::{FaultProxy, Flow, Line, Way};
use group_redis::{ErrorKind, GroupConnector, LeaveCause, OnLost, State};

use crate::support::{Fixture, PATIENCE, Recorder, TTL, eventually};
use crate::worker::Worker;

/// Two connectors with a member each, and a watcher of them.
struct Trio {
    watcher: GroupConnector,
    seen: Recorder,
    a: GroupConnector,
    b: GroupConnector,
}

impl Trio {
    async fn new(fixture: &Fixture) -> Self {
        let (watcher, a, b) = (fixture.connect().await, fixture.connect().await, fixture.connect().await);
        let seen = Recorder::new(&watcher);
        a.join("a").await.unwrap();
        b.join("b").await.unwrap();
        seen.wait_for_names(&["a", "b"]).await;
        Self { watcher, seen, a, b }
    }

    /// Everybody knows both, knows the same, and what was told folds to it.
    async fn is_whole(&self) {
        for group in [&self.watcher, &self.a, &self.b] {
            let mut state = group.state();
            let connected = state.wait_for(|state| state == State::Connected);
            tokio::time::timeout(PATIENCE, connected).await.expect("connected again");
            group.wait_for(PATIENCE, |view| view.contains("a") && view.contains("b")).await.unwrap();
        }
        self.seen.wait_for_names(&["a", "b"]).await;
        let truth = self.watcher.sync().await.unwrap();
        for group in [&self.a, &self.b] {
            let view = group.sync().await.unwrap();
            assert_eq!(view.iter().collect::<Vec<_>>(), truth.iter().collect::<Vec<_>>());
        }
    }

    /// Nothing is left behind: no task that `close` would wait for, no connection.
    async fn ends(self, fixture: &Fixture) {
        for group in [self.watcher, self.a, self.b] {
            tokio::time::timeout(PATIENCE, group.close()).await.expect("every task has ended").unwrap();
        }
        if fixture.redis.is_own() {
            let mut connection = fixture.connection().await;
            eventually("only our own connection is left", async || clients(&mut connection).await == 1).await;
        }
    }
}

async fn clients(connection: &mut redis::aio::MultiplexedConnection) -> usize {
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(connection).await.unwrap();
    list.lines().count()
}

async fn say(fixture: &Fixture, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async::<redis::Value>(&mut fixture.connection().await).await.unwrap();
}

/// The key of the one lease of the group.
pub(crate) async fn lease(fixture: &Fixture, connection: &mut redis::aio::MultiplexedConnection) -> String {
    let sessions: Vec<String> =
        redis::cmd("ZRANGE").arg(fixture.key("leases")).arg(0).arg(-1).query_async(connection).await.unwrap();
    assert_eq!(sessions.len(), 1);
    fixture.key(&format!("leases/{}", sessions[0]))
}

/// A server that is not there is an error or is waited for.
#[tokio::test]
async fn absent_server_is_error_or_waited_for() {
    let fixture = Fixture::new().await;
    fixture.redis.stop().await.unwrap();
    let error = fixture.builder().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{error:?}");
    assert!(error.is_retryable() && error.is_unapplied());

    let group = fixture.builder().connect_lazy().unwrap();
    assert_eq!(group.state().get(), State::Connecting);
    assert!(group.members().is_empty());
    fixture.redis.start_again().await.unwrap();
    group.wait_for(PATIENCE, |view| view.state() == State::Connected).await.unwrap();
    group.join("a").await.unwrap();
}

/// A join without a server fails in time and says that nothing happened.
#[tokio::test]
async fn join_without_server_times_out_unapplied() {
    let fixture = Fixture::new().await;
    let quick = Duration::from_millis(200);
    let builder = fixture.builder().connect_timeout(quick).command_timeout(quick);
    let group = builder.connect().await.unwrap();
    fixture.redis.stop().await.unwrap();
    group.wait_for(PATIENCE, |view| matches!(view.state(), State::Suspended { .. })).await.unwrap();
    let error = group.join("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_unapplied(), "{error:?}");
    assert_eq!(group.sync().await.unwrap_err().kind(), ErrorKind::Timeout);
    fixture.redis.start_again().await.unwrap();
    group.wait_for(PATIENCE, |view| view.state() == State::Connected).await.unwrap();
    assert!(group.sync().await.unwrap().is_empty(), "what timed out does not happen later");
    group.join("a").await.unwrap();
}

#[tokio::test]
async fn a_server_restarted_empty() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    let before = trio.watcher.members().get("b").unwrap().incarnation();
    fixture.redis.restart_empty().await.unwrap();
    trio.watcher.wait_for(PATIENCE, |view| view.get("b").is_some_and(|b| b.incarnation() > before)).await.unwrap();
    trio.watcher.wait_for(PATIENCE, |view| view.get("a").is_some_and(|a| a.incarnation() > before)).await.unwrap();
    trio.is_whole().await;
    assert!(trio.watcher.status().reconnects > 0);
    trio.ends(&fixture).await;
}

#[tokio::test]
async fn a_server_restarted_with_its_data() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    fixture.redis.restart_with_data().await.unwrap();
    trio.is_whole().await;
    trio.ends(&fixture).await;
}

/// As after a failover to a replica that was behind.
#[tokio::test]
async fn server_lost_the_last_renewal() {
    const LONG: Duration = TTL.saturating_mul(3);
    let fixture = Fixture::new().await;
    let group = fixture.builder().ttl(LONG).connect().await.unwrap();
    let me = group.join("a").await.unwrap();
    let first = me.incarnation();
    let left = async || -> u128 {
        let mut connection = fixture.connection().await;
        let asked = redis::cmd("PTTL").arg(fixture.key("members/a")).query_async(&mut connection).await;
        asked.unwrap_or_default()
    };
    // Of 4 ttls, it is renewed every second one.
    eventually("it is soon to be renewed", async || left().await < LONG.as_millis() * 21 / 10).await;
    say(&fixture, &["SAVE"]).await;
    eventually("it is renewed", async || left().await > LONG.as_millis() * 3).await;
    fixture.redis.crash_and_restart().await.unwrap();
    eventually("it is renewed again", async || left().await > LONG.as_millis() * 3).await;
    group.sync().await.unwrap();
    assert_eq!(me.incarnation(), first, "it did not run out");
    group.close().await.unwrap();
}

#[tokio::test]
async fn a_server_gone_for_20_seconds() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    fixture.redis.stop().await.unwrap();
    for group in [&trio.a, &trio.b] {
        let mut state = group.state();
        let lost = state.wait_for(|state| state == State::Lost);
        tokio::time::timeout(PATIENCE, lost).await.expect("it says that its lease is lost");
    }
    assert!(matches!(trio.watcher.state().get(), State::Suspended { .. }), "who only watches has nothing to lose");
    assert_eq!(trio.watcher.members().len(), 2, "what was known stays known, and grows old");
    // The outage itself, longer than any of their timeouts.
    tokio::time::sleep(Duration::from_secs(20)).await;
    fixture.redis.start_again().await.unwrap();
    trio.is_whole().await;
    trio.ends(&fixture).await;
}

#[tokio::test]
async fn a_frozen_server() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    fixture.redis.freeze().await.unwrap();
    let mut state = trio.watcher.state();
    let noticed = state.wait_for(|state| matches!(state, State::Suspended { .. }));
    tokio::time::timeout(PATIENCE, noticed).await.expect("it notices");
    fixture.redis.thaw().await.unwrap();
    trio.is_whole().await;
    trio.ends(&fixture).await;
}

#[tokio::test]
async fn everything_flushed() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    let before = trio.watcher.members().get("b").unwrap().incarnation();
    say(&fixture, &["FLUSHALL"]).await;
    for name in ["a", "b"] {
        let risen = trio.watcher.wait_for(PATIENCE, |view| view.get(name).is_some_and(|m| m.incarnation() > before));
        risen.await.unwrap();
    }
    trio.is_whole().await;
    trio.ends(&fixture).await;
}

/// Its revisions had come from a clock that was ahead: what is written after the loss has lower ones.
#[tokio::test]
async fn flushed_with_the_clock_behind() {
    let fixture = Fixture::new().await;
    let ahead = 9_000_000_000_000_000;
    say(&fixture, &["SET", &fixture.key("revision"), &ahead.to_string()]).await;
    let trio = Trio::new(&fixture).await;
    assert!(trio.watcher.members().iter().all(|member| member.incarnation().get() > ahead));
    say(&fixture, &["FLUSHALL"]).await;
    for name in ["a", "b"] {
        for group in [&trio.watcher, &trio.a, &trio.b] {
            let fallen = group.wait_for(PATIENCE, |view| view.get(name).is_some_and(|m| m.incarnation().get() < ahead));
            fallen.await.unwrap_or_else(|error| panic!("{error}: {name} in {:?}", group.members()));
        }
    }
    trio.is_whole().await;
    trio.ends(&fixture).await;
}

/// As after a swap of databases that is undone: the member that is there is live, and under our own earlier session.
#[tokio::test]
async fn restored_data_end_no_membership() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let me = group.join("a").await.unwrap();
    let mut connection = fixture.connection().await;
    let (member, lease) = (fixture.key("members/a"), lease(&fixture, &mut connection).await);
    let both = redis::cmd("MGET").arg(&member).arg(&lease).query_async(&mut connection).await;
    let (record, holder): (String, String) = both.unwrap();
    let seen = Recorder::new(&group);
    say(&fixture, &["FLUSHALL"]).await;
    seen.wait_until("it rejoined", |record| record.joins > 0).await;
    let first = me.incarnation();

    let back = "redis.call('FLUSHALL')
        redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)
        redis.call('SET', KEYS[2], ARGV[2], 'PX', 60000)";
    say(&fixture, &["EVAL", back, "2", &lease, &member, &holder, &record]).await;
    eventually("it rejoined again", async || me.incarnation() > first).await;
    group.sync().await.unwrap();
    assert_eq!(group.members().get("a").map(|member| member.incarnation()), me.incarnation());
    group.close().await.unwrap();
}

#[tokio::test]
async fn scripts_flushed() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    say(&fixture, &["SCRIPT", "FLUSH"]).await;
    let me = trio.a.join("c").await.unwrap();
    say(&fixture, &["SCRIPT", "FLUSH"]).await;
    me.update(&1).await.unwrap();
    // Who comes and goes between two reads is not told of at all.
    trio.seen.wait_for_names(&["a", "b", "c"]).await;
    say(&fixture, &["SCRIPT", "FLUSH"]).await;
    assert!(me.leave().await.unwrap());
    trio.seen.wait_until("c came and went", |record| record.left("c").is_some()).await;
    trio.is_whole().await;
    assert_eq!(trio.seen.read(|record| (record.snapshots, record.leaves)), (1, 1), "{}", trio.seen.history());
}

#[tokio::test]
async fn subscriptions_killed_in_a_loop() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    let mut connection = fixture.connection().await;
    for _ in 0..40 {
        let kill = ["KILL", "TYPE", "pubsub"];
        redis::cmd("CLIENT").arg(&kill).query_async::<u64>(&mut connection).await.unwrap();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let changed = trio.watcher.members().len();
    trio.a.join("c").await.unwrap();
    trio.watcher.wait_for(PATIENCE, |view| view.len() == changed + 1).await.unwrap();
    assert_eq!(trio.seen.read(|record| record.leaves), 0, "no false leave. {}", trio.seen.history());
    trio.a.leave("c").await.unwrap();
    trio.is_whole().await;
    drop(connection);
    trio.ends(&fixture).await;
}

#[tokio::test]
async fn all_clients_killed() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    let incarnation = trio.watcher.members().get("a").unwrap().incarnation();
    for _ in 0..5 {
        let mut connection = fixture.connection().await;
        let kill = ["KILL", "SKIPME", "yes"];
        redis::cmd("CLIENT").arg(&kill).query_async::<u64>(&mut connection).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    trio.is_whole().await;
    assert_eq!(trio.watcher.members().get("a").unwrap().incarnation(), incarnation, "the lease outlived the link");
    assert_eq!(trio.seen.read(|record| record.leaves), 0, "no false leave. {}", trio.seen.history());
    trio.ends(&fixture).await;
}

#[tokio::test]
async fn notification_flags_reset() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    say(&fixture, &["CONFIG", "SET", "notify-keyspace-events", ""]).await;
    // Nobody is told of this; the reconciliation finds it.
    trio.a.join("c").await.unwrap();
    trio.watcher.wait_for(PATIENCE, |view| view.contains("c")).await.unwrap();
    let mut connection = fixture.connection().await;
    eventually("the flags are back", async || {
        let get = ["GET", "notify-keyspace-events"];
        let flags: Vec<String> = redis::cmd("CONFIG").arg(&get).query_async(&mut connection).await.unwrap();
        "K$gx".chars().all(|flag| flags[1].contains(flag) || flags[1].contains('A'))
    })
    .await;
    eventually("proven again", async || trio.watcher.status().notifications_arrive).await;
    trio.a.leave("c").await.unwrap();
    trio.is_whole().await;
}

#[tokio::test]
async fn out_of_memory() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    let crashing = Worker::start(&fixture, "w", TTL, 1, 1).await;
    trio.seen.wait_for_names(&["a", "b", "w"]).await;
    let before = trio.watcher.members().get("a").unwrap().incarnation();
    say(&fixture, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = trio.a.join("c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error:?}");
    assert!(error.is_unapplied() && error.to_string().contains("maxmemory"), "{error}");
    // The heartbeats go on, and so does the sweep.
    crashing.signal("-KILL");
    trio.seen.wait_for_names(&["a", "b"]).await;
    assert!(trio.b.leave("b").await.unwrap());
    trio.seen.wait_for_names(&["a"]).await;
    assert_eq!(trio.watcher.sync().await.unwrap().get("a").unwrap().incarnation(), before);
    say(&fixture, &["CONFIG", "SET", "maxmemory", "0"]).await;
    trio.b.join("b").await.unwrap();
    trio.is_whole().await;
}

#[tokio::test]
async fn a_paused_server() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    say(&fixture, &["CLIENT", "PAUSE", "2500"]).await;
    let mut state = trio.a.state();
    let noticed = state.wait_for(|state| state != State::Connected);
    tokio::time::timeout(PATIENCE, noticed).await.expect("it notices");
    trio.is_whole().await;
    trio.ends(&fixture).await;
}

#[tokio::test]
async fn member_key_deleted_by_another_comes_back() {
    let fixture = Fixture::new().await;
    let trio = Trio::new(&fixture).await;
    let before = trio.watcher.members().get("a").unwrap().incarnation();
    say(&fixture, &["DEL", &fixture.key("members/a")]).await;
    // Its owner may be back before the watcher has looked: then it has seen a new incarnation, and no gap.
    let causes = [Some(LeaveCause::Removed), Some(LeaveCause::Replaced)];
    trio.seen.wait_until("gone", |record| causes.contains(&record.left("a"))).await;
    trio.watcher.wait_for(PATIENCE, |view| view.get("a").is_some_and(|a| a.incarnation() > before)).await.unwrap();
    trio.is_whole().await;
}

/// The death of a process is seen although the index of leases has been lost.
#[tokio::test]
async fn death_is_seen_without_index_of_leases() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let builder = GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(TTL);
    // So many that the victim's record lives for longer than anybody waits.
    let others = fixture.connect().await;
    let joins = (0..60).map(|at| others.join(format!("m{at}")).into_future());
    futures_util::future::try_join_all(joins).await.unwrap();
    let victim = builder.connect().await.unwrap();
    victim.join("victim").await.unwrap();
    let mut connection = fixture.connection().await;
    let record: String =
        redis::cmd("GET").arg(fixture.key("members/victim")).query_async(&mut connection).await.unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let lease = fixture.key(&format!("leases/{}", record["session"].as_str().unwrap()));
    let watchers = futures_util::future::join_all((0..5).map(|_| fixture.connect())).await;
    let seen = Recorder::new(&watchers[0]);
    seen.wait_until("all are there", |record| record.members.len() == 61).await;

    proxy.set(Line::Any, Way::ToServer, Flow::new().blackhole());
    let mut left = async || redis::cmd("PTTL").arg(&lease).query_async::<i64>(&mut connection).await.unwrap();
    // The lease must be there still: else this would show no more than any death does.
    let half = i64::try_from(TTL.as_millis()).unwrap() / 2;
    eventually("no heartbeat comes", async || (1..half).contains(&left().await)).await;
    say(&fixture, &["DEL", &fixture.key("leases")]).await;
    seen.wait_until("it is missed", |record| record.left("victim") == Some(LeaveCause::Expired)).await;
    assert_eq!(seen.read(|record| record.leaves), 1, "{}", seen.history());
    proxy.heal();
}

#[tokio::test]
async fn on_lost_stop_does_not_rejoin() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let group = fixture.builder().on_lost(OnLost::Stop).connect().await.unwrap();
    let me = group.join("a").await.unwrap();
    watcher.wait_for(PATIENCE, |view| view.contains("a")).await.unwrap();
    say(&fixture, &["FLUSHALL"]).await;
    assert_eq!(me.lost().await, LeaveCause::Expired);
    watcher.wait_for(PATIENCE, group_redis::View::is_empty).await.unwrap();
    assert_eq!(me.held().await, None);
    assert_eq!(me.update(&1).await.unwrap_err().kind(), ErrorKind::Lost);
    let again = me.rejoin().await.unwrap();
    assert_eq!(me.incarnation(), Some(again));
    watcher.wait_for(PATIENCE, |view| view.contains("a")).await.unwrap();
}
