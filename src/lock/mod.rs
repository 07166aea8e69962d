//! Locks: held by one holder, or by several that share it; handed on in the order of asking; freed with their
//! holder's lease.
//!
//! Prior art: the fair queue and the hand-over in one script follow the recipe of `ZooKeeper`'s lock, in which each
//! waiter is woken by its predecessor alone
//! (<https://zookeeper.apache.org/doc/current/recipes.html#sc_recipes_Locks>); fencing tokens are those of M. Kleppmann
//! (<https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html>).

mod acquire;
mod election;
mod fenced;
mod gates;
mod guard;
mod named;
mod run;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use acquire::LockRequest;
pub use election::{Election, Leader, LeaderWatch, Leadership};
pub use fenced::Fenced;
use gates::Gates;
use guard::Hold;
pub use guard::LockGuard;
use named::Named;
pub use named::NamedLocks;
pub use run::LockContext;

use crate::cache::LockTable;
use crate::engine::Direct;
use crate::error::{Error, ErrorKind};
use crate::model::{FencingToken, MemberId, check_name};
use crate::scripts::lock;
use crate::settings::{CallTimeout, Config};
use crate::wire::encode_path;

/// How many may read at once.
const READERS: u32 = u32::MAX;

/// What all locks of a connector share.
pub(crate) struct Locks {
    direct: Direct,
    lock_table: Arc<LockTable>,
    gates: Gates,
    named: Named,
    /// After how long a lost grant is found, and how often to ask where none comes.
    reconcile: Duration,
    poll: Duration,
    host: MemberId,
}

impl Locks {
    pub(crate) fn new(direct: Direct, lock_table: Arc<LockTable>, config: &Config) -> Arc<Self> {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let host = MemberId::new(&host).unwrap_or_else(|_| MemberId::known("localhost"));
        let (gates, named) = (Gates::default(), Named::default());
        Arc::new(Self { direct, lock_table, gates, named, reconcile: config.reconcile, poll: config.poll(), host })
    }

    /// How long a waiter waits for a grant before it asks again.
    fn patience(&self) -> Duration {
        if self.lock_table.is_silent() { self.poll } else { self.reconcile }
    }

    /// The locks that are held by name cannot be named any more.
    pub(crate) fn let_go(&self) {
        drop(self.named.clear());
    }
}

/// A lock of the group, by its name. Making one takes no I/O. A clone is the same lock.
///
/// Made by [`GroupConnector::lock`](crate::GroupConnector::lock) and
/// [`GroupConnector::semaphore`](crate::GroupConnector::semaphore).
///
/// - One holder has it at a time; in [`read`](Self::read) mode any number of readers, as a semaphore as many holders
///   as it has permits. All three are one lock of one name: an exclusive hold keeps readers and permits out.
/// - Waiters stand in a queue, first come, first served. The release by the holder before wakes the next one; nobody
///   polls. A waiting writer keeps later readers out.
/// - A holder that dies loses the lock with its lease, and the next waiter has it a few milliseconds later.
/// - It is not [reentrant](Self::reentrant) by default: a holder that asks again is refused, or waits.
///
/// # Examples
/// ```no_run
/// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
/// let guard = group.lock("nightly-report").acquire().await?;
/// assert!(guard.is_held());
/// guard.release().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct Lock {
    locks: Arc<Locks>,
    request: Result<LockRequest, Error>,
    reentrant: bool,
    suspension: Suspension,
}

/// What a suspension of the lock does to the work under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspension {
    Cancels,
    Pauses,
}

impl Lock {
    pub(crate) fn new(locks: Arc<Locks>, name: &str, timeout: &CallTimeout) -> Self {
        let checked = check_name("the lock's name", name).and_then(|()| timeout.limit());
        let request = checked.map(|limit| LockRequest {
            name: encode_path(name).into(),
            member: locks.host.clone(),
            encoded: encode_path(locks.host.as_str()).into(),
            share: None,
            limit,
        });
        Self { locks, request, reentrant: false, suspension: Suspension::Cancels }
    }

    pub(crate) fn semaphore(locks: Arc<Locks>, name: &str, timeout: &CallTimeout, permits: u32) -> Self {
        let mut lock = Self::new(locks, name, timeout);
        lock.request = lock.request.and_then(|request| {
            if permits == 0 {
                let message = format!("semaphore {name:?} has no permits; it must have one at the least");
                return Err(Error::new(ErrorKind::Config, message));
            }
            Ok(LockRequest { share: Some(permits), ..request })
        });
        lock
    }

