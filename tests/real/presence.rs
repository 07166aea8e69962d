//! Two speeds of death: a process that ends is seen by its connections, one that is frozen by its lease.

use std::time::{Duration, Instant};

use group_redis::testing::{FaultProxy, Line};
use group_redis::{GroupConnector, LeaveCause, State};

use super::support::{Fixture, PATIENCE, Recorder, eventually};
use super::worker::Worker;

const LONG: Duration = Duration::from_secs(10);

async fn watcher(fixture: &Fixture) -> GroupConnector {
    fixture.builder().ttl(LONG).connect().await.unwrap()
}

/// A connector whose connections can be broken.
async fn through(fixture: &Fixture, proxy: &FaultProxy) -> GroupConnector {
    GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(LONG).connect().await.unwrap()
}

/// Waits until the watcher has seen that somebody else is there.
async fn are_seen(watcher: &GroupConnector) {
    eventually("somebody is seen", async || watcher.status().sessions_seen == 1).await;
}

/// A holder that is cut off for good leaves after the grace, and knows it before.
#[tokio::test]
async fn cut_off_holder_suspends_before_grace_ends() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let (watcher, group) = (watcher(&fixture).await, through(&fixture, &proxy).await);
    let seen = Recorder::new(&watcher);
    group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    seen.wait_for_names(&["a"]).await;
    are_seen(&watcher).await;

    let begun = Instant::now();
    proxy.refuse();
    proxy.reset(Line::Any);
    guard.suspended().await;
    let suspended = begun.elapsed();
    assert!(!guard.is_held());
    let second = watcher.lock("l").acquire().await.unwrap();
    let taken = begun.elapsed();
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("a")), Some(LeaveCause::Expired));
    assert!(suspended < taken && taken < LONG / 2, "suspended after {suspended:?}, taken over after {taken:?}");
    assert!(second.token() > guard.token());

    // Let in again, it is told that it has lost, and joins again.
    proxy.heal();
    guard.lost().await;
    assert!(!guard.is_held());
    seen.wait_for_names(&["a"]).await;
    watcher.close().await.unwrap();
    group.close().await.unwrap();
}

#[tokio::test]
async fn who_only_reconnects_keeps_everything() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let (watcher, group) = (watcher(&fixture).await, through(&fixture, &proxy).await);
    let seen = Recorder::new(&watcher);
    group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    seen.wait_for_names(&["a"]).await;
    are_seen(&watcher).await;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        proxy.reset(Line::Any);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut state = group.state();
    tokio::time::timeout(PATIENCE, state.wait_for(|state| state == State::Connected)).await.unwrap();
    assert!(guard.is_held(), "{}", seen.history());
    assert_eq!(seen.read(|record| (record.joins, record.leaves)), (1, 0), "{}", seen.history());
    watcher.close().await.unwrap();
    group.close().await.unwrap();
}

/// A holder that is cut off while its heartbeats are refused is back in time.
/// By then the pauses between its attempts are longer than what it vouches for.
#[tokio::test]
async fn cut_off_holder_reconnects_within_grace() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let mut connection = fixture.connection().await;
    may(&mut connection, &["on", "nopass", "~*", "&*", "+@all"]).await;
    let url = proxy.url().replace("redis://", "redis://app:none@");
    let watcher = watcher(&fixture).await;
    let builder = GroupConnector::builder(url).group(&fixture.group).ttl(LONG).backoff_cap(LONG);
    let group = builder.grace(Duration::from_secs(2)).connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    are_seen(&watcher).await;

    may(&mut connection, &["-pexpire"]).await;
    let before = proxy.accepted();
    eventually("it has tried often", async || proxy.accepted() >= before + 7).await;
    let since = time_left(&fixture, &mut connection).await;
    may(&mut connection, &["+pexpire"]).await;
    proxy.reset(Line::Heartbeat);
    eventually("a heartbeat is answered", async || time_left(&fixture, &mut connection).await > since).await;
    assert_eq!(seen.read(|record| (record.joins, record.leaves)), (1, 0), "{}", seen.history());
    watcher.close().await.unwrap();
    group.close().await.unwrap();
}

/// Changes the rights of a user.
async fn may(connection: &mut redis::aio::MultiplexedConnection, rights: &[&str]) {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("app").arg(rights).query_async::<()>(connection).await.unwrap();
}

/// How many milliseconds the lease has that runs out last; 0 where there is none.
async fn time_left(fixture: &Fixture, connection: &mut redis::aio::MultiplexedConnection) -> i64 {
    let last: Vec<String> =
        redis::cmd("ZRANGE").arg(fixture.key("leases")).arg(&["-1", "-1"]).query_async(connection).await.unwrap();
    let Some(session) = last.first() else { return 0 };
    let key = fixture.key(&format!("leases/{session}"));
    redis::cmd("PTTL").arg(key).query_async::<i64>(connection).await.unwrap().max(0)
}

