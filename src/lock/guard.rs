//! A lock that is held.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::Locks;
use super::fenced::Fenced;
use crate::cache::HoldSignals;
use crate::engine::Validity;
use crate::error::{Error, ErrorKind};
use crate::model::{FencingToken, MemberId};
use crate::wire::{Grant, QueueEntry, shown};

/// What is known of one hold, for as long as anybody wants to know.
pub(crate) struct Facts {
    pub(super) locks: Arc<Locks>,
    pub(super) queue_entry: QueueEntry,
    pub(super) grant: Grant,
    member: MemberId,
    validity: Arc<Validity>,
    /// How long a call about it may wait for the server.
    pub(super) limit: Duration,
    pub(super) signals: Arc<HoldSignals>,
}

impl Facts {
    pub(super) fn is_held(&self) -> bool {
        !self.signals.lost().is_cancelled() && self.validity.is_held()
    }

    /// Waits until it is suspended or lost: at once where it is.
    ///
    /// Cancel safe.
    pub(super) async fn suspended(&self) {
        if self.is_held() {
            tokio::select! {
                () = self.validity.suspended() => {}
                () = self.signals.lost().cancelled() => {}
            }
        }
    }

    /// Waits until it is held, and answers true: at once where it is; or until it is lost, and answers false.
    ///
    /// Cancel safe.
    pub(super) async fn held(&self) -> bool {
        let resumed = async {
            // The lease may have gone unvouched again before this was checked.
            while !self.is_held() {
                self.validity.resumed().await;
            }
        };
        self.signals.lost().run_until_cancelled(resumed).await.is_some()
    }

    pub(super) fn lost_error(&self) -> Error {
        let (name, token) = (shown(&self.queue_entry.hold_id.name), self.grant.token);
        let message =
            format!("lock {name:?} is not held any more under token {token}; stop its work, or acquire it again");
        Error::new(ErrorKind::Lost, message).at(self.locks.direct.server())
    }

    /// Why work under it was dropped.
    pub(super) fn dropped_error(&self) -> Error {
        if self.signals.lost().is_cancelled() {
            return self.lost_error();
        }
        let (name, token) = (&self.queue_entry.hold_id.name, self.grant.token);
        let message = format!("lock {name:?} could not be vouched for under token {token}: the work was dropped");
        Error::new(ErrorKind::Suspended, message)
    }
}

/// One hold of a lock, shared by the guards of a reentrant one. The last to go gives it back.
pub(crate) struct Hold {
    facts: Arc<Facts>,
    answered: AtomicBool,
}

impl Hold {
    pub(super) fn new(
        locks: Arc<Locks>,
        queue_entry: QueueEntry,
        grant: Grant,
        member: MemberId,
        validity: Arc<Validity>,
        limit: Duration,
    ) -> Self {
        let signals = HoldSignals::new(validity.ended());
        locks.lock_table.hold(queue_entry.clone(), grant.token, signals.clone());
        let facts = Facts { locks, queue_entry, grant, member, validity, limit, signals };
        Self { facts: Arc::new(facts), answered: AtomicBool::new(false) }
    }

    pub(super) fn is_held(&self) -> bool {
        self.facts.is_held()
    }

    pub(super) async fn held(&self) -> bool {
        self.facts.held().await
    }

    /// Gives it back, and says whether it was held until then.
    async fn release(self) -> bool {
        let was_held = self.is_held();
        let uncertain = Arc::new(AtomicBool::new(false));
        let released = self.facts.locks.direct.repeat("release", self.facts.limit, |commands| {
            let (facts, uncertain) = (self.facts.clone(), uncertain.clone());
            async move {
                let answer = commands.release(&facts.queue_entry).await;
                if answer.as_ref().is_err_and(|error| !error.is_unapplied()) {
                    uncertain.store(true, Ordering::Relaxed);
                }
                answer
            }
        });
        match released.await {
            Ok(released) => {
                self.answered.store(true, Ordering::Relaxed);
                was_held && (released || uncertain.load(Ordering::Relaxed))
            }
            // Dropped unanswered, it is given back in the background.
            Err(_) => false,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Facts { locks, queue_entry, member, .. } = &*self.facts;
        locks.lock_table.let_go(queue_entry.hold_id.nonce);
        locks.gates.prune(&queue_entry.hold_id.name, member);
        if !self.answered.load(Ordering::Relaxed) {
            locks.direct.caller().give_back(queue_entry.clone());
        }
    }
}

/// A lock that is held, until it is released, dropped or lost.
///
/// # Held, suspended, lost
/// A guard is **suspended** while the connector cannot vouch for it: the connection of its heartbeats is closed, and
/// the server may take this process for dead after its [`grace`](crate::GroupConnectorBuilder::grace). A suspended
/// guard says no, for another may hold the lock. When the connector is back, the server says whether lease and lock
/// have lived. If they have, the guard is **held** again, under the same token; a restart of the server that is
/// shorter than the ttl, and keeps its data, costs no lock. If they have not, or if the ttl passes first, the guard
/// is **lost**, for good: a guard that was lost never says that it is held.
///
/// Dropped, it is released in the background. It keeps nothing alive: when the last clone of its
/// [`GroupConnector`](crate::GroupConnector) is dropped, or the connector is closed, the lock is given back.
///
/// # When a guard is enough
/// A guard says what this process knows. A process that is frozen between its question [`is_held`](Self::is_held) and
/// its write writes late. To save work, a guard is enough. Where two writers would do harm, let the resource check
/// the [`token`](Self::token), or write through [`fenced`](Self::fenced).
#[must_use = "a lock is released when its guard is dropped"]
pub struct LockGuard {
    hold: Arc<Hold>,
}

impl LockGuard {
    pub(super) fn new(hold: Arc<Hold>) -> Self {
        Self { hold }
    }

