//! Work under a lock.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::guard::Facts;
use super::{Fenced, Lock};
use crate::error::Error;
use crate::model::FencingToken;

/// What work under a lock may know of it.
#[derive(Clone)]
pub struct LockContext {
    facts: Arc<Facts>,
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

    /// Cancelled when the lock is lost: for what the work has spawned. The work itself is dropped then.
    #[must_use]
    pub fn cancellation_token(&self) -> &CancellationToken {
        &self.facts.lost
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
    /// The work is dropped where it stands, at its next `.await`, as soon as the lock is lost. What it has spawned
    /// follows the [cancellation token](LockContext::cancellation_token).
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire); [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the lock was lost before the work had ended.
    ///
    /// # Cancel safety
    /// Dropped, the work is dropped first and the lock is given back after it, in the background.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// let report = group.lock("nightly-report").run(|lock| async move { format!("made under {}", lock.token()) }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run<F, W>(&self, work: F) -> Result<W::Output, Error>
    where
        F: FnOnce(LockContext) -> W,
        W: Future,
    {
        let guard = self.acquire().await?;
        let facts = guard.facts().clone();
        // The work is dropped at the end of this statement, before the guard.
        let done = facts.lost.run_until_cancelled(work(LockContext { facts: facts.clone() })).await;
        match done {
            Some(output) => {
                guard.release().await;
                Ok(output)
            }
            None => Err(facts.lost_error()),
        }
    }
}
