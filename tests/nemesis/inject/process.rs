//! What happens to a worker's process.

use std::time::Duration;

use group_redis::redis::RedisError;
use group_redis::testing::{self, Flow, Way};
use rustix::process::Signal;
use tokio::time::sleep;

use super::probe::comes_true;
use super::{LONG, WHILE};
use crate::chance::Chance;
use crate::history::{Line, What, now};
use crate::queues;
use crate::stage::{PREFIX, Stage, Worker};

/// How much later than everything else the news of an end comes: the process is back by then.
const LATE_NEWS: Duration = Duration::from_millis(400);

/// In this time after the end of a lease, what lived by it is another's.
const HANDED_ON: Duration = Duration::from_millis(60);

/// The lease of the process with this id, and what to do with it.
const LEASE: &str = "for _, key in ipairs(redis.call('KEYS', KEYS[1] .. 'leases/*')) do
      local value = redis.pcall('GET', key)
      if type(value) == 'string' and string.find(value, '\"pid\":' .. ARGV[1] .. '[,}]') then
        redis.call(ARGV[2], key)
        return key
      end
    end
    return false";

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

/// Every second worker at once, the probers perhaps among them.
pub(super) async fn kill_half(stage: &Stage, chance: &mut Chance) -> bool {
    let half: Vec<_> = stage.workers.iter().step_by(2).collect();
    let were_running = half.iter().all(|worker| stage.is_running(worker));
    futures_util::future::join_all(half.iter().map(|worker| stage.kill(worker))).await;
    sleep(Duration::from_millis(chance.from(500, 3000))).await;
    let are_gone = half.iter().all(|worker| !stage.is_running(worker));
    half.iter().for_each(|worker| stage.start(worker));
    were_running && are_gone
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

/// Does this with the lease of a worker, and answers its key where there is one.
async fn lease(stage: &Stage, on: &Worker, command: &str) -> Result<Option<String>, RedisError> {
    let pid = stage.pid(on).unwrap_or_default().to_string();
    stage.ask(&["EVAL", LEASE, "1", PREFIX, &pid, command]).await
}

/// Until just after the end of its lease while it stands in a queue: what it was granted meanwhile is another's when it
/// wakes, and the next time that it would ask has not come.
pub(super) async fn stop_waiter(stage: &Stage, on: &Worker) -> bool {
    let waits = async || {
        let Some((_, locks)) = queues::sample(stage).await else { return false };
        let mut waiters = locks.iter().flat_map(|lock| &lock.waiters);
        waiters.any(|waiter| waiter.attempt.split('.').next() == Some(&on.name))
    };
    let mut stopped = false;
    for _ in 0..50 {
        stopped = comes_true(WHILE, waits).await && stage.signal(on, Signal::STOP);
        if !stopped || waits().await {
            break;
        }
        // It was served just then.
        let _ = (stage.signal(on, Signal::CONT), std::mem::take(&mut stopped));
    }
    let is_over = async || matches!(lease(stage, on, "EXISTS").await, Ok(None));
    let is_over = comes_true(LONG, is_over).await;
    sleep(HANDED_ON).await;
    let is_stopped = stage.is_stopped(on);
    stage.signal(on, Signal::CONT) && stopped && is_stopped && is_over
}

/// Frozen, and without its lease: what it waits for is for others.
pub(super) async fn lease_lost_frozen(stage: &Stage, on: &Worker) -> bool {
    let stopped = stage.signal(on, Signal::STOP);
    let key = lease(stage, on, "DEL").await.unwrap_or_default();
    if let Some(path) = key.as_deref().and_then(|key| key.strip_prefix(PREFIX)) {
        let (fault, owner) = ("lease_lost_frozen".into(), Some(on.name.clone()));
        stage.history.note(What::Hit { fault, key: path.into(), owner });
    }
    sleep(WHILE).await;
    stage.signal(on, Signal::CONT) && stopped && key.is_some()
}

/// A process ends and another takes its place before the others hear of the end.
pub(super) async fn late_expiry(stage: &Stage, on: &Worker, chance: &mut Chance) -> bool {
    let others = || stage.workers.iter().filter(|worker| worker.name != on.name);
    for other in others() {
        other.proxy().set(testing::Line::Events, Way::ToClient, Flow::new().delay(LATE_NEWS));
    }
    let (was_running, before) = (stage.is_running(on), stage.pid(on));
    stage.kill(on).await;
    sleep(Duration::from_millis(chance.from(350, 450))).await;
    stage.start(on);
    sleep(WHILE).await;
    let after = stage.pid(on);
    others().for_each(|other| other.proxy().heal());
    was_running && after.is_some() && after != before
}