    pub(super) fn facts(&self) -> &Arc<Facts> {
        &self.hold.facts
    }

    /// The fencing token: higher than that of every grant before, of this lock and of every other of the group.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.facts().grant.token
    }

    /// The member that holds it.
    #[must_use]
    pub fn member(&self) -> &MemberId {
        &self.facts().member
    }

    /// Since when it is held, by the server's clock.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.facts().grant.since_ms)
    }

    /// Whether the connector vouches for the lock at this moment, by its own clock. No I/O.
    ///
    /// It says no while the guard is suspended, and may say yes again after that, under the same token. Once the
    /// guard is [lost](Self::lost), it never says yes.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold.is_held()
    }

    /// For how long it is vouched for if the server is not heard of again: nothing while it is suspended, or lost. No
    /// I/O.
    #[must_use]
    pub fn valid_for(&self) -> Duration {
        if self.facts().signals.lost().is_cancelled() { Duration::ZERO } else { self.facts().validity.valid_for() }
    }

    /// Waits until the guard is not held: suspended or lost. At once where it is not. It comes before anybody else may
    /// have the lock.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn suspended(&self) {
        self.facts().suspended().await;
    }

    /// Waits until the guard is held, and answers `true`, at once where it is; `false` once it is lost.
    ///
    /// A suspended guard is held again or lost within the ttl.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn held(&self) -> bool {
        self.facts().held().await
    }

    /// Waits until the lock is lost, for good: because the server says that the lease or the lock is gone, or the ttl
    /// has passed without an answer; because an operator broke it; or because the connector was closed.
    ///
    /// While it waits, the guard may be [suspended](Self::suspended), and another may hold the lock already.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lost(&self) {
        self.facts().signals.lost().cancelled().await;
    }

    /// Cancelled as soon as the guard is suspended or lost, to give to the work that the lock protects. It is not
    /// cancelled by a release. After a suspension, ask for another one.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.facts().signals.suspended_or_lost().child_token()
    }

    /// Writes that the server makes only while this guard's token is the holder's.
    pub fn fenced(&self) -> Fenced<'_> {
        Fenced::new(self.facts())
    }

    /// Gives the lock back, and hands it on to the next waiter. Answers whether it was held until now.
    ///
    /// One round trip; none for a guard of a reentrant lock that others still hold. Where the server cannot be reached
    /// in time the answer is `false`, and the lock is given back in the background or ends with the lease.
    ///
    /// # Cancel safety
    /// Once called, the lock is given back even if the future is dropped.
    pub async fn release(self) -> bool {
        let held = self.hold.is_held();
        match Arc::into_inner(self.hold) {
            Some(hold) => hold.release().await,
            None => held,
        }
    }

    /// Leaves the lock held without a guard, for as long as the connector's session lives. Answers the token.
    ///
    /// Only [`break_lock`](crate::Lock::break_lock) or the end of the session frees it.
    #[expect(clippy::must_use_candidate, reason = "the token is the least of what it does")]
    pub fn detach(self) -> FencingToken {
        let token = self.token();
        self.facts().locks.lock_table.detach(self.facts().queue_entry.hold_id.nonce, self.hold.clone());
        token
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", &self.facts().queue_entry.hold_id.name)
            .field("member", &self.facts().member)
            .field("token", &self.token())
            .field("held", &self.is_held())
            .finish()
    }
}
