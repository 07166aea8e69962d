//! Processes that are killed together, with the probers among them.

use std::time::{Duration, Instant};

use group_redis::redis;
use group_redis::testing::TestRedis;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::{Outcome, PATIENCE, SEEN_WITHIN, TTL, joined, limit, signal, spawn, tell, watcher};

/// How many processes there are of which some are killed.
const TOGETHER: usize = 20;

/// How many leases have a mark, so that any prober may judge them.
async fn marked(connection: &mut redis::aio::MultiplexedConnection) -> Outcome<usize> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("{failover}/leases/*").query_async(connection).await?;
    let mut leases = redis::cmd("MGET");
    leases.arg(keys);
    let leases: Vec<Option<String>> = leases.query_async(connection).await.unwrap_or_default();
    Ok(leases.iter().flatten().filter(|lease| lease.contains("\"run\":")).count())
}

/// Some of many processes are killed at one instant: two, half of them, and all, so that only the watcher is left. It has
/// come last, so both places of probers are held by processes that may be among the dead.
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
            let are_marked = async {
                while marked(&mut connection).await? < TOGETHER {
                    sleep(Duration::from_millis(5)).await;
                }
                Outcome::Ok(())
            };
            timeout(PATIENCE, are_marked).await??;
            let (sender, mut told) = mpsc::channel(1024);
            let group = watcher(server.url(), sender).await?;
            while group.members().len() < TOGETHER {
                sleep(Duration::from_millis(5)).await;
            }
            // The first have the places of the probers.
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
