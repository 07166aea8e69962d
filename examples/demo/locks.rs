//! The act of the locks: five processes want one, in turn; the second is killed while it holds it.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use group_redis::{Error, GroupConnector};
use serde_json::json;
use tokio::io::AsyncBufReadExt;

use crate::members::Process;
use crate::stage::Stage;
use crate::{Outcome, PATIENCE, TTL, ms};

const LOCK: &str = "the-lock";

/// What a process does here: it waits for the lock, says when it holds it, and gives it back when told to.
pub(crate) async fn run(args: Vec<String>) -> ExitCode {
    match hold(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("locker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros())
}

async fn hold(args: &[String]) -> Result<(), Error> {
    let [url, group, name, ttl] = args else { std::process::exit(2) };
    let ttl = Duration::from_millis(ttl.parse().unwrap_or(2000));
    let group = GroupConnector::builder(url).group(group).ttl(ttl).connect().await?;
    let guard = group.lock(LOCK).as_member(name).acquire().await?;
    println!("holds {} {}", guard.token(), now());
    let told = tokio::io::BufReader::new(tokio::io::stdin()).lines().next_line().await;
    if let Ok(Some(_)) = told {
        println!("releasing {}", now());
        guard.release().await;
    }
    group.close().await
}

/// What was measured, and what was right.
pub(crate) struct Measured {
    pub(crate) handover: Duration,
    pub(crate) takeover_past_deadline: Duration,
    pub(crate) fifo: bool,
    pub(crate) tokens_rising: bool,
}

/// The numbers of a line.
fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').skip(1).map_while(|word| word.parse().ok()).collect()
}

pub(crate) async fn play(stage: &Stage) -> Outcome<Measured> {
    stage.act("five processes want one lock", "it is handed on in the order of asking; the second holder is killed");
    let lock = stage.watcher().lock(LOCK);
    let names = ["eve", "fay", "gil", "hal", "ida"];
    let mut processes = Vec::new();
    for (before, name) in names.into_iter().enumerate() {
        processes.push(Process::start("locker", stage.url(), stage.group(), name, TTL)?);
        let queued = async {
            while lock.holders().await?.len() + lock.waiters().await?.len() <= before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok::<_, Error>(())
        };
        tokio::time::timeout(PATIENCE, queued).await??;
        let (line, act) = if before == 0 { ("holds it", "hold") } else { ("waits", "wait") };
        stage.say(&format!("{name} {line}"), json!({"act": act, "member": name}));
    }

    let mut tokens = Vec::new();
    let mut order = Vec::new();
    let mut handovers = Vec::new();
    let mut takeover_past_deadline = Duration::ZERO;
    let (mut releasing, mut killed) = (None, None::<(Instant, Instant)>);
    for (place, process) in processes.iter_mut().enumerate() {
        let [token, at] = numbers(&process.line("holds").await?)[..] else { return Err("what does it hold?".into()) };
        let seen = Instant::now();
        let holder = lock.holder().await?.ok_or("a lock that is held has no holder")?;
        order.push(holder.member.to_string());
        tokens.push(token);
        if let Some(releasing) = releasing.take() {
            handovers.push(Duration::from_micros(at.saturating_sub(releasing)));
            stage.say(
                &format!("{} has it next", holder.member),
                json!({"act": "locks", "member": holder.member.as_str(), "handover_ms": ms(handovers[handovers.len() - 1])}),
            );
        } else if let Some((killed, deadline)) = killed.take() {
            takeover_past_deadline = seen.saturating_duration_since(deadline);
            stage.say(
                &format!("{} takes over", holder.member),
                json!({
                    "act": "locks",
                    "member": holder.member.as_str(),
                    "ms_after_kill": ms(seen - killed),
                    "ms_past_deadline": ms(takeover_past_deadline),
                }),
            );
        }
        if place == 1 {
            // Stopped first, so that no heartbeat moves the deadline between the reading and the kill.
            process.signal("-STOP")?;
            let deadline = stage.deadline_of_session(&holder.session).await?;
            killed = Some((Instant::now(), deadline));
            process.signal("-KILL")?;
        } else {
            process.tell("release")?;
            releasing = numbers(&process.line("releasing").await?).first().copied();
        }
    }
    stage.say("ida releases it", json!({"act": "release", "member": "ida"}));
    handovers.sort_unstable();
    Ok(Measured {
        handover: handovers[handovers.len() / 2],
        takeover_past_deadline,
        fifo: order == names,
        tokens_rising: tokens.is_sorted_by(|a, b| a < b),
    })
}