/// The watcher would see it, but there is nothing to see.
#[tokio::test]
async fn without_presence_only_the_lease_counts() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let ttl = Duration::from_secs(3);
    let watcher = fixture.builder().ttl(ttl).connect().await.unwrap();
    let builder = GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(ttl).without_presence();
    let group = builder.connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    seen.wait_for_names(&["a"]).await;
    proxy.refuse();
    proxy.reset(Line::Any);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(guard.is_held());
    assert_eq!(seen.read(|record| record.leaves), 0);
    proxy.heal();
    let mut state = group.state();
    tokio::time::timeout(PATIENCE, state.wait_for(|state| state == State::Connected)).await.unwrap();
    assert!(guard.is_held());
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
    watcher.close().await.unwrap();
    group.close().await.unwrap();
}

/// A killed process is seen long before its ttl and a frozen one is left alone.
#[tokio::test]
async fn killed_process_is_seen_before_its_ttl() {
    let fixture = Fixture::new().await;
    let watcher = watcher(&fixture).await;
    let seen = Recorder::new(&watcher);
    let worker = Worker::start(&fixture, "w", LONG, 1, 1).await;
    seen.wait_until("the worker", |record| record.members.len() == 1).await;
    are_seen(&watcher).await;
    worker.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(2)).await;
    worker.signal("-CONT");
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
    let begun = Instant::now();
    worker.signal("-KILL");
    seen.wait_for_names(&[]).await;
    assert!(begun.elapsed() < LONG / 2, "{:?}: {}", begun.elapsed(), seen.history());
    watcher.close().await.unwrap();
}

/// The probers among them: they have to be replaced first, and their successors have never seen the dead.
#[tokio::test]
async fn processes_killed_together_are_seen_long_before_their_ttl() {
    let fixture = Fixture::new().await;
    let mut workers = Vec::new();
    for number in 0..4 {
        workers.push(Worker::start(&fixture, &format!("w{number}"), LONG, 1, 1).await);
    }
    let probers = async || {
        let mut asking = redis::cmd("ZCARD");
        asking.arg(fixture.key("probers"));
        asking.query_async::<usize>(&mut fixture.connection().await).await.unwrap()
    };
    eventually("the workers have both places", async || probers().await == 2).await;
    let watcher = watcher(&fixture).await;
    let seen = Recorder::new(&watcher);
    seen.wait_until("the workers", |record| record.members.len() == 4).await;
    assert_eq!(watcher.status().sessions_seen, 0, "the watcher is no prober");
    eventually("each lease is marked", async || marked(&fixture).await == 4).await;
    let begun = Instant::now();
    workers.iter().for_each(|worker| worker.signal("-KILL"));
    seen.wait_for_names(&[]).await;
    assert!(begun.elapsed() < LONG / 2, "{:?}: {}", begun.elapsed(), seen.history());
    watcher.close().await.unwrap();
}

/// How many leases have a mark.
async fn marked(fixture: &Fixture) -> usize {
    let mut connection = fixture.connection().await;
    let sessions: Vec<String> =
        redis::cmd("ZRANGE").arg(fixture.key("leases")).arg(&["0", "-1"]).query_async(&mut connection).await.unwrap();
    let mut count = 0;
    for session in sessions {
        let key = fixture.key(&format!("leases/{session}"));
        let lease: Option<String> = redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap();
        count += usize::from(lease.is_some_and(|lease| lease.contains("\"run\":\"")));
    }
    count
}

/// A server that comes back with its data takes nobody for dead, however long they take to come back to it.
#[tokio::test]
async fn mark_of_an_earlier_run_shortens_no_lease() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let (watcher, group) = (watcher(&fixture).await, through(&fixture, &proxy).await);
    let seen = Recorder::new(&watcher);
    group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    are_seen(&watcher).await;
    eventually("the lease is marked", async || marked(&fixture).await == 1).await;
    proxy.refuse();
    fixture.redis.restart_with_data().await.unwrap();
    let mut state = watcher.state();
    tokio::time::timeout(PATIENCE, state.wait_for(|state| state == State::Connected)).await.unwrap();
    let asks = async || {
        let mut asking = redis::cmd("ZCARD");
        asking.arg(fixture.key("probers"));
        asking.query_async::<usize>(&mut fixture.connection().await).await.unwrap()
    };
    eventually("the watcher probes", async || asks().await == 1).await;
    // Its probes are frequent, and a lease that they shorten is over after the grace.
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.heal();
    let mut state = group.state();
    tokio::time::timeout(PATIENCE, state.wait_for(|state| state == State::Connected)).await.unwrap();
    assert_eq!(seen.read(|record| (record.joins, record.leaves)), (1, 0), "{}", seen.history());
    watcher.close().await.unwrap();
    group.close().await.unwrap();
}
