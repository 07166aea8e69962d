//! How a lock is acquired: the attempt is decided in the core, and done here, in the caller's task.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::Locks;
use super::guard::Hold;
use crate::clock::{self, sleep_until};
use crate::engine::Validity;
use crate::error::{Error, ErrorKind};
use crate::model::MemberId;
use crate::mutant;
use crate::proto::{Acquisition, Step};
use crate::wire::{Grant, HoldId, QueueEntry};

/// The pause before a session is sought again.
const SESSION_PAUSE: Duration = Duration::from_millis(20);

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) struct LockRequest {
    /// The lock's name, encoded.
    pub(super) name: Arc<str>,
    pub(super) member: MemberId,
    /// The member, encoded.
    pub(super) encoded: Arc<str>,
    /// How many may hold it beside each other, where any may.
    pub(super) share: Option<u32>,
    /// How long a call may take that waits only for the server.
    pub(super) limit: Duration,
}

/// How far an acquisition has come.
#[derive(Default)]
struct Progress {
    /// The server was asked, and may have done it.
    is_asked: bool,
    /// It has said that another was first.
    is_contended: bool,
}

/// One place in a queue, or on the way to it. Dropped before it has become a hold, it is given back.
struct Attempt {
    locks: Arc<Locks>,
    validity: Arc<Validity>,
    queue_entry: Option<QueueEntry>,
    nonce: u64,
    /// Where the grant will come, as long as none has.
    granted: Option<oneshot::Receiver<Grant>>,
    asked: bool,
}

impl Attempt {
    fn new(locks: Arc<Locks>, validity: Arc<Validity>, request: &LockRequest) -> Self {
        let (nonce, granted) = locks.lock_table.expect();
        let (session, shared) = (validity.session().clone(), request.share.is_some());
        let hold_id = HoldId { session, nonce, name: request.name.clone(), shared };
        let queue_entry = QueueEntry { hold_id, most: request.share.unwrap_or(1), member: request.encoded.clone() };
        Self { locks, validity, queue_entry: Some(queue_entry), nonce, granted: Some(granted), asked: false }
    }

    /// The same place under another validity of the same session.
    fn under(mut self, validity: Arc<Validity>) -> Option<Self> {
        if self.queue_entry.as_ref()?.hold_id.session != *validity.session() {
            return None;
        }
        self.granted = Some(self.locks.lock_table.expect_again(self.nonce));
        self.validity = validity;
        Some(self)
    }

    /// The grant, when it comes; it comes once.
    async fn granted(&mut self) -> Grant {
        if let Some(granted) = &mut self.granted {
            let grant = granted.await;
            self.granted = None;
            if let Ok(grant) = grant {
                return grant;
            }
        }
        pending().await
    }

    /// Whether a grant has come that was not taken yet. It is dropped, and the next one is waited for.
    fn puts_message_aside(&mut self) -> bool {
        let has_come = |granted: &mut oneshot::Receiver<_>| !matches!(granted.try_recv(), Err(TryRecvError::Empty));
        let has_come = self.granted.as_mut().is_some_and(has_come);
        if has_come {
            self.granted = Some(self.locks.lock_table.expect_again(self.nonce));
        }
        has_come
    }

