//! Several servers that find each other, on whichever backend `GROUP_REDIS_TEST_BACKEND` names.

use std::time::Instant;

use group_redis::GroupConnector;
use group_redis::testing::{TestCluster, TestRedis, TestSentinel};

use super::support::{eventually, listens};

const KEY: &str = "{g}";

/// What runs them is what was asked for.
fn are_as_asked(nodes: &[TestRedis], begun: Instant) {
    eprintln!("up after {:?}", begun.elapsed());
    for node in nodes {
        assert_eq!(node.backend(), nodes[0].backend());
        if let Ok(asked) = std::env::var("GROUP_REDIS_TEST_BACKEND") {
            assert!(asked == "url" || node.backend().to_string() == asked, "{} for {asked}", node.backend());
        }
    }
}

/// The ports that the URL names.
fn ports(url: &str) -> Vec<u16> {
    let (_, hosts) = url.split_once("://").expect("a scheme");
    let (hosts, _) = hosts.split_once('/').expect("an end of the hosts");
    let port = |host: &str| host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    hosts.split(',').map(|host| port(host).unwrap_or_else(|| panic!("no port in {host}"))).collect()
}

async fn are_gone(ports: Vec<u16>) {
    for port in ports {
        eventually("the port is closed", || !listens(port)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_comes_up_and_leaves_nothing() {
    let begun = Instant::now();
    let cluster = TestCluster::start().await.expect("a cluster");
    are_as_asked(cluster.nodes(), begun);
    let group = GroupConnector::builder(cluster.url()).group("g").connect().await.expect("a connector");
    let me = group.join("me").await.expect("a join");
    let owner = cluster.owner(KEY).await.expect("an owner");
    let to = (owner + 1) % 3;
    cluster.move_slot(KEY, to).await.expect("a move");
    assert_eq!(cluster.owner(KEY).await.expect("an owner"), to);
    let promoted = cluster.failover(KEY).await.expect("a failover");
    assert_eq!((promoted, cluster.owner(KEY).await.expect("an owner")), (to + 3, to + 3));
    // A primary that is gone comes back as the replica of the one that took its place.
    let replica = cluster.kill_owner(KEY).await.expect("another owner");
    assert_eq!(replica, to);
    me.held().await.expect("the member is still there");
    let ports = ports(cluster.url());
    assert_eq!(ports.len(), cluster.nodes().len());
    drop(cluster);
    are_gone(ports).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_come_up_and_leave_nothing() {
    let begun = Instant::now();
    let mut servers = TestSentinel::start().await.expect("sentinels");
    are_as_asked(servers.nodes(), begun);
    assert_eq!(servers.primary().await.expect("a primary"), 0);
    let group = GroupConnector::builder(servers.url()).group("g").connect().await.expect("a connector");
    group.join("me").await.expect("a join");
    let elected = servers.kill_primary().await.expect("another primary");
    assert_ne!(elected, 0);
    servers.nodes()[0].start_again().await.expect("the server before");
    let ports = ports(servers.url()).into_iter().chain(servers.nodes().iter().map(TestRedis::port)).collect();
    drop(servers);
    are_gone(ports).await;
}
