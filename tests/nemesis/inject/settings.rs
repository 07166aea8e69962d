//! Settings of the server that its operator may change under its clients. Each is set back whatever came of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::Value;
use rustix::process::Signal;
use tokio::time::sleep;

use super::probe::{comes_true, first_answer, info};
use super::{SHORT, WHILE};
use crate::stage::{Stage, Worker};
use crate::topology::Topology;

/// How long a source of hints that was broken may take to be found out and mended.
const MENDED: Duration = Duration::from_secs(6);
/// Long enough that who waits for an inbox message that does not come would starve.
const STARVED: Duration = Duration::from_secs(11);

async fn set(stage: &Stage, name: &str, value: &str) -> bool {
    stage.ask::<Value>(&["CONFIG", "SET", name, value]).await.is_ok()
}

/// Connections by their ids at the server.
async fn connections(stage: &Stage, kind: &str) -> BTreeSet<String> {
    let list: String = stage.ask(&["CLIENT", "LIST", "TYPE", kind]).await.unwrap_or_default();
    list.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// A flood of foreign events, and a limit that nobody who hears them can keep.
pub(super) async fn output_buffer(stage: &Stage) -> bool {
    let limited = set(stage, "client-output-buffer-limit", "pubsub 1024 1024 0").await;
    let before = connections(stage, "pubsub").await;
    let words = Words::of(stage).await;
    let flood = format!("for i = 1, 3000 do redis.call('{}', KEYS[1], string.rep('x', 1000)) end", words.publish);
    let channels: Vec<String> = stage.ask(&["PUBSUB", words.channels, "*inbox*"]).await.unwrap_or_default();
    for channel in &channels {
        let _ = stage.ask::<Value>(&["EVAL", &flood, "1", channel]).await;
    }
    sleep(Duration::from_millis(500)).await;
    let ended = !before.is_subset(&connections(stage, "pubsub").await);
    let healed = stage.heal(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"]).await;
    healed && limited && ended
}

/// The server closes what is silent. Only who is frozen is: the others ask more often.
pub(super) async fn idle_timeout(stage: &Stage, on: &Worker) -> bool {
    let limited = set(stage, "timeout", "1").await;
    let stopped = stage.signal(on, Signal::STOP);
    let before = connections(stage, "normal").await;
    sleep(WHILE).await;
    let closed = !before.is_subset(&connections(stage, "normal").await);
    let healed = stage.heal(&["CONFIG", "SET", "timeout", "0"]).await;
    stage.signal(on, Signal::CONT) && healed && limited && stopped && closed
}

pub(super) async fn maxclients(stage: &Stage) -> bool {
    let before = info(stage, "stats", "rejected_connections").await;
    let list: String = stage.ask(&["CLIENT", "LIST"]).await.unwrap_or_default();
    let most = (list.lines().count().saturating_sub(2)).max(2).to_string();
    let limited = set(stage, "maxclients", &most).await;
    let killed: u64 = stage.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await.unwrap_or_default();
    sleep(Duration::from_millis(1200)).await;
    let rejected = info(stage, "stats", "rejected_connections").await > before;
    stage.heal(&["CONFIG", "SET", "maxclients", "10000"]).await && limited && killed > 0 && rejected
}

pub(super) async fn password(stage: &Stage) -> bool {
    let changed = set(stage, "requirepass", "another").await;
    let killed: u64 = stage.ask(&["CLIENT", "KILL", "SKIPME", "yes"]).await.unwrap_or_default();
    let refused = first_answer(stage, "PING").await.is_some_and(|answer| answer.starts_with("-NOAUTH"));
    sleep(Duration::from_millis(1200)).await;
    stage.heal(&["CONFIG", "SET", "requirepass", ""]).await && changed && killed > 0 && refused
}

async fn flags_now(stage: &Stage) -> Option<BTreeSet<char>> {
    let found: (String, String) = stage.ask(&["CONFIG", "GET", "notify-keyspace-events"]).await.ok()?;
    Some(found.1.chars().collect())
}

/// Other notification flags, until the library has set them right.
pub(super) async fn flags(stage: &Stage, flags: &str) -> bool {
    let limited = set(stage, "notify-keyspace-events", flags).await;
    let wrong = flags_now(stage).await == Some(flags.chars().collect());
    let is_right = async || {
        let now = flags_now(stage).await.unwrap_or_default();
        now.contains(&'K') && (now.contains(&'A') || ['$', 'g', 'x'].iter().all(|flag| now.contains(flag)))
    };
    let (begun, mended) = (Instant::now(), comes_true(MENDED, is_right).await);
    sleep(WHILE.saturating_sub(begun.elapsed())).await;
    limited && wrong && mended
}

async fn refused_messages(stage: &Stage, publish: &str) -> u64 {
    let info: String = stage.ask(&["INFO", "commandstats"]).await.unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{publish}:")));
    let count = line.and_then(|line| line.split(',').find_map(|part| part.strip_prefix("rejected_calls=")));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

pub(super) async fn grants_lost(stage: &Stage) -> bool {
    let publish = Words::of(stage).await.publish.to_lowercase();
    let before = refused_messages(stage, &publish).await;
    let without = stage.ask::<Value>(&["ACL", "SETUSER", "default", &format!("-{publish}")]).await.is_ok();
    sleep(STARVED).await;
    let refused = refused_messages(stage, &publish).await > before;
    stage.heal(&["ACL", "SETUSER", "default", &format!("+{publish}")]).await && without && refused
}

/// By what commands messages go to the inboxes.
struct Words {
    publish: &'static str,
    channels: &'static str,
}

impl Words {
    /// In a cluster, by those of the shard; Redis 6.2 has none.
    async fn of(stage: &Stage) -> Self {
        let has_shards = stage.ask::<Value>(&["PUBSUB", "SHARDCHANNELS"]).await.is_ok();
        if stage.topology == Topology::Cluster && has_shards {
            Self { publish: "SPUBLISH", channels: "SHARDCHANNELS" }
        } else {
            Self { publish: "PUBLISH", channels: "CHANNELS" }
        }
    }
}

/// No more memory than is used now, and nothing may go for it.
pub(super) async fn out_of_memory(stage: &Stage) -> bool {
    let limited = set(stage, "maxmemory-policy", "noeviction").await && set(stage, "maxmemory", "1mb").await;
    let refused = stage.ask::<Value>(&["SET", "{nemesis}:filler", "x"]).await;
    sleep(SHORT).await;
    let healed = stage.heal(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let _ = stage.ask::<Value>(&["DEL", "{nemesis}:filler"]).await;
    healed && limited && refused.is_err_and(|error| error.to_string().contains("OOM"))
}

/// A little less memory than is used, until something has gone for it.
pub(super) async fn evict(stage: &Stage, policy: &str) -> bool {
    let before = info(stage, "stats", "evicted_keys").await;
    let used = info(stage, "memory", "used_memory").await.unwrap_or_default();
    let limited = set(stage, "maxmemory-policy", policy).await
        && set(stage, "maxmemory", &used.saturating_sub(4096).to_string()).await;
    let evicted = comes_true(WHILE, async || info(stage, "stats", "evicted_keys").await > before).await;
    let healed = stage.heal(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let _ = set(stage, "maxmemory-policy", "noeviction").await;
    healed && limited && evicted
}
