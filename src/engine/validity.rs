//! A connector's session as the holders of its locks see it: whether it can still be relied on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::SessionId;
use crate::transport::Vouched;

/// The time for which a session could be relied on without a break. Once it has ended it never goes on: where the
/// session turns out to live after all, another tenure begins.
#[derive(Debug)]
pub(crate) struct Validity {
    session: SessionId,
    ended: CancellationToken,
    vouched: Vouched,
}

impl Validity {
    pub(crate) fn new(session: SessionId, vouched: Vouched) -> Arc<Self> {
        Arc::new(Self { session, ended: CancellationToken::new(), vouched })
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    /// Whether the lease is vouched for at this moment. Who has seen it end has ended it for everybody.
    pub(crate) fn is_held(&self) -> bool {
        if !self.ended.is_cancelled() && !self.vouched.holds() {
            self.ended.cancel();
        }
        !self.ended.is_cancelled()
    }

    /// For how long it is vouched for, if nothing more is heard of the server.
    pub(crate) fn valid_for(&self) -> Duration {
        if self.is_held() { self.vouched.rest() } else { Duration::ZERO }
    }

    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Cancelled when it ends.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// The present tenure, if there is one.
pub(crate) type ValidityWatch = watch::Receiver<Option<Arc<Validity>>>;
