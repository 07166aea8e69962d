//! A group in a Redis Cluster: one node serves it, and the connector goes where that node is.

use std::time::Duration;

use group_redis::testing::{TestCluster, TestRedisError};
use group_redis::{GroupConnector, State};
use tokio::time::timeout;

use super::support::{PATIENCE, Recorder, calls, eventually, not_shown, replicated};

/// The hash tag of the group.
const KEY: &str = "{g}";

async fn connect(url: &str) -> GroupConnector {
    GroupConnector::builder(url).group("g").connect().await.unwrap()
}

/// Somebody joins and leaves beside `a`, and the watcher is told of both.
async fn come_and_go(group: &GroupConnector, name: &str, seen: &Recorder) {
    let other = timeout(PATIENCE, group.join(name)).await.unwrap().unwrap();
    seen.wait_for_names(&["a", name]).await;
    other.leave().await.unwrap();
    seen.wait_for_names(&["a"]).await;
}

/// A plain URL of any node is enough, a replica's too.
#[tokio::test]
async fn any_node_leads_to_the_owner() {
    let cluster = TestCluster::start().await.unwrap();
    let first = connect(cluster.url()).await;
    let seen = Recorder::new(&first);
    let mut groups = Vec::new();
    for (number, node) in cluster.nodes().iter().enumerate() {
        let group = connect(node.url()).await;
        group.join(format!("m{number}")).await.unwrap();
        group.lock("l").acquire().await.unwrap().release().await;
        groups.push(group);
    }
    seen.wait_for_names(&["m0", "m1", "m2", "m3", "m4", "m5"]).await;
}

/// As Redis Software does, and a user without the right: no node says its name.
#[tokio::test]
async fn nodes_without_a_name_are_told_apart() {
    let cluster = TestCluster::start().await.unwrap();
    for node in cluster.nodes() {
        let mut rights = redis::cmd("ACL");
        rights.arg("SETUSER").arg(&["app", "on", ">secret", "~*", "&*", "+@all"]);
        rights.arg(&["-cluster", "+cluster|slots", "+cluster|keyslot"]);
        rights.exec_async(&mut node.connection().await.unwrap()).await.unwrap();
    }
    let url = cluster.url().replacen("://", "://app:secret@", 1);
    let (group, watcher) = (connect(&url).await, connect(&url).await);
    let seen = Recorder::new(&watcher);
    group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let owner = cluster.owner(KEY).await.unwrap();
    cluster.move_slot(KEY, (owner + 1) % 3).await.unwrap();
    come_and_go(&group, "b", &seen).await;
}

#[tokio::test]
async fn slot_that_moves_costs_no_lock_and_no_member() {
    let cluster = TestCluster::start().await.unwrap();
    let (group, watcher) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let guard = group.lock("l").acquire().await.unwrap();
    let (incarnation, token) = (me.incarnation(), guard.token());
    for round in 0..6 {
        let owner = cluster.owner(KEY).await.unwrap();
        cluster.move_slot(KEY, (owner + 1) % 3).await.unwrap();
        come_and_go(&group, &format!("b{round}"), &seen).await;
    }
    assert!(timeout(PATIENCE, guard.held()).await.unwrap());
    assert_eq!((timeout(PATIENCE, me.held()).await.unwrap(), guard.token()), (incarnation, token));
    assert_eq!(seen.read(|record| record.left("a")), None, "{}", seen.history());
    assert!(guard.release().await);
}

