//! Leaders: the holder of the role's lock leads, and its fencing token is the term.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::cache::{Contents, ContentsChanges};
use crate::data::DataAccess;
use crate::error::Error;
use crate::lock::{Fenced, Lock, LockContext, LockGuard, Locks};
use crate::model::{FencingToken, MemberId};
use crate::proto::{Request, Topic, WatchedValue};
use crate::settings::CallTimeout;
use crate::wire::encode_path;

/// The election of one leader for a role, among all candidates. A clone is the same election.
///
/// Made by [`GroupConnector::elect`](crate::GroupConnector::elect). It is the lock `elections/<role>` with its fair
/// queue: the candidate that has waited longest leads next, a few milliseconds after the leader has resigned or its
/// lease has run out.
///
/// # Examples
/// ```no_run
/// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
/// let election = group.elect("scheduler").as_member("worker-1");
/// election.run_as_leader(|leader| async move {
///     println!("leading in term {}", leader.token());
///     std::future::pending::<()>().await;
/// }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "an election does nothing until one of its calls is awaited"]
pub struct Election {
    data: Arc<DataAccess>,
    lock: Lock,
    /// The lock's name, encoded.
    encoded: String,
}

impl Election {
    pub(crate) fn new(data: Arc<DataAccess>, locks: Arc<Locks>, role: &str, timeout: &CallTimeout) -> Self {
        // An empty role makes a name that is not: it is refused by the lock.
        let name = if role.is_empty() { String::new() } else { format!("elections/{role}") };
        Self { data, encoded: encode_path(&name), lock: Lock::new(locks, &name, timeout) }
    }

    /// Campaigns as this member. Default: the name of this host.
    pub fn as_member(mut self, member: impl AsRef<str>) -> Self {
        self.lock = self.lock.as_member(member);
        self
    }

    /// Lets the work of [`run_as_leader`](Self::run_as_leader) go on while the lead is suspended: as
    /// [`Lock::through_suspension`].
    pub fn through_suspension(mut self) -> Self {
        self.lock = self.lock.through_suspension();
        self
    }

    /// How long a call that waits only for the server may take: as [`Lock::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.lock = self.lock.timeout(timeout);
        self
    }

    /// Waits until this candidate leads, for as long as it takes. One round trip if nobody leads.
    ///
    /// # Errors
    /// As for [`Lock::acquire`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the candidacy is withdrawn in the background.
    pub async fn campaign(&self) -> Result<Leadership, Error> {
        Ok(Leadership { guard: self.lock.acquire().await? })
    }

    /// The leader at this moment. One round trip.
    ///
    /// # Errors
    /// As for [`Lock::holder`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        let holder = self.lock.holder().await?;
        Ok(holder.map(|holder| Leader { member: holder.member, term: holder.token, since: holder.since }))
    }

    /// The candidates that wait, in the order in which they will lead. One round trip.
    ///
    /// # Errors
    /// As for [`Lock::waiters`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn candidates(&self) -> Result<Vec<MemberId>, Error> {
        Ok(self.lock.waiters().await?.into_iter().map(|waiter| waiter.member).collect())
    }

    /// Follows the leader: first the present one, then each change. The server's notifications announce the changes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName) if the role or the member is no name.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// let mut leaders = group.elect("scheduler").watch()?;
    /// while let Some(leader) = leaders.next().await {
    ///     println!("{leader:?} leads");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> Result<LeaderWatch, Error> {
        self.lock.check()?;
        let topic = Topic::Leader(self.encoded.clone());
        self.data.caller().follow(Request::Watch(topic.clone()));
        let path = format!("locks/{}", self.encoded);
        Ok(LeaderWatch { changes: ContentsChanges::new(self.data.watched().clone()), topic, path, last: None })
    }

    /// Campaigns, does the work while this candidate leads, and resigns when the work has ended.
    ///
    /// Where the lead is suspended, the work is dropped where it stands. It begins anew in the same term if the
    /// candidate turns out to lead still, and else in a later one, once the candidate leads again.
    ///
    /// # Errors
    /// As for [`campaign`](Self::campaign).
    ///
    /// # Cancel safety
    /// Dropped, the work is dropped first and the leader resigns after it, in the background.
    pub async fn run_as_leader<F, W>(&self, mut work: F) -> Result<W::Output, Error>
    where
        F: FnMut(LockContext) -> W,
        W: Future,
    {
        loop {
            let leadership = self.campaign().await?;
            while leadership.held().await {
                if let Some(output) = self.lock.work_under(&leadership.guard, &mut work).await {
                    leadership.resign().await;
                    return Ok(output);
                }
            }
            tracing::debug!(term = %leadership.term(), "leadership lost");
        }
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// A leader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The member that leads.
    pub member: MemberId,
    /// The term: higher than all before.
    pub term: FencingToken,
    /// Since when, by the server's clock.
    pub since: SystemTime,
}

