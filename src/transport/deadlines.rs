//! Ends calls that take too long, with one timer for all of them.
//!
//! A timer of its own costs a call about 7 us where a PING takes 55: setting it wakes the thread that sleeps until the
//! next one. So a ticker ticks while calls are under way, and at each tick every call checks whether its time is up.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::clock::LONGEST_SLEEP;

/// How often the ticker ticks in the time that most calls may take: a call is ended one tick late at the most.
const TICKS: u32 = 16;

/// The calls under way.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// How long most calls may take.
    usual: Duration,
    calls: AtomicUsize,
    first: Notify,
    tick: Notify,
    stopped: CancellationToken,
}

/// A call under way, for as long as this lives.
struct PendingCall<'a>(&'a Deadlines);

impl<'a> PendingCall<'a> {
    fn begin(of: &'a Deadlines) -> Self {
        if of.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            of.first.notify_one();
        }
        Self(of)
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Deadlines {
    pub(super) fn new(usual: Duration) -> Self {
        Self {
            usual,
            calls: AtomicUsize::new(0),
            first: Notify::new(),
            tick: Notify::new(),
            stopped: CancellationToken::new(),
        }
    }

    /// What a call answers, or `None` if it takes too long or the connector is closed.
    pub(super) async fn limit<T>(&self, limit: Duration, call: impl Future<Output = T>) -> Option<T> {
        let _under_way = PendingCall::begin(self);
        let deadline = clock::now() + limit;
        let mut call = pin!(call);
        let mut tick = pin!(self.tick.notified());
        poll_fn(|context| {
            if let Poll::Ready(answer) = call.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            while !self.is_stopped() {
                ready!(tick.as_mut().poll(context));
                tick.set(self.tick.notified());
                if deadline <= clock::now() {
                    break;
                }
            }
            Poll::Ready(None)
        })
        .await
    }

    /// Ends every call from now on.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
        self.tick.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_cancelled()
    }

    /// Ticks until it is stopped.
    pub(super) async fn watch(&self) {
        self.stopped.run_until_cancelled(self.tick()).await;
    }

    async fn tick(&self) {
        loop {
            if self.calls.load(Ordering::SeqCst) == 0 {
                self.first.notified().await;
            }
            sleep((self.usual / TICKS).min(LONGEST_SLEEP)).await;
            self.tick.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::task::yield_now;
    use tokio_util::task::TaskTracker;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);
    const HOUR: Duration = Duration::from_secs(3600);

    fn watched(limit: Duration) -> Arc<Deadlines> {
        let deadlines = Arc::new(Deadlines::new(limit));
        let watched = deadlines.clone();
        let tracker = TaskTracker::new();
        tracker.spawn(async move { watched.watch().await });
        deadlines
    }

    #[tokio::test]
    async fn what_is_answered_is_answered_and_what_is_not_is_ended() {
        let deadlines = watched(LIMIT);
        assert_eq!(deadlines.limit(LIMIT, ready(7)).await, Some(7));
        let calls = (0..9).map(|_| deadlines.limit(LIMIT, pending::<()>()));
        assert_eq!(join_all(calls).await, [None; 9]);
        assert_eq!(deadlines.limit(LIMIT, pending::<()>()).await, None, "after a time without calls");
        assert_eq!(deadlines.calls.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn nobody_waits_any_more_when_it_has_been_stopped() {
        let deadlines = watched(HOUR);
        let stopping = async {
            while deadlines.calls.load(Ordering::SeqCst) == 0 {
                yield_now().await;
            }
            deadlines.stop();
        };
        assert_eq!(tokio::join!(deadlines.limit(HOUR, pending::<()>()), stopping).0, None);
        assert_eq!(deadlines.limit(HOUR, pending::<()>()).await, None);
        assert_eq!(deadlines.limit(HOUR, ready(7)).await, Some(7), "what needs no waiting is answered");
    }

    #[tokio::test]
    async fn it_is_stopped_where_nobody_ticks_any_more() {
        let deadlines = Deadlines::new(HOUR);
        let stopping = async {
            while deadlines.calls.load(Ordering::SeqCst) == 0 {
                yield_now().await;
            }
            deadlines.stop();
        };
        assert_eq!(tokio::join!(deadlines.limit(HOUR, pending::<()>()), stopping).0, None);
    }
}