/// The node that gave the slot away says nothing of the keys that went.
#[tokio::test]
async fn slot_that_moves_in_one_piece_costs_no_lock_and_no_member() {
    let cluster = TestCluster::start().await.unwrap();
    let (group, watcher) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let (incarnation, token) = (me.incarnation(), guard.token());
    for round in 0..6 {
        let owner = cluster.owner(KEY).await.unwrap();
        match cluster.move_slot_atomically(KEY, (owner + 1) % 3).await {
            Err(error @ TestRedisError::Lacking(_)) => {
                assert_eq!(cluster.owner(KEY).await.unwrap(), owner, "nothing was done");
                not_shown(&error);
                break;
            }
            moved => moved.unwrap(),
        }
        assert_eq!(cluster.owner(KEY).await.unwrap(), (owner + 1) % 3);
        come_and_go(&group, &format!("b{round}"), &seen).await;
    }
    assert!(timeout(PATIENCE, guard.held()).await.unwrap());
    assert_eq!((timeout(PATIENCE, me.held()).await.unwrap(), guard.token()), (incarnation, token));
    assert_eq!(seen.read(|record| record.left("a")), None, "{}", seen.history());
    assert!(guard.release().await);
}

#[tokio::test]
async fn failover_of_the_owner_is_followed() {
    let cluster = TestCluster::start().await.unwrap();
    let (group, watcher) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    cluster.failover(KEY).await.unwrap();
    timeout(PATIENCE, group.join("b")).await.unwrap().unwrap();
    seen.wait_for_names(&["a", "b"]).await;

    let owner = cluster.owner(KEY).await.unwrap();
    replicated(&cluster.nodes()[owner], 1).await;
    cluster.kill_owner(KEY).await.unwrap();
    assert!(timeout(PATIENCE, me.held()).await.unwrap().is_some());
    eventually("the watcher is back", async || watcher.state().get() == State::Connected).await;
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
}

#[tokio::test]
async fn killed_owner_costs_nothing_that_its_replica_knew() {
    let cluster = TestCluster::start().await.unwrap();
    let (group, watcher) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let (incarnation, token) = (me.incarnation(), guard.token());
    let owner = cluster.owner(KEY).await.unwrap();
    replicated(&cluster.nodes()[owner], 1).await;
    cluster.kill_owner(KEY).await.unwrap();
    assert!(timeout(PATIENCE, guard.held()).await.unwrap(), "it lives on the replica");
    assert_eq!((timeout(PATIENCE, me.held()).await.unwrap(), guard.token()), (incarnation, token));
    assert!(guard.release().await);
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
}

/// A watcher that asks nothing, while nothing happens: it goes where the slot has gone, and hears what happens there.
#[tokio::test]
async fn idle_watcher_finds_the_slot_again() {
    let cluster = TestCluster::start().await.unwrap();
    let watcher = GroupConnector::builder(cluster.url()).group("g").ttl(Duration::from_secs(60));
    // With presence it would look after the probers all the time.
    let watcher = watcher.heartbeat(Duration::from_secs(1)).without_presence().connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    let owner = cluster.owner(KEY).await.unwrap();
    cluster.move_slot(KEY, (owner + 1) % 3).await.unwrap();
    eventually("it has moved", async || watcher.status().reconnects > 0).await;
    let group = connect(cluster.url()).await;
    group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
}

/// A watcher that does not even ping: the end of its channel tells it that the slot has moved.
#[tokio::test]
async fn watcher_is_told_that_the_slot_has_moved() {
    let cluster = TestCluster::start().await.unwrap();
    if !has_shard_channels(&cluster).await {
        return;
    }
    let (ttl, heartbeat) = (Duration::from_secs(3600), Duration::from_secs(1000));
    let builder = GroupConnector::builder(cluster.url()).group("g").ttl(ttl).heartbeat(heartbeat);
    let watcher = builder.without_presence().connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    let group = connect(cluster.url()).await;
    for round in 0..6 {
        let owner = cluster.owner(KEY).await.unwrap();
        cluster.move_slot(KEY, (owner + 1) % 3).await.unwrap();
        let name = format!("m{round}");
        let member = group.join(&name).await.unwrap();
        seen.wait_for_names(&[&name]).await;
        member.leave().await.unwrap();
        seen.wait_for_names(&[]).await;
    }
}