    fn hold(mut self, grant: Grant, request: &LockRequest) -> Option<Hold> {
        let (locks, validity) = (self.locks.clone(), self.validity.clone());
        // A holder stands in no queue.
        self.queue_entry.take().map(|queue_entry| {
            Hold::new(
                locks,
                QueueEntry::from(queue_entry.hold_id),
                grant,
                request.member.clone(),
                validity,
                request.limit,
            )
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(queue_entry) = self.queue_entry.take() else { return };
        if self.asked {
            self.locks.direct.caller().give_back(queue_entry);
        }
        self.locks.lock_table.forget(self.nonce);
    }
}

/// Asks once, within the time of a request. `None`: another holds it, or was first.
pub(super) async fn once(locks: &Arc<Locks>, request: &LockRequest) -> Result<Option<Hold>, Error> {
    let mut progress = Progress::default();
    match timeout(request.limit, pursue(locks, request, false, &mut progress).instrument(span(request))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(unanswered(locks, request.limit, &progress)),
    }
}

/// Waits for as long as it takes.
pub(super) async fn patiently(locks: &Arc<Locks>, request: &LockRequest) -> Result<Hold, Error> {
    pursue(locks, request, true, &mut Progress::default())
        .instrument(span(request))
        .await?
        .ok_or_else(|| Error::unexpected("waiting for a lock").at(locks.direct.server()))
}

/// Waits for so long. `None`: another was first, all the time.
pub(super) async fn within(locks: &Arc<Locks>, request: &LockRequest, limit: Duration) -> Result<Option<Hold>, Error> {
    let mut progress = Progress::default();
    match timeout(limit, pursue(locks, request, true, &mut progress).instrument(span(request))).await {
        Ok(outcome) => outcome,
        Err(_) if progress.is_contended => Ok(None),
        Err(_) => Err(unanswered(locks, limit, &progress)),
    }
}

fn unanswered(locks: &Locks, limit: Duration, progress: &Progress) -> Error {
    let message = format!("the server did not answer within {limit:?} whether the lock is free");
    let error = locks.direct.late(Error::new(ErrorKind::Timeout, message));
    if progress.is_asked { error.after_unanswered() } else { error }
}

fn span(request: &LockRequest) -> tracing::Span {
    tracing::debug_span!("group_redis_acquire", lock = %request.name, member = %request.member)
}

/// The way from the request to the hold, through as many links and sessions as it takes.
async fn pursue(
    locks: &Arc<Locks>,
    request: &LockRequest,
    queues: bool,
    progress: &mut Progress,
) -> Result<Option<Hold>, Error> {
    let mut place: Option<Attempt> = None;
    loop {
        let validity = match locks.direct.validity(request.limit).await {
            Ok(validity) => validity,
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "no session yet");
                sleep(SESSION_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        // A waiter whose session was only in doubt keeps its place, and asks again: an answer from before does not
        // count.
        let kept = place.take().and_then(|attempt| attempt.under(validity.clone()));
        let mut attempt = kept.unwrap_or_else(|| Attempt::new(locks.clone(), validity.clone(), request));
        let mut acquisition = Acquisition::new(locks.patience());
        let mut asked_over = None;
        loop {
            match acquisition.step() {
                Step::Ask => {
                    let commands = locks.direct.commands().await?;
                    let Some(queue_entry) = &attempt.queue_entry else { return Ok(None) };
                    (attempt.asked, progress.is_asked) = (true, true);
                    acquisition.replied(clock::now(), commands.acquire(queue_entry, queues).await);
                    asked_over = Some(commands);
                    progress.is_contended |= acquisition.is_contended();
                    if matches!(acquisition.step(), Step::Wait(_)) && attempt.puts_message_aside() {
                        // It may be older or younger than the answer: an operator may have broken the lock since.
                        acquisition.waited();
                    }
                }
                Step::Wait(until) => {
                    let mut links = locks.direct.links();
                    tokio::select! {
                        grant = attempt.granted() => acquisition.granted(grant),
                        () = validity.ended().cancelled() => acquisition.session_ended(),
                        _ = links.changed() => acquisition.waited(),
                        () = sleep_until(until) => acquisition.waited(),
                    }
                }
                Step::Held(grant) if mutant::is("grant_unchecked") => {
                    while let Err(error) =
                        locks.direct.validity(request.limit).await.map(|validity| attempt.validity = validity)
                    {
                        tracing::debug!(%error, "no session yet");
                        sleep(SESSION_PAUSE).await;
                    }
                    return Ok(attempt.hold(grant, request));
                }
                Step::Held(grant) if validity.is_held() => {
                    // Where the link has changed since, it is asked again.
                    let acknowledged = locks.direct.acknowledged(asked_over.take(), "the grant of the lock").await;
                    match acknowledged {
                        Ok(()) if validity.is_held() => return Ok(attempt.hold(grant, request)),
                        Err(error) if !error.is_of_the_link() => return Err(error),
                        _ => sleep(SESSION_PAUSE).await,
                    }
                    place = Some(attempt);
                    break;
                }
                Step::Held(_) | Step::Ended => {
                    place = Some(attempt);
                    break;
                }
                Step::Restart => {
                    locks.direct.caller().lease_lost(validity.session().clone());
                    drop(attempt);
                    sleep(SESSION_PAUSE).await;
                    break;
                }
                Step::Busy => return Ok(None),
                Step::Failed(error) => return Err(error),
            }
        }
    }
}
