//! A primary that sentinels choose, on real servers.

use std::time::Duration;

use group_redis::testing::{TestRedis, TestSentinel};
use group_redis::{ErrorKind, GroupConnector, State};
use tokio::time::timeout;

use super::support::{PATIENCE, Recorder, eventually, replicated};

async fn connect(servers: &TestSentinel) -> GroupConnector {
    GroupConnector::builder(servers.url()).group("g").connect().await.unwrap()
}

async fn client_kill(redis: &TestRedis) {
    let mut connection = redis.connection().await.unwrap();
    for kind in ["normal", "pubsub"] {
        let words = &["KILL", "TYPE", kind, "SKIPME", "yes"];
        redis::cmd("CLIENT").arg(words).query_async::<u64>(&mut connection).await.unwrap();
    }
}

/// What the replica knew lives on: the same incarnation, the same token.
#[tokio::test]
async fn killed_primary_costs_nothing_that_the_replica_knew() {
    let mut servers = TestSentinel::start().await.unwrap();
    let (group, watcher) = (connect(&servers).await, connect(&servers).await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let guard = group.lock("l").acquire().await.unwrap();
    let (incarnation, token) = (me.incarnation().unwrap(), guard.token());
    replicated(&servers.nodes()[0], 2).await;

    servers.kill_primary().await.unwrap();
    assert!(timeout(PATIENCE, guard.held()).await.unwrap(), "it lives on the replica");
    assert_eq!(timeout(PATIENCE, me.held()).await.unwrap(), Some(incarnation));
    assert_eq!(guard.token(), token);
    assert!(guard.release().await);
    let next = group.lock("l").acquire().await.unwrap();
    assert!(next.token() > token, "tokens rise across a promotion");
    eventually("the watcher is back", async || watcher.state().get() == State::Connected).await;
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
}

/// The old primary comes back empty before the sentinels have demoted it. Nobody joins a second group there.
#[tokio::test]
async fn primary_that_comes_back_empty_is_left_alone() {
    let mut servers = TestSentinel::start().await.unwrap();
    let group = connect(&servers).await;
    group.join("a").await.unwrap();
    let elected = servers.kill_primary().await.unwrap();
    servers.nodes()[0].start_again().await.unwrap();
    client_kill(&servers.nodes()[elected]).await;
    let other = connect(&servers).await;
    other.join("b").await.unwrap();
    for group in [&group, &other] {
        let both = group.wait_for(PATIENCE, |view| view.contains("a") && view.contains("b")).await;
        both.unwrap();
    }
    let mut old = servers.nodes()[0].connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("{g}/leases/*").query_async(&mut old).await.unwrap();
    let info: String = redis::cmd("INFO").arg("replication").query_async(&mut old).await.unwrap();
    assert!(keys.is_empty() || info.contains("role:slave"), "{keys:?} at the old primary: {info}");
}

/// Both primaries live: the connector goes to the one that was elected.
#[tokio::test]
async fn failover_moves_the_connector_while_the_old_primary_lives() {
    let servers = TestSentinel::start().await.unwrap();
    let (group, watcher) = (connect(&servers).await, connect(&servers).await);
    let me = group.join("a").await.unwrap();
    let seen = Recorder::new(&watcher);
    seen.wait_for_names(&["a"]).await;
    let elected = servers.failover().await.unwrap();
    assert_ne!(elected, 0);
    timeout(PATIENCE, group.join("b")).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, me.held()).await.unwrap().is_some());
    let mut connection = servers.nodes()[elected].connection().await.unwrap();
    let has_both = async || {
        let members: Vec<String> =
            redis::cmd("ZRANGE").arg("{g}/members").arg(&[0, -1]).query_async(&mut connection).await.unwrap();
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap();
        info.contains("role:master") && members.len() == 2 && group.state().get() == State::Connected
    };
    eventually("the elected server has both", has_both).await;
    seen.wait_for_names(&["a", "b"]).await;
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
    group.close().await.unwrap();
    seen.wait_for_names(&[]).await;
}

/// Without sentinels nobody elects another primary: the one that was it still is, if it is the same run.
#[tokio::test]
async fn primary_is_found_again_while_all_sentinels_are_gone() {
    let mut servers = TestSentinel::start().await.unwrap();
    let group = connect(&servers).await;
    let me = group.join("a").await.unwrap();
    let (before, reconnects) = (me.incarnation(), group.status().reconnects);
    servers.kill_sentinels();
    client_kill(&servers.nodes()[0]).await;
    eventually("it is back", async || group.status().reconnects > reconnects).await;
    eventually("it is held", async || me.is_held()).await;
    assert_eq!(me.incarnation(), before);

    servers.nodes()[0].restart_empty().await.unwrap();
    let says = async || group.status().error.is_some_and(|error| error.to_string().contains("started anew"));
    eventually("another run is not trusted", says).await;
}

