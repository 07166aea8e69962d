//! A connector's session as the holders of its locks see it: whether it can be relied on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::model::SessionId;
use crate::mutant;
use crate::proto::Moment;
use crate::transport::Vouched;

/// Whether what is held under a session can be relied on. It may be suspended, and be valid again once the server has
/// said that the lease lived. Once it has ended it never goes on: a lease that lives after all has another validity.
#[derive(Debug)]
pub(crate) struct Validity {
    session: SessionId,
    ended: CancellationToken,
    is_suspended: watch::Sender<bool>,
    vouched: Vouched,
}

impl Validity {
    pub(crate) fn new(session: SessionId, vouched: Vouched) -> Arc<Self> {
        Arc::new(Self { session, ended: CancellationToken::new(), is_suspended: watch::Sender::new(false), vouched })
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    /// Whether the lease is vouched for at this moment. A guard that sees it end suspends it for all guards.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held_at(clock::now())
    }

    pub(super) fn is_held_at(&self, now: Moment) -> bool {
        if !self.vouched.holds_at(now) {
            self.suspend();
        }
        let is_suspended = *self.is_suspended.borrow() && !mutant::is("suspended_says_yes");
        !self.ended.is_cancelled() && !is_suspended && self.vouched.is_attended_at(now)
    }

    /// For how long it is vouched for, if nothing more is heard of the server.
    pub(crate) fn valid_for(&self) -> Duration {
        if self.is_held() { self.vouched.rest() } else { Duration::ZERO }
    }

    pub(crate) fn suspend(&self) {
        self.is_suspended.send_if_modified(|is_suspended| !std::mem::replace(is_suspended, true));
    }

    pub(crate) fn resume(&self) {
        self.is_suspended.send_if_modified(std::mem::take);
    }

    /// Ends it for good.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Cancelled when it ends.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Waits until it is suspended: at once where it is.
    ///
    /// Cancel safe.
    pub(crate) async fn suspended(&self) {
        self.until(true).await;
    }

    /// Waits until it is not suspended, and this process has looked what became of its connection: at once where that
    /// is so.
    ///
    /// Cancel safe.
    pub(crate) async fn resumed(&self) {
        self.until(false).await;
        self.vouched.attended().await;
    }

    async fn until(&self, wanted: bool) {
        // The sender is ours: it cannot be gone.
        let _ = self.is_suspended.subscribe().wait_for(|is_suspended| *is_suspended == wanted).await;
    }
}

/// The present validity, if there is one.
pub(crate) type ValidityWatch = watch::Receiver<Option<Arc<Validity>>>;