/// The lead, until it is resigned, dropped or lost.
///
/// What [`LockGuard`] says of when being held is enough holds for leading as well: let resources check the
/// [`term`](Self::term).
#[must_use = "who drops its leadership resigns"]
#[derive(Debug)]
pub struct Leadership {
    guard: LockGuard,
}

impl Leadership {
    /// The term: a fencing token.
    #[must_use]
    pub fn term(&self) -> FencingToken {
        self.guard.token()
    }

    /// Whether this candidate leads at this moment, by its own clock. No I/O. It says no while the lead is suspended,
    /// and for good once it is lost: see [`LockGuard`].
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.guard.is_held()
    }

    /// For how long it leads if the server is not heard of again. No I/O.
    #[must_use]
    pub fn valid_for(&self) -> Duration {
        self.guard.valid_for()
    }

    /// Waits until the lead is suspended or lost, which comes before anybody else may lead.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn suspended(&self) {
        self.guard.suspended().await;
    }

    /// Waits until this candidate leads, and answers `true`, at once where it does; `false` once the lead is lost.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn held(&self) -> bool {
        self.guard.held().await
    }

    /// Waits until the lead is lost, for good.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lost(&self) {
        self.guard.lost().await;
    }

    /// Cancelled when the lead is suspended or lost.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.guard.cancellation_token()
    }

    /// Writes that the server makes only in this term.
    pub fn fenced(&self) -> Fenced<'_> {
        self.guard.fenced()
    }

    /// Gives the lead to the next candidate; whether it was held until now. One round trip.
    ///
    /// # Cancel safety
    /// Once called, it resigns even if the future is dropped.
    pub async fn resign(self) -> bool {
        self.guard.release().await
    }
}

/// The stream of leaders. Made by [`Election::watch`].
///
/// A leader that comes and goes before the stream is read is not told; the last one always is. It ends when the
/// connector closes.
///
/// # Cancel safety
/// Dropping a future of [`next`](Self::next) loses nothing.
#[must_use = "a stream does nothing unless it is polled"]
pub struct LeaderWatch {
    changes: ContentsChanges,
    topic: Topic,
    path: String,
    /// What was told last.
    last: Option<Option<Leader>>,
}

impl LeaderWatch {
    /// The next leader; `Some(None)` if nobody leads, and `None` once the connector is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Option<Leader>> {
        StreamExt::next(self).await
    }

    fn leader_in(&self, contents: &Contents) -> Option<Option<Leader>> {
        if !contents.covers(&self.topic) {
            return None;
        }
        let Some(WatchedValue::LockRecord(record)) = contents.values.get(&self.path).map(|value| &**value) else {
            return Some(None);
        };
        Some(Some(Leader {
            member: record.member.clone(),
            term: record.token,
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(record.since_ms),
        }))
    }
}

impl Stream for LeaderWatch {
    type Item = Option<Leader>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Option<Leader>>> {
        loop {
            let Some(contents) = ready!(self.changes.poll(cx)) else { return Poll::Ready(None) };
            if let Some(leader) = self.leader_in(&contents)
                && self.last.as_ref() != Some(&leader)
            {
                self.last = Some(leader.clone());
                return Poll::Ready(Some(leader));
            }
        }
    }
}

impl fmt::Debug for LeaderWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderWatch").field("last", &self.last).finish_non_exhaustive()
    }
}