/// News, grants, broken locks and presence: no message of a group goes to the nodes that do not serve it.
#[tokio::test]
async fn no_message_crosses_the_bus() {
    let cluster = TestCluster::start().await.unwrap();
    if !has_shard_channels(&cluster).await {
        return;
    }
    let (first, second) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let seen = Recorder::new(&second);
    first.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let owner = cluster.owner(KEY).await.unwrap();
    let mut server = cluster.nodes()[owner].connection().await.unwrap();
    assert_eq!(calls(&mut server, "spublish").await, 1, "the news of the join came by the shard");
    for round in 1..=3 {
        let guard = first.lock("l").acquire().await.unwrap();
        let (lock, waiting) = (second.lock("l"), second.lock("l"));
        let waiter = tokio::spawn(async move { waiting.acquire().await });
        eventually("it waits", async || lock.waiters().await.unwrap().len() == 1).await;
        guard.release().await;
        let granted = timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap();
        granted.release().await;
        assert_eq!(calls(&mut server, "spublish").await, 1 + round, "the grant came by the shard");
    }
    let asked = async || calls(&mut server, "pubsub|shardnumsub").await > 0;
    eventually("presence is asked for in the shard", asked).await;
    for node in cluster.nodes() {
        let mut connection = node.connection().await.unwrap();
        assert_eq!(calls(&mut connection, "publish").await, 0);
        let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await.unwrap();
        assert!(!info.contains("messages_publish_"), "{info}");
    }
}

/// Redis 6.2 has none: messages cross the bus there, and an idle watcher learns of a move by its ping.
async fn has_shard_channels(cluster: &TestCluster) -> bool {
    let mut connection = cluster.nodes()[0].connection().await.unwrap();
    let known: redis::RedisResult<Vec<redis::Value>> =
        redis::cmd("PUBSUB").arg("SHARDNUMSUB").query_async(&mut connection).await;
    if let Err(error) = &known {
        not_shown(error);
    }
    known.is_ok()
}

/// A fourth primary takes all slots of a hundred groups that are in use, and gives them back.
#[tokio::test(flavor = "multi_thread")]
async fn cluster_that_grows_and_shrinks_costs_nobody_anything() {
    const GROUPS: usize = 100;
    let cluster = TestCluster::start().await.unwrap();
    let fourth = 3;
    let ask = async |node: usize, words: &[&str]| {
        let mut connection = cluster.nodes()[node].connection().await.unwrap();
        redis::cmd("CLUSTER").arg(words).query_async::<redis::Value>(&mut connection).await
    };
    ask(fourth, &["RESET", "SOFT"]).await.unwrap();
    let port = cluster.nodes()[fourth].port().to_string();
    ask(0, &["MEET", "127.0.0.1", &port]).await.unwrap();
    let id: String = {
        let mut connection = cluster.nodes()[fourth].connection().await.unwrap();
        redis::cmd("CLUSTER").arg("MYID").query_async(&mut connection).await.unwrap()
    };
    let is_known = async || {
        let mut all = true;
        for node in [0, 1, 2, fourth] {
            let mut connection = cluster.nodes()[node].connection().await.unwrap();
            let nodes: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await.unwrap();
            let line = nodes.lines().find(|line| line.starts_with(&id)).unwrap_or_default();
            let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await.unwrap();
            all &= line.contains("master") && line.ends_with("connected") && nodes.lines().count() == 6;
            all &= info.contains("cluster_state:ok");
        }
        all
    };
    eventually("the fourth primary is known", is_known).await;

    let mut held = Vec::new();
    for number in 0..GROUPS {
        let group = GroupConnector::builder(cluster.url()).group(format!("g{number}")).connect().await.unwrap();
        let seen = Recorder::new(&group);
        let me = group.join("a").await.unwrap();
        let guard = group.lock("held").acquire().await.unwrap();
        let incarnation = me.incarnation();
        held.push((group, seen, me, incarnation, guard));
    }
    let groups: Vec<_> = held.iter().map(|(group, ..)| group.clone()).collect();
    let load: Vec<_> = (0..4)
        .map(|part| {
            let groups: Vec<_> = groups.iter().skip(part).step_by(4).cloned().collect();
            tokio::spawn(async move {
                for group in groups.iter().cycle() {
                    if let Ok(guard) = group.lock("used").acquire().await {
                        guard.release().await;
                    }
                }
            })
        })
        .collect();
    for to in [fourth, 0] {
        for number in 0..GROUPS {
            cluster.move_slot(&format!("{{g{number}}}"), to).await.unwrap();
        }
    }
    load.iter().for_each(tokio::task::JoinHandle::abort);
    for (number, (group, seen, me, incarnation, guard)) in held.iter().enumerate() {
        assert!(timeout(PATIENCE, guard.held()).await.unwrap(), "the lock of g{number}");
        assert_eq!(timeout(PATIENCE, me.held()).await.unwrap(), *incarnation, "the member of g{number}");
        assert_eq!(seen.read(|record| record.leaves), 0, "g{number}: {}", seen.history());
        timeout(PATIENCE, group.join("b")).await.unwrap().unwrap();
    }
}

