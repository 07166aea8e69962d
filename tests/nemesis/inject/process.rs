//! What happens to a worker's process.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::chance::Chance;
use crate::history::{Line, What, now};
use crate::stage::{Stage, Worker};

pub(super) async fn stop(stage: &Stage, on: &Worker, time: Duration) -> bool {
    let stopped = stage.signal(on, Signal::STOP);
    sleep(time).await;
    let is_stopped = stage.is_stopped(on);
    stage.signal(on, Signal::CONT) && stopped && is_stopped
}

pub(super) async fn kill(stage: &Stage, on: &Worker, chance: &mut Chance) -> bool {
    let was_running = stage.is_running(on);
    stage.kill(on).await;
    sleep(Duration::from_millis(chance.from(500, 3000))).await;
    was_running && !stage.is_running(on)
}

pub(super) async fn busy(stage: &Stage, on: &Worker) -> bool {
    let begun = now();
    stage.tell(on, "block 750");
    sleep(Duration::from_millis(1700)).await;
    // What its runtime said; views and stalls come from threads beside it.
    let by_runtime = |line: &&Line| {
        line.who.split('.').next() == Some(&on.name) && !matches!(line.what, What::View { .. } | What::Stall { .. })
    };
    let lines = stage.history.since(begun);
    let mut times: Vec<u64> = lines.iter().filter(by_runtime).map(|line| line.at).collect();
    times.extend([begun, now()]);
    times.sort_unstable();
    times.windows(2).any(|pair| pair[1] - pair[0] >= 700_000)
}

pub(super) async fn blocked(stage: &Stage, on: &Worker) -> bool {
    let begun = now();
    stage.tell(on, "block 4500");
    sleep(Duration::from_millis(9500)).await;
    let left = |line: &Line| matches!(&line.what, What::Left { id, .. } if *id == on.name);
    stage.history.since(begun).iter().any(|line| line.who != on.name && left(line))
}
