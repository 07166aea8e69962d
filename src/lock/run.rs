//! Work under a lock.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::guard::Facts;
use super::{Fenced, Lock, LockGuard, Suspension};
use crate::error::Error;
use crate::model::FencingToken;

/// What work under a lock may know of it.
#[derive(Clone)]
pub struct LockContext {
    facts: Arc<Facts>,
    cancelled: CancellationToken,
}

impl LockContext {
    /// The fencing token of this hold.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.facts.grant.token
    }

    /// Whether the lock is held at this moment, by the connector's own clock. No I/O.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.facts.is_held()
    }

    /// Cancelled when the work is: for what it has spawned. That is when the lock is suspended or lost, or, with
    /// [`through_suspension`](crate::Lock::through_suspension), when it is lost.
    #[must_use]
    pub fn cancellation_token(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Waits until the lock is suspended or lost. With [`through_suspension`](crate::Lock::through_suspension) this is
    /// the signal to pause.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn suspended(&self) {
        self.facts.suspended().await;
    }

    /// Waits until the lock is held, and answers `true`, at once where it is; `false` once it is lost.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn held(&self) -> bool {
        self.facts.held().await
    }

    /// Writes that the server makes only while the token is the holder's.
    pub fn fenced(&self) -> Fenced<'_> {
        Fenced::new(&self.facts)
    }
}

impl fmt::Debug for LockContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockContext").field("token", &self.token()).field("held", &self.is_held()).finish()
    }
}

impl Lock {
    /// Acquires the lock, for as long as that takes, works under it, and gives it back when the work has ended.
    ///
    /// The work is dropped where it stands, at its next `.await`, as soon as the lock is suspended or lost, and the
    /// lock is given back. With [`through_suspension`](Self::through_suspension) it is dropped only when the lock is
    /// lost. What it has spawned follows the [cancellation token](LockContext::cancellation_token).
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire); [`ErrorKind::Suspended`](crate::ErrorKind::Suspended) or
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the work was dropped before it had ended.
    ///
    /// # Cancel safety
    /// Dropped, the work is dropped first and the lock is given back after it, in the background.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// let report = group.lock("nightly-report").run(|lock| async move { format!("made under {}", lock.token())
    /// }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run<F, W>(&self, work: F) -> Result<W::Output, Error>
    where
        F: FnOnce(LockContext) -> W,
        W: Future,
    {
        let guard = self.acquire().await?;
        match self.work_under(&guard, work).await {
            Some(output) => {
                guard.release().await;
                Ok(output)
            }
            None => Err(guard.facts().dropped_error()),
        }
    }

    /// Does the work while the guard is held; `None` where it was dropped.
    pub(super) async fn work_under<F, W>(&self, guard: &LockGuard, work: F) -> Option<W::Output>
    where
        F: FnOnce(LockContext) -> W,
        W: Future,
    {
        let facts = guard.facts().clone();
        let cancelled = match self.suspension {
            Suspension::Cancels => facts.signals.suspended_or_lost(),
            Suspension::Pauses => facts.signals.lost().clone(),
        };
        // The lease may have gone unvouched since the guard was last asked.
        if !facts.is_held() && self.suspension == Suspension::Cancels {
            return None;
        }
        cancelled.clone().run_until_cancelled_owned(work(LockContext { facts, cancelled })).await
    }
}
