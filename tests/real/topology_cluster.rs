//! A group in a Redis Cluster: one node serves it, and the connector goes where that node is.

use std::time::Duration;

use group_redis::testing::TestCluster;
use group_redis::{GroupConnector, State};
use tokio::time::timeout;

use super::support::{PATIENCE, Recorder, eventually, replicated};

/// The hash tag of the group.
const KEY: &str = "{g}";

async fn connect(url: &str) -> GroupConnector {
    GroupConnector::builder(url).group("g").connect().await.unwrap()
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
        let name = format!("b{round}");
        let other = timeout(PATIENCE, group.join(name.as_str())).await.unwrap().unwrap();
        seen.wait_for_names(&["a", &name]).await;
        other.leave().await.unwrap();
        seen.wait_for_names(&["a"]).await;
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
