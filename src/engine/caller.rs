//! The way from a handle to the driver, and back.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Error;
use crate::model::{Incarnation, MemberId, SessionId};
use crate::proto::{Answer, Request, Standing};
use crate::transport::Vouched;
use crate::wire::QueueEntry;

/// A request on its way to the core, with the way back.
pub(crate) struct Call {
    pub(crate) request: Request,
    /// How long it may wait for the server.
    pub(crate) limit: Duration,
    pub(crate) reply: oneshot::Sender<Result<Delivery, Error>>,
}

/// What gives something back. It goes by the one lane without a bound, for it must never have to wait.
pub(crate) enum Release {
    Call(Call),
    Unclaimed(MemberId, Incarnation),
    /// A lock, or a place in its queue, that has no holder here any more.
    QueueEntry(QueueEntry),
    /// The server said that this session's lease is gone.
    LeaseLost(SessionId),
    /// The session may hold a lock that the lock table does not know.
    Audit,
}

/// The way to the driver. It keeps nothing alive.
#[derive(Clone)]
pub(crate) struct Caller {
    calls: mpsc::Sender<Call>,
    releases: mpsc::UnboundedSender<Release>,
}

/// The driver's end of the way.
pub(crate) struct Called {
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) releases: mpsc::UnboundedReceiver<Release>,
    pub(super) give_back: mpsc::UnboundedSender<Release>,
}

/// How many requests may wait for the driver.
const CALLS: usize = 256;

impl Caller {
    pub(crate) fn new() -> (Self, Called) {
        let (calls, called) = mpsc::channel(CALLS);
        let (releases, released) = mpsc::unbounded_channel();
        let give_back = releases.clone();
        (Self { calls, releases }, Called { calls: called, releases: released, give_back })
    }

    /// Asks the driver, which answers every request within its limit.
    pub(crate) async fn call(&self, request: Request, limit: Duration) -> Result<Delivery, Error> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { request, limit, reply }).await.map_err(|_| Error::closed())?;
        answer.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Asks the driver to give something back: asked as soon as it is polled, whatever else waits.
    pub(crate) async fn release(&self, request: Request, limit: Duration) -> Result<Delivery, Error> {
        let (reply, answer) = oneshot::channel();
        self.releases.send(Release::Call(Call { request, limit, reply })).map_err(|_| Error::closed())?;
        answer.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Gives back a lock, or a place in its queue, in the background. Where the driver is gone, so is the lock.
    pub(crate) fn give_back(&self, queue_entry: QueueEntry) {
        let _ = self.releases.send(Release::QueueEntry(queue_entry));
    }

    /// Asks for what needs no answer. It goes by the release lane, since the caller does not wait.
    pub(crate) fn follow(&self, request: Request) {
        let (reply, _) = oneshot::channel();
        let _ = self.releases.send(Release::Call(Call { request, limit: Duration::ZERO, reply }));
    }

    /// Passes on that the server said so.
    pub(crate) fn lease_lost(&self, session: SessionId) {
        let _ = self.releases.send(Release::LeaseLost(session));
    }

    /// Asks for a comparison of what the session holds with what is known here.
    pub(crate) fn audit(&self) {
        let _ = self.releases.send(Release::Audit);
    }

    pub(crate) async fn leave(&self, id: MemberId, limit: Duration) -> Result<bool, Error> {
        Ok(matches!(self.release(Request::Leave(id), limit).await?, Delivery::Done(Answer::Left(true))))
    }
}

/// An answer on its way back.
pub(crate) enum Delivery {
    Joined(Claim),
    Done(Answer),
}

/// A membership that no handle holds yet. Dropped unclaimed, because the caller is gone, it is given back.
pub(crate) struct Claim {
    pub(super) id: MemberId,
    pub(super) incarnation: Incarnation,
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) vouched: Vouched,
    pub(super) give_back: Option<mpsc::UnboundedSender<Release>>,
}

/// A membership that a handle holds.
pub(crate) struct Claimed {
    pub(crate) id: MemberId,
    pub(crate) incarnation: Incarnation,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) vouched: Vouched,
}

impl Claim {
    /// Takes what is claimed: it is no longer given back.
    pub(crate) fn take(mut self) -> Claimed {
        self.give_back = None;
        Claimed {
            id: self.id.clone(),
            incarnation: self.incarnation,
            standing: self.standing.clone(),
            vouched: self.vouched.clone(),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            // Where the driver is gone, so is the membership.
            let _ = give_back.send(Release::Unclaimed(self.id.clone(), self.incarnation));
        }
    }
}
