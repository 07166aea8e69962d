//! Back to full strength: all servers are there and in step, and everybody agrees on who is the primary.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::Value;
use tokio::time::sleep;

use crate::servers::Servers;
use crate::stage::{PREFIX, Stage};
use crate::topology::Topology;

const LIMIT: Duration = Duration::from_secs(40);
/// How long who was replaced may wait to be told so by the sentinels.
const UNTOLD: Duration = Duration::from_secs(3);

/// Waits until it is so.
pub(super) async fn wait(stage: &Stage) -> bool {
    let begun = Instant::now();
    loop {
        let missing = match stage.topology {
            Topology::Standalone => return true,
            Topology::Sentinel => sentinel(stage, begun.elapsed() > UNTOLD).await,
            Topology::Cluster => cluster(stage).await,
        };
        match missing {
            None => return true,
            Some(what) if begun.elapsed() > LIMIT => {
                eprintln!("the servers are not what they were: {what}");
                return false;
            }
            Some(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What is missing yet.
async fn sentinel(stage: &Stage, helps: bool) -> Option<String> {
    let primary = stage.redis().port().to_string();
    for port in stage.servers.sentinels() {
        let words = ["SENTINEL", "MASTER", "mymaster"];
        let master: HashMap<String, String> = Servers::ask_sentinel(port, &words).await.unwrap_or_default();
        let is = |field: &str, value: &str| master.get(field).is_some_and(|found| found == value);
        let known = is("num-slaves", "2") && is("num-other-sentinels", "2") && is("port", &primary);
        if !(known && is("flags", "master")) {
            let said = ["flags", "port", "num-slaves", "num-other-sentinels"].map(|field| master.get(field));
            return Some(format!("a sentinel says {said:?} of the primary"));
        }
        let words = ["SENTINEL", "REPLICAS", "mymaster"];
        let replicas: Vec<HashMap<String, String>> = Servers::ask_sentinel(port, &words).await.unwrap_or_default();
        let fits = |replica: &HashMap<String, String>| {
            let is = |field: &str, value: &str| replica.get(field).is_some_and(|found| found == value);
            is("flags", "slave") && is("master-link-status", "ok") && is("master-port", &primary)
        };
        if !replicas.iter().all(fits) && !helps {
            return Some("a sentinel does not see all replicas follow".to_owned());
        }
    }
    for node in (0..stage.servers.nodes().len()).filter(|node| *node != stage.current()) {
        let role: Vec<Value> = stage.servers.ask(node, &["ROLE"]).await.unwrap_or_default();
        let follows = format!("{role:?}").contains(&primary);
        if !follows {
            if helps {
                demote(stage, node, &primary).await;
            }
            return Some(format!("a server says {role:?}"));
        }
    }
    in_step(stage, 2).await
}

/// As a sentinel does it.
async fn demote(stage: &Stage, node: usize, primary: &str) {
    let _ = stage.servers.ask::<Value>(node, &["REPLICAOF", "127.0.0.1", primary]).await;
    for kind in ["normal", "pubsub"] {
        let _ = stage.servers.ask::<Value>(node, &["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
    }
}

async fn in_step(stage: &Stage, replicas: usize) -> Option<String> {
    let info: String = stage.ask(&["INFO", "replication"]).await.unwrap_or_default();
    let online = info.lines().filter(|line| line.contains("state=online")).count();
    (online < replicas).then(|| format!("{online} replicas follow {}", stage.redis().port()))
}

async fn cluster(stage: &Stage) -> Option<String> {
    let current = format!(":{}@", stage.redis().port());
    let slot: u64 = stage.ask(&["CLUSTER", "KEYSLOT", PREFIX]).await.unwrap_or_default();
    for node in 0..stage.servers.nodes().len() {
        let info: String = stage.servers.ask(node, &["CLUSTER", "INFO"]).await.unwrap_or_default();
        if !(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6")) {
            return Some(format!("node {node} says {:?}", info.lines().take(6).collect::<Vec<_>>()));
        }
        let text: String = stage.servers.ask(node, &["CLUSTER", "NODES"]).await.unwrap_or_default();
        let owns = |line: &&str| line.split(' ').skip(8).any(|word| covers(word, slot));
        let owner = text.lines().find(owns).unwrap_or_default();
        if text.contains("fail") || !owner.contains(&current) {
            return Some(format!("node {node} names {owner}, and who has failed is in {text}"));
        }
        let replication: String = stage.servers.ask(node, &["INFO", "replication"]).await.unwrap_or_default();
        if replication.contains("role:slave") && !replication.contains("master_link_status:up") {
            return Some(format!("node {node} does not follow"));
        }
    }
    in_step(stage, 1).await
}

fn covers(word: &str, slot: u64) -> bool {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let bounds = (first.parse::<u64>(), last.parse::<u64>());
    matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
}