/// The queue of a lock has moved already, the lock has not: it is not released half-way.
#[tokio::test]
async fn lock_is_not_released_half_way_while_its_slot_moves() {
    let cluster = TestCluster::start().await.unwrap();
    let (group, other) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let guard = group.lock("l").acquire().await.unwrap();
    let (lock, waiting) = (other.lock("l"), other.lock("l"));
    let waiter = tokio::spawn(async move { waiting.acquire().await });
    eventually("it waits", async || lock.waiters().await.unwrap().len() == 1).await;

    let from = cluster.owner(KEY).await.unwrap();
    let to = (from + 1) % 3;
    let mut source = cluster.nodes()[from].connection().await.unwrap();
    let mut target = cluster.nodes()[to].connection().await.unwrap();
    let slot: u16 = redis::cmd("CLUSTER").arg(&["KEYSLOT", KEY]).query_async(&mut source).await.unwrap();
    let name = async |connection: &mut redis::aio::MultiplexedConnection| -> String {
        redis::cmd("CLUSTER").arg("MYID").query_async(connection).await.unwrap()
    };
    let (source_id, target_id) = (name(&mut source).await, name(&mut target).await);
    let port = cluster.nodes()[to].port();
    let importing = redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("IMPORTING").arg(&source_id).clone();
    importing.exec_async(&mut target).await.unwrap();
    let migrating = redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("MIGRATING").arg(&target_id).clone();
    migrating.exec_async(&mut source).await.unwrap();
    let mut migrate = redis::cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(port).arg("").arg(0).arg(5000).arg("KEYS").arg("{g}/queues/l");
    migrate.exec_async(&mut source).await.unwrap();
    // What `release` sends, as often as it likes.
    let releasing = tokio::spawn(guard.release());
    let refused = async |connection: &mut redis::aio::MultiplexedConnection| -> usize {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await.unwrap();
        let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default().to_owned();
        let count = |field: &str| -> usize {
            line.split([':', ','])
                .find_map(|word| word.strip_prefix(field)?.strip_prefix('=')?.parse().ok())
                .unwrap_or(0)
        };
        count("rejected_calls") + count("failed_calls")
    };
    let before = refused(&mut source).await;
    eventually("calls are refused", async || refused(&mut source).await > before + 3).await;
    // Without it the node would send whoever asks to the other one.
    let lock: redis::RedisResult<bool> = redis::cmd("EXISTS").arg("{g}/locks/l").query_async(&mut source).await;
    assert_eq!(lock.ok(), Some(true), "it is released with its queue or not at all");
    cluster.move_slot(KEY, to).await.unwrap();
    timeout(PATIENCE, releasing).await.unwrap().unwrap();
    let granted = timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap();
    granted.release().await;
}
