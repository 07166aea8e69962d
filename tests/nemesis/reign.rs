//! Who serves the group, as each server itself says, all the time.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use group_redis::testing::TestSentinel;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::time::{sleep, timeout};

use crate::history::{Was, What};
use crate::servers::Servers;
use crate::stage::{PREFIX, Stage};
use crate::topology::Topology;

/// Who serves the group now, and whom most sentinels name.
#[derive(Default)]
struct Reign {
    serving: BTreeSet<usize>,
    named: Option<usize>,
}

type Reigning = Mutex<Reign>;

fn lock(reign: &Reigning) -> MutexGuard<'_, Reign> {
    reign.lock().unwrap_or_else(PoisonError::into_inner)
}

const PAUSE: Duration = Duration::from_millis(10);
/// Who does not answer for so long serves nobody.
const SILENT: Duration = Duration::from_millis(250);

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// Whether it may still be what it was: it does not answer, has closed the connection, or waits for others.
    Away { silent: bool },
    /// With the group's revision, as far as it has come here.
    Replica(u64),
    /// Whether it serves the group: in a cluster it may have other slots.
    Primary { serves: bool },
}

/// Notes it whenever another server begins to serve the group, and follows who was elected.
pub(crate) async fn watch(stage: &Stage) {
    if stage.topology == Topology::Standalone {
        return std::future::pending().await;
    }
    let reign = Reigning::default();
    let nodes = 0..stage.servers.nodes().len();
    tokio::join!(join_all(nodes.map(|node| follow(stage, &reign, node))), ask_sentinels(stage, &reign));
}

/// Notes it whenever the sentinels name another primary.
async fn ask_sentinels(stage: &Stage, reign: &Reigning) {
    if stage.topology != Topology::Sentinel {
        return;
    }
    let ports = stage.servers.sentinels();
    let mut connections: Vec<Option<MultiplexedConnection>> = ports.iter().map(|_| None).collect();
    let (mut command, mut last) = (redis::cmd("SENTINEL"), 0);
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(TestSentinel::MASTER);
    loop {
        sleep(PAUSE * 2).await;
        let mut named = Vec::new();
        for (port, slot) in ports.iter().zip(&mut connections) {
            let mut asking = match slot.take() {
                Some(connection) => connection,
                None => match timeout(SILENT, Servers::sentinel_connection(*port)).await {
                    Ok(Ok(connection)) => connection,
                    _ => continue,
                },
            };
            if let Ok(Ok((_, server))) = timeout(SILENT, command.query_async::<(String, u16)>(&mut asking)).await {
                named.push(server);
                *slot = Some(asking);
            }
        }
        let is_most = |server: &&u16| named.iter().filter(|other| other == server).count() * 2 > ports.len();
        if let Some(server) = named.iter().find(is_most).copied().filter(|server| *server != last) {
            stage.history.note(What::Named { server });
            last = server;
            let mut reign = lock(reign);
            reign.named = stage.servers.nodes().iter().position(|node| node.port() == server);
            reign.named.filter(|node| reign.serving.contains(node)).into_iter().for_each(|node| stage.follow(node));
        }
    }
}

async fn follow(stage: &Stage, reign: &Reigning, node: usize) {
    let (mut connection, mut role, mut known) = (None, Role::Away { silent: false }, None);
    loop {
        let now = timeout(SILENT, look(stage, node, &mut connection)).await.unwrap_or(Role::Away { silent: true });
        if matches!(now, Role::Away { .. }) {
            connection = None;
        }
        change(stage, reign, node, (role, now), known);
        known = match now {
            // One that has been started anew knows nothing, and is elected by nobody.
            Role::Replica(revision) => Some(revision).filter(|revision| *revision > 0),
            // What it is when it answers again, it has become meanwhile.
            Role::Away { silent: true } => known,
            Role::Away { silent: false } | Role::Primary { .. } => None,
        };
        role = now;
        sleep(PAUSE).await;
    }
}

fn change(stage: &Stage, reign: &Reigning, node: usize, (before, now): (Role, Role), known: Option<u64>) {
    const SERVES: Role = Role::Primary { serves: true };
    let server = stage.servers.nodes()[node].port();
    if before == SERVES && now != SERVES {
        stage.history.note(What::Deposed { server });
        let mut reign = lock(reign);
        reign.serving.remove(&node);
        let other = match stage.topology {
            // The slot may have been elsewhere and back before anybody saw it.
            Topology::Cluster => reign.serving.first().copied(),
            // Sentinels may give up a promotion whose server dies before they have seen it done.
            _ => reign.named.filter(|other| stage.current() == node && reign.serving.contains(other)),
        };
        other.into_iter().for_each(|other| stage.follow(other));
    }
    if before == SERVES || now != SERVES {
        return;
    }
    let was = match (before, known) {
        (_, Some(known)) => Was::Replica { known, behind: stage.servers.behind(node, stage.current()) },
        (Role::Primary { .. }, None) => Was::Primary,
        (Role::Away { .. } | Role::Replica(_), None) => Was::Away,
    };
    stage.history.note(What::Serves { server, was: was.clone() });
    let mut reign = lock(reign);
    // Who comes back may have been replaced meanwhile.
    let is_alone = !reign.serving.contains(&stage.current()) && reign.named.is_none_or(|named| named == node);
    if was != Was::Away || is_alone {
        stage.follow(node);
    }
    reign.serving.insert(node);
}

async fn look(stage: &Stage, node: usize, connection: &mut Option<MultiplexedConnection>) -> Role {
    if connection.is_none() {
        let Ok(mut new) = stage.servers.connection(node).await else { return Role::Away { silent: false } };
        // Who is busy with a script refuses this, and would, once it is a replica, name its primary ever after.
        if stage.servers.is_cluster() && redis::cmd("READONLY").query_async::<Value>(&mut new).await.is_err() {
            return Role::Away { silent: true };
        }
        *connection = Some(new);
    }
    let Some(asking) = connection else { return Role::Away { silent: false } };
    let (mut get, mut role) = (redis::cmd("GET"), redis::cmd("ROLE"));
    get.arg(format!("{PREFIX}revision"));
    role.arg(&[] as &[&str]);
    let mut other = asking.clone();
    // In this order: who is a replica after the answer was one before.
    let (revision, role) =
        tokio::join!(get.query_async::<Option<String>>(asking), role.query_async::<Vec<Value>>(&mut other));
    let waits = |error: &redis::RedisError| matches!(error.code(), Some("CLUSTERDOWN" | "MASTERDOWN" | "LOADING"));
    let Ok(role) = role else { return Role::Away { silent: true } };
    if revision.as_ref().is_err_and(waits) {
        return Role::Away { silent: true };
    }
    let number = |text: &String| text.split('/').next().and_then(|number| number.parse().ok());
    match role.first() {
        Some(Value::BulkString(name)) if name == b"master" => Role::Primary { serves: revision.is_ok() },
        _ => Role::Replica(revision.ok().flatten().as_ref().and_then(number).unwrap_or_default()),
    }
}