#[tokio::test]
async fn wrong_urls_of_sentinels_say_what_is_wrong() {
    let servers = TestSentinel::start().await.unwrap();
    let redis = &servers.nodes()[0];
    let sentinels = servers.url().strip_prefix("redis+sentinel://").unwrap().split_once('/').unwrap().0.to_owned();
    let first = sentinels.split(',').next().unwrap();
    let cases = [
        (format!("redis+sentinel://{sentinels}/other"), "No such master", "SENTINEL MASTERS"),
        (format!("redis://{first}/"), "is a sentinel and no server", "redis+sentinel://"),
        (format!("redis+sentinel://127.0.0.1:{}/mymaster", redis.port()), "no sentinel", "redis:// for a server"),
    ];
    for (url, reason, cure) in cases {
        let refused = timeout(Duration::from_secs(2), GroupConnector::builder(&url).connect()).await;
        let error = refused.expect("it is refused at once").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(reason) && text.contains(cure), "{url}: {text}");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Config, false), "{text}");
    }
    let nobody = GroupConnector::builder("redis+sentinel://127.0.0.1:1/mymaster").connect().await.unwrap_err();
    assert_eq!((nobody.kind(), nobody.is_retryable()), (ErrorKind::Connection, true), "{nobody}");
    assert!(nobody.to_string().contains("mymaster of sentinels 127.0.0.1:1, database 0"), "{nobody}");
    let hosts: Vec<_> = sentinels.split(',').collect();
    let group = GroupConnector::builder("redis://primary/").sentinels("mymaster", hosts).connect().await.unwrap();
    group.join("a").await.unwrap();
}

/// One sentinel names another server, by no later election: it is outvoted.
#[tokio::test]
async fn sentinel_that_lies_is_not_believed() {
    let (servers, others) = (TestSentinel::start().await.unwrap(), TestSentinel::start().await.unwrap());
    let hosts = |servers: &TestSentinel| {
        let hosts = servers.url().strip_prefix("redis+sentinel://").unwrap().split_once('/').unwrap().0.to_owned();
        hosts.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let (mine, theirs) = (hosts(&servers), hosts(&others));
    for place in 0..3 {
        let mut hosts = mine[..2].to_vec();
        hosts.insert(place, theirs[0].clone());
        let group = GroupConnector::builder("redis://primary/").sentinels("mymaster", hosts).group("g");
        let group = group.connect().await.unwrap();
        group.join(format!("m{place}")).await.unwrap();
        group.close().await.unwrap();
    }
    let mut connection = others.nodes()[0].connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("{g}/*").query_async(&mut connection).await.unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

/// Those that wait keep their order over a failover, and nobody waits for ever.
#[tokio::test]
async fn fifty_waiters_keep_their_order_over_a_failover() {
    let mut servers = TestSentinel::start().await.unwrap();
    let group = connect(&servers).await;
    let guard = group.lock("l").acquire().await.unwrap();
    let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = Vec::new();
    for number in 0..50 {
        let (lock, sender) = (group.lock("l"), sender.clone());
        waiting.push(tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            sender.send(number).unwrap();
            guard.release().await;
        }));
        eventually("it waits", async || group.lock("l").waiters().await.unwrap().len() > number).await;
    }
    replicated(&servers.nodes()[0], 2).await;
    servers.kill_primary().await.unwrap();
    timeout(PATIENCE, guard.held()).await.unwrap();
    guard.release().await;
    let mut came = Vec::new();
    for waiter in waiting {
        timeout(PATIENCE, waiter).await.unwrap().unwrap();
    }
    while let Ok(number) = order.try_recv() {
        came.push(number);
    }
    assert_eq!(came, (0..50).collect::<Vec<_>>());
}

/// A close that a failover interrupts ends, and what it gives back is gone.
#[tokio::test]
async fn close_ends_during_a_failover() {
    let mut servers = TestSentinel::start().await.unwrap();
    let (group, watcher) = (connect(&servers).await, connect(&servers).await);
    let seen = Recorder::new(&watcher);
    for number in 0..20 {
        group.join(format!("m{number}")).await.unwrap();
    }
    seen.wait_until("all members", |record| record.members.len() == 20).await;
    let patient = group.timeout(PATIENCE / 2);
    let (closed, killed) = tokio::join!(timeout(PATIENCE, patient.close()), servers.kill_primary());
    killed.unwrap();
    // Whether it was told in time or not, nobody stays.
    drop(closed.expect("it ends"));
    seen.wait_for_names(&[]).await;
}

/// Servers and sentinels want passwords of their own, and none appears anywhere.
#[tokio::test]
async fn sentinels_with_passwords_are_asked_and_followed() {
    let (password, sentinels) = ("of servers: p@/?", "of-sentinels,#");
    let mut servers = TestSentinel::start_with_passwords(password, sentinels).await.unwrap();
    let group = connect(&servers).await;
    let me = group.join("a").await.unwrap();
    replicated(&servers.nodes()[0], 2).await;
    servers.kill_primary().await.unwrap();
    timeout(PATIENCE, group.join("b")).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, me.held()).await.unwrap().is_some());

    let without = servers.url().split_once('?').unwrap().0;
    let error = GroupConnector::builder(without).connect().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Denied, false), "{error}");
    let wrong = servers.url().replacen("redis+sentinel://:", "redis+sentinel://:wrong", 1);
    let error = GroupConnector::builder(&wrong).connect().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Denied, false), "{error}");
    let shown = format!("{error:?} {group:?} {:?}", group.status());
    assert!(!shown.contains("of servers") && !shown.contains("of-sentinels"), "{shown}");
}
