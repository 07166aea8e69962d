//! The main job for real: member processes on a private Redis, and what a watcher sees when one leaves, one is
//! killed, one is frozen and the server loses its data; and five processes that want one lock.
//!
//! Run it by `scripts/demo`. `--json` prints NDJSON, whose last line is the summary.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod locks;
mod members;
mod stage;

use std::time::{Duration, Instant};

use group_redis::LeaveCause;
use serde_json::{Value, json};

use members::Process;
use stage::Stage;

/// The leases of the demo: a crash is seen this long after the last heartbeat.
const TTL: Duration = Duration::from_secs(2);
/// How long any act may take.
const PATIENCE: Duration = Duration::from_secs(15);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn ms(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return std::process::ExitCode::FAILURE };
    let first = args.next();
    match first.as_deref() {
        Some("member") => return runtime.block_on(members::run(args.collect())),
        Some("locker") => return runtime.block_on(locks::run(args.collect())),
        _ => {}
    }
    let json = first.as_deref() == Some("--json");
    // On Ctrl-C the stage is dropped like at the end: no process, no server and no folder stays.
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = play(json) => ended,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn play(json: bool) -> Outcome<bool> {
    let stage = Stage::set(json, TTL).await?;

    stage.act("four processes join", "each says when it has, and the watcher says when it saw it");
    let mut members = Vec::new();
    let mut joins = Vec::new();
    for name in ["ada", "bob", "cyd", "dan"] {
        let mut member = Process::start("member", stage.url(), stage.group(), name, TTL)?;
        let seen = stage.joined(name).await?;
        member.line("joined").await?;
        // From the server's time of the join, so that starting a process does not count.
        joins.push(seen.since_server);
        stage.say(&format!("{name} joined"), json!({"act": "join", "member": name, "ms": ms(seen.since_server)}));
        members.push(member);
    }
    joins.sort_unstable();
    let join = joins[joins.len() / 2];

    stage.act("ada leaves", "gracefully: it says goodbye, so nobody has to wait");
    let asked = Instant::now();
    members[0].tell("leave")?;
    let seen = stage.left("ada", LeaveCause::Left).await?;
    members[0].line("left").await?;
    let leave = seen.at.saturating_duration_since(asked);
    stage.say("ada left", json!({"act": "leave", "member": "ada", "ms": ms(leave)}));

    stage.act(
        "bob is killed",
        "kill -9: its connection closes, and after `grace` everybody is told, long before its ttl",
    );
    // Stopped first, so that no heartbeat moves the deadline between the reading and the kill.
    members[1].signal("-STOP")?;
    let deadline = stage.deadline_of("bob").await?;
    let killed = Instant::now();
    members[1].signal("-KILL")?;
    let seen = stage.left("bob", LeaveCause::Expired).await?;
    let crash = seen.at.saturating_duration_since(deadline);
    stage.say(
        "bob expired",
        json!({"act": "crash", "member": "bob", "ms_after_kill": ms(seen.at - killed), "ms_past_deadline": ms(crash)}),
    );

    stage.act("cyd is frozen", "SIGSTOP past its ttl, then resumed: it is told, and comes back as another");
    let frozen = Instant::now();
    members[2].signal("-STOP")?;
    let deadline = stage.deadline_of("cyd").await?;
    let seen = stage.left("cyd", LeaveCause::Expired).await?;
    let freeze = seen.at.saturating_duration_since(deadline);
    stage.say(
        "cyd expired",
        json!({"act": "freeze", "member": "cyd", "ms_past_deadline": ms(freeze), "ms_frozen": ms(seen.at - frozen)}),
    );
    let resumed = Instant::now();
    members[2].signal("-CONT")?;
    let told = members[2].line("lost").await?;
    let back = stage.joined("cyd").await?;
    stage.say(
        "cyd rejoined",
        json!({"act": "freeze", "member": "cyd", "rejoined": true, "told": told, "ms_after_resume": ms(back.at - resumed)}),
    );

    let locks = locks::play(&stage).await?;

    let restart = stage.restart(&["cyd", "dan"]).await?;

    let false_events = stage.false_events();
    let (handover, takeover) = (locks.handover, locks.takeover_past_deadline);
    let right = false_events == 0 && locks.fifo && locks.tokens_rising;
    let quick = takeover <= Duration::from_millis(50) && handover <= Duration::from_millis(10);
    let quick = quick && crash <= Duration::from_millis(50) && freeze <= Duration::from_millis(50);
    let ok = right && quick && leave <= Duration::from_millis(10);
    stage.end(&json!({
        "summary": true,
        "ok": ok,
        "redis": stage.version(),
        "backend": stage.backend(),
        "ttl_ms": u64::try_from(TTL.as_millis())?,
        "false_events": false_events,
        "locks": {
            "handover_ms": ms(handover),
            "takeover_ms_past_deadline": ms(takeover),
            "fifo": locks.fifo,
            "tokens_rising": locks.tokens_rising,
        },
        "acts": {
            "join": {"ms": ms(join)},
            "leave": {"ms": ms(leave)},
            "crash": {"ms_past_deadline": ms(crash)},
            "freeze": {"ms_past_deadline": ms(freeze), "rejoined": true},
            "restart": {"converged_ms": restart.map_or(Value::Null, ms)},
        },
    }));
    // Whether it was quick enough is for the reader to judge: a busy machine is no fault.
    Ok(right)
}
