//! How a lock is acquired: the attempt is decided in the core, and done here, in the caller's task.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{sleep, timeout};

use super::Locks;
use super::guard::Hold;
use crate::clock::{self, sleep_until};
use crate::engine::Tenure;
use crate::error::{Error, ErrorKind};
use crate::model::MemberId;
use crate::mutant;
use crate::proto::{Acquisition, Step};
use crate::wire::{Bid, Grant, Grip};

/// The pause before a session is sought again.
const SESSION_PAUSE: Duration = Duration::from_millis(20);

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// The lock's name, encoded.
    pub(super) name: Arc<str>,
    pub(super) member: MemberId,
    /// The member, encoded.
    pub(super) encoded: Arc<str>,
    /// How many may hold it beside each other, where any may.
    pub(super) share: Option<u32>,
}

/// One place in a queue, or on the way to it. Dropped before it has become a hold, it is given back.
struct Attempt {
    locks: Arc<Locks>,
    tenure: Arc<Tenure>,
    bid: Option<Bid>,
    nonce: u64,
    /// Where the grant will come, as long as none has.
    granted: Option<oneshot::Receiver<Grant>>,
    asked: bool,
}

impl Attempt {
    fn new(locks: Arc<Locks>, tenure: Arc<Tenure>, wish: &Wish) -> Self {
        let (nonce, granted) = locks.holds.expect();
        let (session, shared) = (tenure.session().clone(), wish.share.is_some());
        let grip = Grip { session, nonce, name: wish.name.clone(), shared };
        let bid = Bid { grip, most: wish.share.unwrap_or(1), member: wish.encoded.clone() };
        Self { locks, tenure, bid: Some(bid), nonce, granted: Some(granted), asked: false }
    }

    /// The same place under another tenure of the same session.
    fn under(mut self, tenure: Arc<Tenure>) -> Option<Self> {
        if self.bid.as_ref()?.grip.session != *tenure.session() {
            return None;
        }
        self.granted = Some(self.locks.holds.expect_again(self.nonce));
        self.tenure = tenure;
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

    /// Whether a grant has come that nobody has looked at. It is put aside, and the next is waited for.
    fn puts_letter_aside(&mut self) -> bool {
        let has_come = |granted: &mut oneshot::Receiver<_>| !matches!(granted.try_recv(), Err(TryRecvError::Empty));
        let has_come = self.granted.as_mut().is_some_and(has_come);
        if has_come {
            self.granted = Some(self.locks.holds.expect_again(self.nonce));
        }
        has_come
    }

    fn hold(mut self, grant: Grant, member: &MemberId) -> Option<Hold> {
        let (locks, tenure) = (self.locks.clone(), self.tenure.clone());
        // Who holds it stands in no queue.
        self.bid.take().map(|bid| Hold::new(locks, Bid::from(bid.grip), grant, member.clone(), tenure))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(bid) = self.bid.take() else { return };
        if self.asked {
            self.locks.direct.caller().give_back(bid);
        }
        self.locks.holds.forget(self.nonce);
    }
}

/// Asks once, within the time of a request. `None`: somebody else holds it, or was first.
pub(super) async fn once(locks: &Arc<Locks>, wish: &Wish) -> Result<Option<Hold>, Error> {
    let limit = locks.direct.limit();
    match timeout(limit, pursue(locks, wish, false, &mut false)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(unanswered(limit)),
    }
}

/// Waits for as long as it takes.
pub(super) async fn patiently(locks: &Arc<Locks>, wish: &Wish) -> Result<Hold, Error> {
    pursue(locks, wish, true, &mut false).await?.ok_or_else(|| {
        Error::uncertain(
            ErrorKind::Server,
            "who waits for a lock was told that it is busy; is another version at work?",
        )
    })
}

/// Waits for so long. `None`: somebody else was first, all the time.
pub(super) async fn within(locks: &Arc<Locks>, wish: &Wish, limit: Duration) -> Result<Option<Hold>, Error> {
    let mut contended = false;
    match timeout(limit, pursue(locks, wish, true, &mut contended)).await {
        Ok(outcome) => outcome,
        Err(_) if contended => Ok(None),
        Err(_) => Err(unanswered(limit)),
    }
}

fn unanswered(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("the server did not answer within {limit:?} whether the lock is free"))
}

/// The way from the wish to the hold, through as many links and sessions as it takes.
async fn pursue(locks: &Arc<Locks>, wish: &Wish, queues: bool, contended: &mut bool) -> Result<Option<Hold>, Error> {
    let mut place: Option<Attempt> = None;
    loop {
        let tenure = match locks.direct.tenure().await {
            Ok(tenure) => tenure,
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "no session yet");
                sleep(SESSION_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        // Whose session was only in doubt keeps its place, and asks again: an answer from before does not count.
        let kept = place.take().and_then(|attempt| attempt.under(tenure.clone()));
        let mut attempt = kept.unwrap_or_else(|| Attempt::new(locks.clone(), tenure.clone(), wish));
        let mut acquisition = Acquisition::new(locks.patience());
        loop {
            match acquisition.step() {
                Step::Ask => {
                    let commands = locks.direct.commands().await?;
                    let Some(bid) = &attempt.bid else { return Ok(None) };
                    attempt.asked = true;
                    acquisition.replied(clock::now(), commands.acquire(bid, queues).await);
                    *contended |= acquisition.is_contended();
                    if matches!(acquisition.step(), Step::Wait(_)) && attempt.puts_letter_aside() {
                        // Older or younger than the answer, nobody knows: an operator may have broken the lock since.
                        acquisition.waited();
                    }
                }
                Step::Wait(until) => {
                    let mut links = locks.direct.links();
                    tokio::select! {
                        grant = attempt.granted() => acquisition.granted(grant),
                        () = tenure.ended().cancelled() => acquisition.session_ended(),
                        _ = links.changed() => acquisition.waited(),
                        () = sleep_until(until) => acquisition.waited(),
                    }
                }
                Step::Held(grant) if mutant::is("grant_unchecked") => {
                    while let Err(error) = locks.direct.tenure().await.map(|tenure| attempt.tenure = tenure) {
                        tracing::debug!(%error, "no session yet");
                        sleep(SESSION_PAUSE).await;
                    }
                    return Ok(attempt.hold(grant, &wish.member));
                }
                Step::Held(grant) if tenure.is_held() => return Ok(attempt.hold(grant, &wish.member)),
                Step::Held(_) | Step::Ended => {
                    place = Some(attempt);
                    break;
                }
                Step::Restart => {
                    locks.direct.caller().lease_lost(tenure.session().clone());
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
