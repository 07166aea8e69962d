//! What happens to the server's process, to its clock, and to its connections.

use std::time::{Duration, Instant};

use group_redis::testing::TestRedisError;
use redis::Value;
use tokio::time::{sleep, timeout};

use super::probe::{comes_true, first_answer, info};
use super::{SHORT, WHILE};
use crate::chance::Chance;
use crate::stage::Stage;

pub(super) async fn freeze(stage: &Stage, time: Duration) -> bool {
    let frozen = stage.redis().freeze().await.is_ok();
    let is_silent = timeout(SHORT / 4, first_answer(stage, "PING")).await.is_err();
    sleep(time.saturating_sub(SHORT / 4)).await;
    let thawed = comes_true(WHILE, async || stage.redis().thaw().await.is_ok()).await;
    frozen && is_silent && thawed
}

/// Which of its lives the server is in.
async fn life(stage: &Stage) -> Option<String> {
    let info: String = stage.ask(&["INFO", "server"]).await.ok()?;
    info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::to_owned)
}

/// Without a server there is nothing to judge: that is no fault of what is judged.
fn came_back(restarted: &Result<(), TestRedisError>) -> bool {
    if let Err(error) = restarted {
        eprintln!("the server did not come back: {error}");
    }
    restarted.is_ok()
}

pub(super) async fn restart_empty(stage: &Stage) -> bool {
    let before = life(stage).await;
    let restarted = came_back(&stage.redis().restart_empty().await);
    restarted && life(stage).await != before
}

pub(super) async fn restart_with_data(stage: &Stage) -> bool {
    let before = life(stage).await;
    let restarted = came_back(&stage.redis().restart_with_data().await);
    restarted && life(stage).await != before
}

/// It crashes, and comes back with what it had saved some time before.
pub(super) async fn restart_stale(stage: &Stage, chance: &mut Chance) -> bool {
    let before = life(stage).await;
    let saved = stage.ask::<Value>(&["SAVE"]).await.is_ok();
    let since = info(stage, "persistence", "rdb_changes_since_last_save").await;
    sleep(Duration::from_millis(chance.from(300, 2500))).await;
    let changed = info(stage, "persistence", "rdb_changes_since_last_save").await > since;
    let restarted = came_back(&stage.redis().crash_and_restart().await);
    saved && changed && restarted && life(stage).await != before
}

pub(super) async fn pause(stage: &Stage) -> bool {
    let paused = stage.ask::<Value>(&["CLIENT", "PAUSE", "800", "ALL"]).await.is_ok();
    let begun = Instant::now();
    let _ = stage.ask::<Value>(&["PING"]).await;
    paused && begun.elapsed() > SHORT / 2
}

pub(super) async fn sleeping(stage: &Stage) -> bool {
    let begun = Instant::now();
    let _ = stage.ask::<Value>(&["DEBUG", "SLEEP", "0.8"]).await;
    begun.elapsed() > SHORT / 2
}

/// A script that takes long: others are told that the server is busy, and not only kept waiting.
pub(super) async fn busy_script(stage: &Stage) -> bool {
    let mut threshold = "busy-reply-threshold";
    if stage.ask::<Value>(&["CONFIG", "SET", threshold, "50"]).await.is_err() {
        threshold = "lua-time-limit";
        let _ = stage.ask::<Value>(&["CONFIG", "SET", threshold, "50"]).await;
    }
    let script = "local t = redis.call('TIME') local from = t[1] * 1000 + t[2] / 1000
        repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 - from > 800 return 1";
    let running = async {
        let Ok(mut connection) = stage.connection().await else { return };
        let _ = redis::cmd("EVAL").arg(script).arg(0).query_async::<Value>(&mut connection).await;
    };
    let is_busy = async || first_answer(stage, "PING").await.is_some_and(|answer| answer.starts_with("-BUSY"));
    let ((), seen) = tokio::join!(running, comes_true(SHORT, is_busy));
    stage.heal(&["CONFIG", "SET", threshold, "5000"]).await && seen
}

pub(super) async fn readonly(stage: &Stage) -> bool {
    let _ = stage.ask::<Value>(&["CONFIG", "SET", "replica-read-only", "yes"]).await;
    let demoted = stage.ask::<Value>(&["REPLICAOF", "127.0.0.1", "1"]).await.is_ok();
    let refused = stage.ask::<Value>(&["SET", "{nemesis}:refused", "x"]).await;
    sleep(SHORT).await;
    let healed = stage.heal(&["REPLICAOF", "NO", "ONE"]).await;
    demoted && healed && refused.is_err_and(|error| error.to_string().to_lowercase().contains("read only"))
}

/// Every 50 ms, so that who has just come back is cut off again.
pub(super) async fn kill_clients(stage: &Stage, kind: &str) -> bool {
    let (begun, mut killed) = (Instant::now(), 0);
    while begun.elapsed() < WHILE {
        killed += stage.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await.unwrap_or_default();
        sleep(Duration::from_millis(50)).await;
    }
    killed > 0
}

async fn time(stage: &Stage) -> i64 {
    let time: Vec<i64> = stage.ask(&["TIME"]).await.unwrap_or_default();
    time.first().copied().unwrap_or_default()
}

/// The server's clock by so many seconds.
pub(super) async fn clock(stage: &Stage, seconds: i64) -> bool {
    let before = time(stage).await;
    let set = |seconds: i64| stage.servers.set_clock(stage.current(), seconds * 1_000_000);
    let stepped = set(seconds);
    let after = time(stage).await;
    sleep(WHILE).await;
    set(0) && stepped && (after - before - seconds).abs() < 10
}
