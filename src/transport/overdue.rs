//! Ends calls that take too long, with one timer for all of them.
//!
//! A timer of its own costs a call about 7 us where a PING takes 55: setting it wakes the thread that sleeps until the
//! next one. All calls of a connector have the same limit, so a queue is in the order of their deadlines.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::driver::LONGEST_SLEEP;
use crate::proto::Moment;

/// Into how many parts the limit is divided: a call is ended one of them late at the most.
const PARTS: u32 = 16;

/// The calls under way. What they wait for is dropped when their time is up.
#[derive(Debug)]
pub(super) struct Overdue {
    limit: Duration,
    calls: Mutex<VecDeque<(Moment, oneshot::Sender<()>)>>,
    first: Notify,
    stopped: CancellationToken,
}

impl Overdue {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, calls: Mutex::default(), first: Notify::new(), stopped: CancellationToken::new() }
    }

    fn calls(&self) -> MutexGuard<'_, VecDeque<(Moment, oneshot::Sender<()>)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call answers, or `None` if it takes too long.
    pub(super) async fn limit<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let (sender, overdue) = oneshot::channel();
        if !self.stopped.is_cancelled() {
            let mut calls = self.calls();
            calls.push_back((clock::now() + self.limit, sender));
            if calls.len() == 1 {
                self.first.notify_one();
            }
        }
        tokio::select! {
            biased;
            answer = call => Some(answer),
            _ = overdue => None,
        }
    }

    /// Nobody waits any more from now on.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    /// Watches over the calls until it is stopped.
    pub(super) async fn watch(&self) {
        self.stopped.run_until_cancelled(self.end_in_turn()).await;
        self.calls().clear();
    }

    async fn end_in_turn(&self) {
        loop {
            let next = self.calls().front().map(|(deadline, _)| *deadline);
            match next {
                Some(deadline) => {
                    let rest = deadline.since(clock::now()).max(self.limit / PARTS);
                    sleep(rest.min(LONGEST_SLEEP)).await;
                    let now = clock::now();
                    let mut calls = self.calls();
                    let over = calls.partition_point(|(deadline, _)| *deadline <= now);
                    calls.drain(..over);
                }
                None => self.first.notified().await,
            }
        }
    }
}
