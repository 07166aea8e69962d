//! Joins, grants and writes that count only when replicas have them.

use std::future::IntoFuture;
use std::time::Duration;

use group_redis::testing::{Backend, TestRedis};
use group_redis::{Error, ErrorKind, GroupConnector, Replication, State};
use tokio::time::timeout;

use super::support::{PATIENCE, Recorder, eventually, replicated};

const SHORT: Duration = Duration::from_millis(200);

/// A primary with its replica, which follows.
async fn pair() -> (TestRedis, TestRedis) {
    let server = |args: Vec<String>| TestRedis::builder().args(args).backend(Backend::Process).start();
    let delay = ["--repl-diskless-sync-delay", "0"].map(str::to_owned);
    let primary = server(delay.to_vec()).await.unwrap();
    let of = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary.port().to_string()];
    let replica = server(of.to_vec()).await.unwrap();
    replicated(&primary, 1).await;
    (primary, replica)
}

async fn connect(redis: &TestRedis, timeout: Duration) -> GroupConnector {
    let replication = Replication::Ack { replicas: 1, timeout };
    GroupConnector::builder(redis.url()).group("g").replication(replication).connect().await.unwrap()
}

async fn exists(redis: &TestRedis, key: &str) -> bool {
    let mut connection = redis.connection().await.unwrap();
    redis::cmd("EXISTS").arg(key).query_async(&mut connection).await.unwrap()
}

fn check(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unacknowledged, "{error}");
    assert!(error.is_retryable() && !error.is_unapplied(), "{error:?}");
    assert!(error.to_string().contains("0 of 1 replicas have acknowledged it within 200ms"), "{error}");
}

#[tokio::test]
async fn what_was_answered_is_at_the_replica() {
    let (primary, replica) = pair().await;
    let group = connect(&primary, PATIENCE).await;
    for round in 0..50 {
        let name = format!("m{round}");
        group.join(&name).await.unwrap();
        assert!(exists(&replica, &format!("{{g}}/members/{name}")).await);
        let guard = group.lock(&name).acquire().await.unwrap();
        assert!(exists(&replica, &format!("{{g}}/locks/{name}")).await);
        group.persistent().set(&name, "value").await.unwrap();
        assert!(exists(&replica, &format!("{{g}}/persistent/{name}")).await);
        guard.release().await;
    }
}

/// The replica is frozen: nothing is told that a failover may forget, and what can be taken back is.
#[tokio::test]
async fn what_no_replica_has_is_an_error_and_is_taken_back() {
    let (primary, replica) = pair().await;
    let (group, other) = (connect(&primary, SHORT).await, connect(&primary, SHORT).await);
    let seen = Recorder::new(&other);
    // A replica that has just come may be late with its first word.
    let (first, mut guard) = (other.lock("handed over"), None);
    let granted = async || {
        guard = first.acquire().await.ok();
        guard.is_some()
    };
    eventually("the replica acknowledges", granted).await;
    let guard = guard.unwrap();
    let waiter = tokio::spawn({
        let lock = group.lock("handed over");
        async move { lock.acquire().await }
    });
    let queued = async || guard_waiters(&other).await == 1;
    eventually("it waits", queued).await;

    replica.freeze().await.unwrap();
    check(&group.join("a").await.unwrap_err());
    seen.wait("a is taken out again", |record| (record.joins == 1 && record.members.is_empty()).then_some(())).await;
    check(&group.lock("l").acquire().await.unwrap_err());
    let holders = async || other.lock("l").holders().await.unwrap();
    eventually("the lock is given back", async || holders().await.is_empty()).await;
    check(&group.persistent().set("p", &1).await.unwrap_err());
    assert_eq!(group.persistent().get::<u32>("p").await.unwrap(), Some(1), "it is written");
    assert_eq!(group.persistent().compare_and_set("p", None, &2).await.unwrap(), None, "nothing is waited for");
    guard.release().await;
    check(&timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap_err());
    let holders = async || other.lock("handed over").holders().await.unwrap();
    eventually("the lock is given back", async || holders().await.is_empty()).await;

    replica.thaw().await.unwrap();
    let joins = async || group.join("a").await.is_ok();
    eventually("it joins", joins).await;
    assert_eq!(group.state().get(), State::Connected);
    assert_eq!(group.status().reconnects, 0);
}

async fn guard_waiters(group: &GroupConnector) -> usize {
    group.lock("handed over").waiters().await.unwrap().len()
}

/// Dropped while it waits for replicas, a join is taken back and a lock is given back.
#[tokio::test]
async fn wait_for_replicas_may_be_dropped() {
    let (primary, replica) = pair().await;
    let (group, other) = (connect(&primary, PATIENCE).await, connect(&primary, PATIENCE).await);
    let (seen, lock) = (Recorder::new(&other), other.lock("l"));
    replica.freeze().await.unwrap();
    let (joining, acquiring) = (group.join("a").into_future(), group.lock("l"));
    let calls = tokio::spawn(async move { tokio::join!(joining, acquiring.acquire()).0.is_ok() });
    let holders = async || lock.holders().await.unwrap();
    seen.wait_for_names(&["a"]).await;
    eventually("the lock is held", async || !holders().await.is_empty()).await;
    calls.abort();
    seen.wait_for_names(&[]).await;
    eventually("the lock is given back", async || holders().await.is_empty()).await;
}

#[tokio::test]
async fn connection_that_waits_for_replicas_comes_back() {
    let (primary, _replica) = pair().await;
    let group = connect(&primary, PATIENCE).await;
    let me = group.join("a").await.unwrap();
    let mut admin = primary.connection().await.unwrap();
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut admin).await.unwrap();
    // Redis before 7.2 has no names of libraries in the list: it is the one whose last command was the wait.
    let line = list.lines().find(|line| line.contains("cmd=wait")).expect("one has waited");
    let id = line.split(' ').find_map(|word| word.strip_prefix("id=")).unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "ID", id]).exec_async(&mut admin).await.unwrap();
    let joins = async || group.join("b").await.is_ok_and(|member| member.is_held());
    eventually("it joins", joins).await;
    assert!(me.is_held(), "nothing was lost by it");
}

/// The right to wait is missing: the write is done, and the error does not say otherwise.
#[tokio::test]
async fn missing_right_to_wait_is_named_and_close_ends() {
    let (primary, _replica) = pair().await;
    let mut admin = primary.connection().await.unwrap();
    let user = ["SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-wait"];
    redis::cmd("ACL").arg(&user).exec_async(&mut admin).await.unwrap();
    let url = primary.url().replacen("redis://", "redis://poor:secret@", 1);
    let replication = Replication::Ack { replicas: 1, timeout: SHORT };
    let group = GroupConnector::builder(url).group("g").replication(replication).connect().await.unwrap();
    let error = group.persistent().set("p", &1).await.unwrap_err();
    assert_eq!((error.kind(), error.is_unapplied()), (ErrorKind::Denied, false), "{error}");
    assert!(error.to_string().contains("WAIT"), "{error}");
    assert_eq!(group.persistent().get::<u32>("p").await.unwrap(), Some(1));
    let (kept, lock) = (group.clone(), group.lock("l"));
    timeout(PATIENCE, group.close()).await.expect("it ends while handles are left").unwrap();
    drop((kept, lock));
}
