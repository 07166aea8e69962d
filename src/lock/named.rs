//! Locks by name, without guards, as the Clojure library group-redis has them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Lock, LockGuard, Locks};
use crate::error::Error;
use crate::model::MemberId;
use crate::settings::CallTimeout;

/// The guards of the locks that are held by name.
#[derive(Default)]
pub(crate) struct Named(Mutex<HashMap<String, LockGuard>>);

impl Named {
    fn table(&self) -> MutexGuard<'_, HashMap<String, LockGuard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this member holds the lock of that name.
    fn is_held(&self, name: &str, member: &MemberId) -> bool {
        self.table().get(name).is_some_and(|guard| guard.member() == member && guard.is_held())
    }

    fn put(&self, name: &str, guard: LockGuard) {
        let lost = self.table().insert(name.to_owned(), guard);
        drop(lost);
    }

    /// Takes the guard out, if this member holds the lock.
    fn take(&self, name: &str, member: &MemberId) -> Option<LockGuard> {
        let mut table = self.table();
        if table.get(name)?.member() != member {
            return None;
        }
        table.remove(name)
    }

    pub(super) fn clear(&self) -> Vec<LockGuard> {
        self.table().drain().map(|(_, guard)| guard).collect()
    }
}

/// Locks by name, without guards: any code that has the connector can release what the connector holds.
///
/// Made by [`GroupConnector::locks`](crate::GroupConnector::locks). Every call answers at once and says by a `bool`
/// whether it did what its name says. A hold belongs to this connector: it ends with the connector's lease, and another
/// process of the same name cannot release it.
///
/// Calls without a member hold the lock as the member that is named like this host.
///
/// # Examples
/// ```no_run
/// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
/// let locks = group.locks();
/// assert!(locks.lock("lock1").await?);
/// assert!(!locks.lock("lock1").await?, "not even its holder gets it twice");
/// assert!(!locks.release_as("another-member", "lock1").await?);
/// assert!(locks.release("lock1").await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is locked until one of the calls is awaited"]
pub struct NamedLocks {
    locks: Arc<Locks>,
    timeout: CallTimeout,
}

impl NamedLocks {
    pub(crate) fn new(locks: Arc<Locks>, timeout: CallTimeout) -> Self {
        Self { locks, timeout }
    }

    /// How long each call may take, in place of [the connector's timeout](crate::GroupConnector::timeout). A release
    /// takes the timeout that the lock was taken with.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = CallTimeout::given(timeout);
        self
    }

    /// Takes the lock, if it is free. One round trip.
    ///
    /// # Errors
    /// As for [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, a lock that it has got is given back in the background.
    pub async fn lock(&self, name: &str) -> Result<bool, Error> {
        self.lock_as(self.locks.host.as_str(), name).await
    }

    /// Takes the lock as this member, if it is free. One round trip.
    ///
    /// # Errors
    /// As for [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    /// As for [`lock`](Self::lock).
    pub async fn lock_as(&self, member: &str, name: &str) -> Result<bool, Error> {
        let lock = Lock::new(self.locks.clone(), name, &self.timeout).as_member(member);
        let Some(guard) = lock.try_acquire().await? else { return Ok(false) };
        self.locks.named.put(name, guard);
        Ok(true)
    }

    /// Takes the lock, if no other member holds it. No round trip if this one holds it already, otherwise one.
    ///
    /// The calls are not counted: one release frees the lock.
    ///
    /// # Errors
    /// As for [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    /// As for [`lock`](Self::lock).
    pub async fn reentrant_lock(&self, name: &str) -> Result<bool, Error> {
        self.reentrant_lock_as(self.locks.host.as_str(), name).await
    }

    /// Takes the lock as this member, if no other member holds it. No round trip if this one holds it already,
    /// otherwise one.
    ///
    /// # Errors
    /// As for [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    /// As for [`lock`](Self::lock).
    pub async fn reentrant_lock_as(&self, member: &str, name: &str) -> Result<bool, Error> {
        let member = MemberId::new(member)?;
        Ok(self.locks.named.is_held(name, &member) || self.lock_as(member.as_str(), name).await?)
    }

    /// Releases the lock, if this host's member holds it through this connector. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName).
    ///
    /// # Cancel safety
    /// Once polled, it is given back even if the future is dropped.
    pub async fn release(&self, name: &str) -> Result<bool, Error> {
        self.release_as(self.locks.host.as_str(), name).await
    }

    /// Releases the lock, if this member holds it through this connector. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName).
    ///
    /// # Cancel safety
    /// Once polled, it is given back even if the future is dropped.
    pub async fn release_as(&self, member: &str, name: &str) -> Result<bool, Error> {
        let guard = self.locks.named.take(name, &MemberId::new(member)?);
        Ok(match guard {
            Some(guard) => guard.release().await,
            None => false,
        })
    }
}

impl fmt::Debug for NamedLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held: Vec<_> = self.locks.named.table().keys().cloned().collect();
        f.debug_struct("NamedLocks").field("held", &held).finish()
    }
}
