//! What happens to a cluster: to the node that serves the group, and to the slot that the group is in.

use std::time::{Duration, Instant};

use redis::Value;
use tokio::time::sleep;

use super::WHILE;
use super::failover::{ELECTION, replaced};
use super::probe::comes_true;
use crate::chance::Chance;
use crate::stage::{PREFIX, Stage};

/// How soon it is seen that a slot has moved.
const SETTLED: Duration = Duration::from_millis(500);
/// How many slots change hands by one pipeline.
const AT_ONCE: usize = 1000;

async fn ask<T: redis::FromRedisValue>(stage: &Stage, node: usize, words: &[&str]) -> Option<T> {
    stage.servers.ask(node, &[&["CLUSTER"], words].concat()).await.ok()
}

async fn id(stage: &Stage, node: usize) -> String {
    ask(stage, node, &["MYID"]).await.unwrap_or_default()
}

/// A replica of the node that serves the group.
async fn replica(stage: &Stage) -> Option<usize> {
    let (current, mut found) = (stage.current(), None);
    let known = async || {
        let lines: Vec<String> =
            ask(stage, current, &["REPLICAS", &id(stage, current).await]).await.unwrap_or_default();
        let is_it = |port: u16| lines.iter().any(|line| line.contains(&format!(":{port}@")));
        found = stage.servers.nodes().iter().position(|node| is_it(node.port()));
        found.is_some()
    };
    comes_true(WHILE, known).await;
    found
}

/// The replica and the primary agree on the moment: nothing is forgotten.
pub(super) async fn in_step(stage: &Stage) -> bool {
    let before = stage.current();
    stage.servers.cluster().failover(PREFIX).await.is_ok() && replaced(stage, before).await
}

/// The replica does not ask the primary.
pub(super) async fn takes_over(stage: &Stage, how: &str) -> bool {
    let before = stage.current();
    let Some(replica) = replica(stage).await else { return false };
    ask::<Value>(stage, replica, &["FAILOVER", how]).await.is_some() && replaced(stage, before).await
}

/// Another primary, by chance.
async fn other_primary(stage: &Stage, chance: &mut Chance) -> Option<usize> {
    let mut primaries = Vec::new();
    for node in (0..stage.servers.nodes().len()).filter(|node| *node != stage.current()) {
        let role: Vec<Value> = stage.servers.ask(node, &["ROLE"]).await.unwrap_or_default();
        if role.first() == Some(&Value::BulkString(b"master".to_vec())) {
            primaries.push(node);
        }
    }
    primaries.get(usize::try_from(chance.from(0, primaries.len() as u64)).unwrap_or_default()).copied()
}

async fn move_slot(stage: &Stage, to: usize) -> bool {
    // A node that has just been told of a slot may refuse its keys still: the rest of them is moved then.
    let moved = async || {
        let moved = stage.servers.cluster().move_slot(PREFIX, to).await;
        moved.is_ok() && comes_true(SETTLED, async || stage.current() == to).await
    };
    comes_true(ELECTION, moved).await
}

pub(super) async fn back_and_forth(stage: &Stage, chance: &mut Chance) -> bool {
    let home = stage.current();
    let Some(other) = other_primary(stage, chance).await else { return false };
    let (begun, mut moves) = (Instant::now(), 0);
    while begun.elapsed() < WHILE || stage.current() != home {
        let to = if stage.current() == home { other } else { home };
        moves += u32::from(move_slot(stage, to).await);
        // Mostly, the other nodes have heard of it by then.
        sleep(Duration::from_millis(chance.from(0, 20))).await;
        if begun.elapsed() > ELECTION {
            return false;
        }
    }
    moves > 2
}

pub(super) async fn all_moved(stage: &Stage, chance: &mut Chance) -> bool {
    let home = stage.current();
    let Some(other) = other_primary(stage, chance).await else { return false };
    let slots = slots(stage, home).await;
    let moved = move_all(stage, home, other, &slots).await;
    let is_empty = self::slots(stage, home).await.is_empty();
    sleep(Duration::from_millis(chance.from(200, 1500))).await;
    moved && is_empty && move_all(stage, other, home, &slots).await
}

/// The node gives all its slots away and is forgotten, and is joined again with all of them.
pub(super) async fn node_removed(stage: &Stage, chance: &mut Chance) -> bool {
    let home = stage.current();
    let (Some(other), Some(replica)) = (other_primary(stage, chance).await, replica(stage).await) else {
        return false;
    };
    let (own, others) = (id(stage, home).await, id(stage, other).await);
    let slots = slots(stage, home).await;
    let moved = move_all(stage, home, other, &slots).await;
    let replicates = |of: String| async move {
        comes_true(ELECTION, async || ask::<Value>(stage, replica, &["REPLICATE", &of]).await.is_some()).await
    };
    let followed = replicates(others).await;
    let remaining: Vec<usize> = (0..stage.servers.nodes().len()).filter(|node| *node != home).collect();
    // It is heard of again from whoever has not forgotten it yet, so this is said until all have.
    let forgotten = async || {
        let mut all = true;
        for node in &remaining {
            let _ = ask::<Value>(stage, *node, &["FORGET", &own]).await;
            all &= !ask::<String>(stage, *node, &["NODES"]).await.unwrap_or(own.clone()).contains(&own);
        }
        all
    };
    let removed = comes_true(ELECTION, forgotten).await;
    let reset = ask::<Value>(stage, home, &["RESET", "SOFT"]).await.is_some();
    sleep(Duration::from_millis(chance.from(200, 1500))).await;
    let port = stage.servers.nodes()[home].port().to_string();
    for node in &remaining {
        let _ = ask::<Value>(stage, *node, &["MEET", "127.0.0.1", &port]).await;
    }
    let joined = async || {
        let info: String = ask(stage, home, &["INFO"]).await.unwrap_or_default();
        info.contains("cluster_known_nodes:6") && info.contains("cluster_state:ok")
    };
    let joined = comes_true(ELECTION, joined).await;
    let back = replicates(own.clone()).await && move_all(stage, other, home, &slots).await;
    moved && followed && removed && reset && joined && back
}

/// The slots of this node, by its own words.
async fn slots(stage: &Stage, node: usize) -> Vec<u16> {
    let text: String = ask(stage, node, &["NODES"]).await.unwrap_or_default();
    let own = text.lines().find(|line| line.contains("myself")).unwrap_or_default();
    let range = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    own.split(' ').skip(8).filter_map(range).flatten().collect()
}

/// The group's slot, key by key, which makes the other node's word the latest, and then the empty ones.
async fn move_all(stage: &Stage, from: usize, to: usize, slots: &[u16]) -> bool {
    let moved = move_slot(stage, to).await;
    let id = id(stage, to).await;
    for chunk in slots.chunks(AT_ONCE) {
        for node in [to, from] {
            let Ok(mut connection) = stage.servers.connection(node).await else { return false };
            let mut pipe = redis::pipe();
            for slot in chunk {
                pipe.cmd("CLUSTER").arg("SETSLOT").arg(*slot).arg("NODE").arg(&id).ignore();
            }
            if let Err(error) = pipe.query_async::<()>(&mut connection).await {
                eprintln!("the slots did not move: {error}");
                return false;
            }
        }
    }
    moved
}
