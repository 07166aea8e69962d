//! What happens to sentinels, and between them and the primary.

use std::time::Duration;

use group_redis::testing::{Flow, Line};
use redis::Value;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::failover::replaced;
use super::probe::comes_true;
use super::{LONG, WHILE};
use crate::chance::Chance;
use crate::history::{Was, What, now};
use crate::servers::{Servers, USER};
use crate::stage::{Stage, Worker};

/// How long an answer is awaited that should not come.
const SILENT: Duration = Duration::from_millis(500);
/// How long who has been replaced takes itself for the primary.
const UNHEARD: Duration = Duration::from_secs(2);

pub(super) async fn failover(stage: &Stage) -> bool {
    let before = stage.current();
    stage.servers.sentinel().failover().await.is_ok() && replaced(stage, before).await
}

/// The primary is killed, and comes back without data, as a primary, before the sentinels have told it of the other.
pub(super) async fn back_empty(stage: &Stage) -> bool {
    let before = stage.current();
    let server = &stage.servers.nodes()[before];
    let stopped = server.stop().await.is_ok();
    let elected = replaced(stage, before).await;
    let begun = now();
    let is_named = async || stage.servers.sentinel().primary().await.is_ok_and(|node| node == stage.current());
    let named = comes_true(LONG, is_named).await;
    if let Err(error) = server.start_again().await {
        eprintln!("the server did not come back: {error}");
        return false;
    }
    stage.servers.prepare(before).await;
    let _ = stage.servers.ask::<Value>(before, &["REPLICAOF", "NO", "ONE"]).await;
    let is_back = |line: &crate::history::Line| match &line.what {
        What::Serves { server: port, was } => *port == server.port() && *was == Was::Away,
        _ => false,
    };
    let seen = comes_true(UNHEARD, async || stage.history.since(begun).iter().any(is_back)).await;
    sleep(UNHEARD).await;
    stopped && elected && named && seen
}

/// Sentinels and replicas are shut out of the primary, and half of the workers from the sentinels: these stay with it,
/// the others go to the one that is elected.
pub(super) async fn partition(stage: &Stage, chance: &mut Chance) -> bool {
    let before = stage.current();
    let half: Vec<_> = stage.workers.iter().step_by(2).collect();
    half.iter().for_each(|worker| shut(worker));
    let _ = stage.servers.ask::<Value>(before, &["ACL", "SETUSER", "default", "off"]).await;
    for kind in [["USER", "default"], ["TYPE", "replica"]] {
        let words = ["CLIENT", "KILL", kind[0], kind[1]];
        let _ = stage.servers.ask::<Value>(before, &words).await;
    }
    let elected = replaced(stage, before).await;
    sleep(Duration::from_millis(chance.from(1000, 3000))).await;
    let list: String = stage.servers.ask(before, &["CLIENT", "LIST"]).await.unwrap_or_default();
    let user = format!("user={USER}");
    // One is our own that asks, one that watches.
    let stay = list.lines().filter(|line| line.contains(&user)).count() > 2;
    let role: Vec<Value> = stage.servers.ask(before, &["ROLE"]).await.unwrap_or_default();
    let still = role.first() == Some(&Value::BulkString(b"master".to_vec()));
    let healed = stage.servers.ask::<Value>(before, &["ACL", "SETUSER", "default", "on"]).await.is_ok();
    heal(&half);
    elected && stay && still && healed
}

fn shut(worker: &Worker) {
    worker.proxies.iter().for_each(|proxy| proxy.set_both(Line::Any, Flow::new().blackhole()));
}

fn heal(workers: &[&Worker]) {
    workers.iter().flat_map(|worker| &worker.proxies).for_each(group_redis::testing::FaultProxy::heal);
}

/// One worker hears nothing of the sentinels.
pub(super) async fn out_of_reach(on: &Worker) -> bool {
    shut(on);
    let mut answers = 0;
    for proxy in &on.proxies {
        answers += usize::from(is_answered(proxy.port()).await);
    }
    sleep(WHILE).await;
    heal(&[on]);
    answers == 0
}

async fn is_answered(port: u16) -> bool {
    let asking = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.write_all(b"PING\r\n").await?;
        connection.read(&mut [0; 16]).await
    };
    matches!(timeout(SILENT, asking).await, Ok(Ok(1..)))
}

async fn kill(stage: &Stage, port: u16) -> bool {
    let info: String = Servers::ask_sentinel(port, &["INFO", "server"]).await.unwrap_or_default();
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let pid = field("process_id:").and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let killed = pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
    if let Some(file) = field("config_file:") {
        stage.servers.remember(port, file);
    }
    killed && comes_true(WHILE, async || !is_answered(port).await).await
}

/// Two of three are killed: no other primary can be elected.
pub(super) async fn quorum_lost(stage: &Stage) -> bool {
    let ports = stage.servers.sentinels();
    let killed = kill(stage, ports[0]).await && kill(stage, ports[1]).await;
    sleep(LONG).await;
    let answer = Servers::ask_sentinel::<String>(ports[2], &["SENTINEL", "CKQUORUM", "mymaster"]).await;
    let restarted = restart(stage, &ports[..2]).await;
    killed && restarted && answer.is_err_and(|error| error.to_string().contains("NOQUORUM"))
}

pub(super) async fn gone(stage: &Stage) -> bool {
    let ports = stage.servers.sentinels();
    let killed = kill_all(stage, &ports).await;
    sleep(WHILE).await;
    restart(stage, &ports).await && killed
}

/// All connections to the primary are closed while nobody can be asked who it is.
pub(super) async fn gone_and_cut(stage: &Stage) -> bool {
    let ports = stage.servers.sentinels();
    let gone = kill_all(stage, &ports).await;
    let mut killed = 0;
    for kind in ["normal", "pubsub"] {
        killed += stage.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await.unwrap_or_default();
    }
    sleep(WHILE).await;
    restart(stage, &ports).await && gone && killed > 0
}

async fn kill_all(stage: &Stage, ports: &[u16]) -> bool {
    let mut killed = true;
    for port in ports {
        killed &= kill(stage, *port).await;
    }
    killed
}

async fn restart(stage: &Stage, ports: &[u16]) -> bool {
    ports.iter().for_each(|port| stage.servers.start_sentinel(*port));
    let all = async || {
        for port in ports {
            if !is_answered(*port).await {
                return false;
            }
        }
        true
    };
    comes_true(LONG, all).await
}
