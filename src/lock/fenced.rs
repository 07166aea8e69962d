//! Writes that only the holder of a lock can make: the server compares the token in the script that writes.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::guard::Facts;
#[cfg(doc)]
use crate::ErrorKind;
use crate::data::{check_path, json};
use crate::error::Error;
use crate::model::Revision;
use crate::scripts::lock::{self, FencedScript, FencedWrite};
use crate::transport::FromRedisValue;
use crate::wire::encode_path;

/// Writes to the group's [persistent data](crate::Persistent) that the server makes only while this guard's token is
/// the holder's, and its lease lives. One script checks and writes, in one round trip.
///
/// This is fencing, built in. For another resource, compare the [`token`](crate::LockGuard::token) there.
#[derive(Clone, Copy)]
#[must_use = "nothing is written until one of the calls is awaited"]
pub struct Fenced<'a> {
    facts: &'a Arc<Facts>,
}

impl<'a> Fenced<'a> {
    pub(super) fn new(facts: &'a Arc<Facts>) -> Self {
        Self { facts }
    }

    /// Sets a value, as JSON. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] if the lock is not held under this token any more: nothing was written.
    /// [`ErrorKind::InvalidName`], [`ErrorKind::InvalidValue`] before any I/O. After [`ErrorKind::Timeout`] and
    /// [`ErrorKind::Connection`] the value may be written or not; to repeat the call is safe as long as it is not
    /// refused.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the value is written or not.
    pub async fn set(&self, path: &str, value: &(impl Serialize + ?Sized)) -> Result<Revision, Error> {
        self.set_bytes(path, json(value)?).await
    }

    /// Sets a value, as the bytes it is given. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// As for [`set`](Self::set).
    pub async fn set_bytes(&self, path: &str, value: impl Into<Vec<u8>>) -> Result<Revision, Error> {
        let set = |written| if let FencedWrite::Set(revision) = written { Some(revision) } else { None };
        self.write(path, Some(value.into()), set).await
    }

    /// Deletes a value. Answers whether there was one. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the value is deleted or not.
    pub async fn del(&self, path: &str) -> Result<bool, Error> {
        let deleted = |written| if let FencedWrite::Deleted(deleted) = written { Some(deleted) } else { None };
        self.write(path, None, deleted).await
    }

    async fn write<T>(
        &self,
        path: &str,
        value: Option<Vec<u8>>,
        written: impl Fn(FencedWrite) -> Option<T>,
    ) -> Result<T, Error> {
        check_path(path)?;
        let (direct, hold_id) = (&self.facts.locks.direct, &self.facts.queue_entry.hold_id);
        let write = lock::fenced_write(direct.scripts(), hold_id, &encode_path(path), value.as_deref());
        let answer = self.unless_lost(direct.invoke_once(self.facts.limit, &write).await?)?;
        written(answer).ok_or_else(|| Error::unexpected(write.name()).at(direct.server()))
    }

    /// Runs a Lua script on values of the group. `KEYS` are the keys of these paths of the persistent data, and
    /// `ARGV` are these arguments. One round trip, or two if the server does not know the script yet.
    ///
    /// [`Persistent::list`](crate::Persistent::list) does not list a value that a script has made, and the value has no
    /// revision: set it once before.
    ///
    /// # Errors
    /// As for [`set`](Self::set); [`ErrorKind::Server`] if the script fails, or its answer is no `T`.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the script is run or not.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(guard: group_redis::LockGuard) -> Result<(), group_redis::Error> {
    /// let count: u64 = guard.fenced().eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", &["runs"], &["2"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn eval<T: FromRedisValue>(&self, script: &str, paths: &[&str], args: &[&str]) -> Result<T, Error> {
        paths.iter().try_for_each(|path| check_path(path))?;
        let paths: Vec<_> = paths.iter().map(|path| encode_path(path)).collect();
        let (direct, hold_id) = (&self.facts.locks.direct, &self.facts.queue_entry.hold_id);
        let script = FencedScript::new(script);
        let run = lock::fenced_script(direct.scripts(), &script, hold_id, &paths, args);
        let answer = self.unless_lost(direct.invoke_once(self.facts.limit, &run).await?)?;
        answer.read().map_err(|error| error.at(direct.server()))
    }

    fn unless_lost<T>(&self, answer: Option<T>) -> Result<T, Error> {
        answer.ok_or_else(|| self.facts.lost_error())
    }
}

impl fmt::Debug for Fenced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fenced").field("token", &self.facts.grant.token).finish_non_exhaustive()
    }
}