    /// Holds the lock as this member: to tell the holders of one connector apart. Default: the name of this host.
    pub fn as_member(mut self, member: impl AsRef<str>) -> Self {
        self.request = self.request.and_then(|request| {
            let member = MemberId::new(member)?;
            Ok(LockRequest { encoded: encode_path(member.as_str()).into(), member, ..request })
        });
        self
    }

    /// Lets the same member of the same connector hold the lock several times. Its guards share one hold and one
    /// token, and the lock is given back with the last of them.
    ///
    /// A reentrant hold is exclusive: [`read`](Self::read) has no effect on it.
    pub fn reentrant(mut self) -> Self {
        self.reentrant = true;
        self.request = self.request.map(|request| LockRequest { share: None, ..request });
        self
    }

    /// Holds the lock beside other readers, and not beside a writer.
    pub fn read(mut self) -> Self {
        self.reentrant = false;
        self.request = self.request.map(|request| LockRequest { share: Some(READERS), ..request });
        self
    }

    /// Lets the work of [`run`](Self::run) go on while the lock is suspended; only the loss of the lock drops it.
    /// Another may hold the lock meanwhile: the work has to pause by itself, by [`LockContext::suspended`] and
    /// [`LockContext::held`], or to write only what is [fenced](LockContext::fenced).
    pub fn through_suspension(mut self) -> Self {
        self.suspension = Suspension::Pauses;
        self
    }

