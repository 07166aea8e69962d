//! Another server takes over.

use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use super::probe::{comes_true, info};
use super::{WHILE, cluster};
use crate::chance::Chance;
use crate::history::{Was, What, now};
use crate::stage::{PREFIX, Stage};
use crate::topology::Topology;

/// How long an election may take: sentinels wait for some seconds after the one before.
pub(super) const ELECTION: Duration = Duration::from_secs(15);
/// For how long a killed node of a cluster is away: longer than an election takes there.
const AWAY: Duration = Duration::from_secs(6);
/// By how much a clock is behind.
const BEHIND_US: i64 = 500_000;

/// Whether another server is elected.
pub(super) async fn replaced(stage: &Stage, before: usize) -> bool {
    comes_true(ELECTION, async || stage.current() != before).await
}

/// Kills the primary, and starts it again once there is another.
pub(super) async fn killed(stage: &Stage) -> bool {
    let before = stage.current();
    let server = &stage.servers.nodes()[before];
    let (elected, restarted) = if stage.topology == Topology::Cluster {
        tokio::join!(replaced(stage, before), server.crash_and_restart_after(AWAY))
    } else {
        let stopped = server.stop().await;
        let elected = replaced(stage, before).await;
        (elected && stopped.is_ok(), server.start_again().await)
    };
    if let Err(error) = &restarted {
        eprintln!("the server did not come back: {error}");
        return false;
    }
    stage.servers.prepare(before).await;
    elected
}

/// The same after its replicas have been cut off from it for a while.
pub(super) async fn killed_lagging(stage: &Stage, chance: &mut Chance) -> bool {
    let before = stage.current();
    let begun = now();
    // They cannot log in any more.
    login(stage, "nobody").await;
    let _ = stage.ask::<Value>(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    let cut = comes_true(WHILE, async || info(stage, "replication", "connected_slaves").await == Some(0)).await;
    sleep(Duration::from_millis(chance.from(300, 1500))).await;
    let last = revision(stage).await;
    let (elected, ()) = tokio::join!(killed(stage), async {
        replaced(stage, before).await;
        login(stage, "").await;
    });
    let lines = stage.history.since(begun);
    let known = lines.iter().find_map(|line| match &line.what {
        What::Serves { was: Was::Replica { known, .. }, .. } => Some(*known),
        _ => None,
    });
    cut && elected && known.is_some_and(|known| known < last)
}

/// As whom replicas log in from now on.
async fn login(stage: &Stage, user: &str) {
    for node in 0..stage.servers.nodes().len() {
        for setting in ["masteruser", "masterauth"] {
            let _ = stage.servers.ask::<Value>(node, &["CONFIG", "SET", setting, user]).await;
        }
    }
}

async fn revision(stage: &Stage) -> u64 {
    let revision: String = stage.ask(&["GET", &format!("{PREFIX}revision")]).await.unwrap_or_default();
    revision.split('/').next().and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// The primary stands still until another is elected, and comes back with all its connections.
pub(super) async fn frozen(stage: &Stage, chance: &mut Chance) -> bool {
    let before = stage.current();
    let server = &stage.servers.nodes()[before];
    let frozen = server.freeze().await.is_ok();
    let elected = replaced(stage, before).await;
    sleep(Duration::from_millis(chance.from(0, 1500))).await;
    server.thaw().await.is_ok() && frozen && elected
}

/// The clock of whoever takes over is behind that of the primary before.
pub(super) async fn clock_behind(stage: &Stage) -> bool {
    let before = stage.current();
    let all = 0..stage.servers.nodes().len();
    let stepped = all.clone().filter(|node| *node != before).all(|node| stage.servers.set_clock(node, -BEHIND_US));
    let asked = match stage.topology {
        Topology::Cluster => cluster::takes_over(stage, "FORCE").await,
        _ => stage.servers.sentinel().failover().await.is_ok(),
    };
    let elected = asked && replaced(stage, before).await;
    let is_behind = stage.servers.behind(stage.current(), before) > 0;
    sleep(WHILE / 2).await;
    let healed = all.into_iter().all(|node| stage.servers.set_clock(node, 0));
    stepped && elected && is_behind && healed
}
