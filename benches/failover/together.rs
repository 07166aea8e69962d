//! Processes that are killed together, with the probers among them.

use std::process::Child;
use std::time::{Duration, Instant};

use group_redis::redis;
use group_redis::testing::TestRedis;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::{Outcome, PATIENCE, SEEN_WITHIN, TTL, joined, limit, signal, spawn, tell, watcher};

/// How many processes there are of which some are killed.
const TOGETHER: usize = 20;

type Connection = redis::aio::MultiplexedConnection;

/// How many leases have a mark, so that any prober may judge them.
async fn marked(connection: &mut Connection) -> Outcome<usize> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("{failover}/leases/*").query_async(connection).await?;
    let mut leases = redis::cmd("MGET");
    leases.arg(keys);
    let leases: Vec<Option<String>> = leases.query_async(connection).await?;
    Ok(leases.iter().flatten().filter(|lease| lease.contains("\"run\":")).count())
}

/// The processes that have the places of the probers.
async fn probers(connection: &mut Connection) -> Outcome<Vec<u32>> {
    let connectors: Vec<String> =
        redis::cmd("ZRANGE").arg("{failover}/probers").arg(&["0", "-1"]).query_async(connection).await?;
    let mut pids = Vec::new();
    for connector in connectors {
        let key = format!("{{failover}}/leases/{connector}-1");
        let lease: Option<String> = redis::cmd("GET").arg(key).query_async(connection).await?;
        let pid: Option<u32> =
            lease.as_deref().and_then(|lease| lease.split("\"pid\":").nth(1)?.split([',', '}']).next()?.parse().ok());
        pids.extend(pid);
    }
    Ok(pids)
}

/// Waits until both places are held by processes of ours, and every process may be judged by whoever takes them.
async fn settled(connection: &mut Connection, children: &[(String, Child)]) -> Outcome<Vec<u32>> {
    let settling = async {
        loop {
            let probers = probers(connection).await?;
            let is_ours = |pid: &u32| children.iter().any(|(_, child)| child.id() == *pid);
            if probers.len() == 2 && probers.iter().all(is_ours) && marked(connection).await? == TOGETHER {
                return Outcome::Ok(probers);
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, settling).await?
}

/// Some of many processes are killed at one instant, both probers among them: two, half of them, and all, so that only
/// the watcher is left, which has come last.
pub(crate) async fn run(rounds: usize) -> Outcome<()> {
    for count in [2, TOGETHER / 2, TOGETHER] {
        let server = TestRedis::start().await?;
        let mut connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
        let (mut times, mut children) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            while children.len() < TOGETHER {
                let name = format!("victim-{round}-{}", children.len());
                let mut child = spawn(server.url(), std::slice::from_ref(&name))?;
                joined(&mut child).await?;
                children.push((name, child));
            }
            settled(&mut connection, &children).await?;
            let (sender, mut told) = mpsc::channel(1024);
            let group = watcher(server.url(), sender).await?;
            group.wait_for(PATIENCE, |view| view.len() == TOGETHER).await?;
            let probers = settled(&mut connection, &children).await?;
            children.sort_by_key(|(_, child)| !probers.contains(&child.id()));
            let killed = Instant::now();
            for (_, child) in &children[..count] {
                signal(child, Signal::KILL)?;
            }
            let mut missing: Vec<String> = Vec::new();
            for (name, mut child) in children.drain(..count) {
                missing.push(name);
                child.wait()?;
            }
            let mut last = Duration::ZERO;
            while !missing.is_empty() {
                let (at, has_joined, id) = timeout(PATIENCE, told.recv()).await?.ok_or("the watcher has ended")?;
                if !has_joined {
                    missing.retain(|name| *name != id);
                    last = last.max(at - killed);
                }
            }
            times.push(last);
            group.close().await?;
        }
        for (_, mut child) in children {
            child.kill()?;
            child.wait()?;
        }
        let p99 =
            tell(&format!("{count} of {TOGETHER} processes killed at once, to the last Left, ttl {TTL:?}"), &mut times);
        limit(p99 <= SEEN_WITHIN, &format!("p99 of {count} killed at once is at most {SEEN_WITHIN:?}"));
    }
    Ok(())
}