    /// How long a call that waits only for the server may take, in place of
    /// [the connector's timeout](crate::GroupConnector::timeout): [`try_acquire`](Self::try_acquire),
    /// [`holders`](Self::holders), [`waiters`](Self::waiters), [`break_lock`](Self::break_lock), and the release and the
    /// fenced writes of its guards. [`acquire`](Self::acquire) waits as long as it takes,
    /// [`acquire_timeout`](Self::acquire_timeout) has its own limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request = self.request.and_then(|request| {
            let limit = CallTimeout::given(timeout).limit()?;
            Ok(LockRequest { limit, ..request })
        });
        self
    }

    /// Holds the lock alone. This is the default.
    pub fn write(mut self) -> Self {
        self.request = self.request.map(|request| LockRequest { share: None, ..request });
        self
    }

    /// What is wrong with its names, if anything is.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.request.as_ref().map(drop).map_err(Clone::clone)
    }

    /// Acquires the lock if it is free and has no waiter; `None` otherwise. One round trip.
    ///
    /// # Errors
    /// Before any I/O: [`ErrorKind::InvalidName`], [`ErrorKind::Config`]. [`ErrorKind::Timeout`] if the server did not
    /// answer in time; [`ErrorKind::OutOfMemory`], [`ErrorKind::ForeignValue`], [`ErrorKind::Denied`];
    /// [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, a lock that it has got is given back in the background.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        let request = self.request.as_ref().map_err(Clone::clone)?;
        if self.reentrant {
            return self.enter(request, async |locks, request| acquire::once(locks, request).await).await;
        }
        Ok(acquire::once(&self.locks, request).await?.map(guard))
    }

    /// Waits until it holds the lock, for as long as it takes, outages of the server included. One round trip if the
    /// lock is free; otherwise one round trip and the wait for the grant.
    ///
    /// # Errors
    /// As for [`try_acquire`](Self::try_acquire), without [`ErrorKind::Timeout`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves the queue, or gives back a lock that it has got, in the background.
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        let request = self.request.as_ref().map_err(Clone::clone)?;
        if !self.reentrant {
            return acquire::patiently(&self.locks, request).await.map(guard);
        }
        let entered =
            self.enter(request, async |locks, request| acquire::patiently(locks, request).await.map(Some)).await?;
        entered.ok_or_else(Error::closed)
    }

    /// Waits until it holds the lock, but no longer than `limit`; `None` if others held it all the time.
    ///
    /// # Errors
    /// As for [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    /// As for [`acquire`](Self::acquire).
    pub async fn acquire_timeout(&self, limit: Duration) -> Result<Option<LockGuard>, Error> {
        let request = self.request.as_ref().map_err(Clone::clone)?;
        if !self.reentrant {
            return Ok(acquire::within(&self.locks, request, limit).await?.map(guard));
        }
        let entering = self.enter(request, async |locks, request| acquire::within(locks, request, limit).await);
        // Others of this process may be at the gate.
        tokio::time::timeout(limit, entering).await.unwrap_or(Ok(None))
    }

    /// Shares the hold that this member has, or acquires one.
    async fn enter(
        &self,
        request: &LockRequest,
        acquire: impl AsyncFnOnce(&Arc<Locks>, &LockRequest) -> Result<Option<Hold>, Error>,
    ) -> Result<Option<LockGuard>, Error> {
        let entrant = self.locks.gates.at(&request.name, &request.member);
        let mut last = entrant.turn().await;
        // A suspended hold is held again or lost: to ask anew before would be to wait behind oneself.
        if let Some(hold) = last.upgrade()
            && hold.held().await
        {
            return Ok(Some(LockGuard::new(hold)));
        }
        let Some(hold) = acquire(&self.locks, request).await? else { return Ok(None) };
        let hold = Arc::new(hold);
        *last = Arc::downgrade(&hold);
        Ok(Some(LockGuard::new(hold)))
    }

    /// The holders of the lock; none if it is free. In read mode and as a semaphore there may be several. One round
    /// trip.
    ///
    /// # Errors
    /// As for [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn holders(&self) -> Result<Vec<LockHolder>, Error> {
        let mut holders: Vec<_> = self.inspect().await?.0;
        holders.sort_unstable_by_key(|holder| holder.token);
        Ok(holders)
    }

    /// The holder that has held the lock longest, often the only one; `None` if it is free. One round trip.
    ///
    /// # Errors
    /// As for [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn holder(&self) -> Result<Option<LockHolder>, Error> {
        Ok(self.holders().await?.into_iter().next())
    }

    /// The waiters for the lock, in the order of the queue. One round trip.
    ///
    /// # Errors
    /// As for [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn waiters(&self) -> Result<Vec<LockWaiter>, Error> {
        Ok(self.inspect().await?.1)
    }

    async fn inspect(&self) -> Result<(Vec<LockHolder>, Vec<LockWaiter>), Error> {
        let request = self.request.as_ref().map_err(Clone::clone)?;
        let inspect = lock::inspect(self.locks.direct.scripts(), &request.name);
        let inspection = self.locks.direct.invoke(request.limit, &inspect).await?;
        let at = |since: Duration| SystemTime::UNIX_EPOCH + since;
        let holders = inspection.holders.into_iter().map(|record| LockHolder {
            since: at(Duration::from_millis(record.since_ms)),
            member: record.member,
            token: record.token,
            session: record.session.to_string(),
        });
        let waiters = inspection.waiters.into_iter().map(|(shares, member, since_us)| LockWaiter {
            since: at(Duration::from_micros(since_us)),
            member,
            shares,
        });
        Ok((holders.collect(), waiters.collect()))
    }

    /// Takes the lock from its holders, for operators. The holders are told that it is lost, and the next waiter gets
    /// it.
    /// Answers from how many holders it was taken. One round trip.
    ///
    /// A holder that it was taken from may still be at work: see [`LockGuard`].
    ///
    /// # Errors
    /// As for [`try_acquire`](Self::try_acquire). After [`ErrorKind::Timeout`] it may be broken or not.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it is broken or not.
    pub async fn break_lock(&self) -> Result<u64, Error> {
        let request = self.request.as_ref().map_err(Clone::clone)?;
        let break_lock = lock::break_lock(self.locks.direct.scripts(), &request.name);
        // Not repeated: what is held after a lost answer may be another's.
        self.locks.direct.invoke_once(request.limit, &break_lock).await
    }
}

fn guard(hold: Hold) -> LockGuard {
    LockGuard::new(Arc::new(hold))
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("request", &self.request)
            .field("reentrant", &self.reentrant)
            .finish_non_exhaustive()
    }
}

/// A holder of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// The member that holds it.
    pub member: MemberId,
    /// The token of this hold.
    pub token: FencingToken,
    /// Since when, by the server's clock.
    pub since: SystemTime,
    /// The connector's session. Its lease, `leases/<session>`, names the host and the process.
    pub session: String,
}

/// A waiter for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockWaiter {
    /// The member that wants it.
    pub member: MemberId,
    /// Since when, by the server's clock.
    pub since: SystemTime,
    /// Whether it wants to share the lock: as a reader, or as one of a semaphore's permits.
    pub shares: bool,
}
