//! Data that dies with its owner.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::{DataValue, Watch, check_path, check_value, json};
use crate::cache::WatchedReader;
use crate::engine::Caller;
use crate::engine::Direct;
use crate::error::{Error, ErrorKind};
use crate::model::Revision;
use crate::proto::{Request, Topic, ValueFinding};
use crate::scripts::value::{self, ValueSet, ValueSetAnswer};
use crate::settings::{CallTimeout, OnConflict};
use crate::wire::{decode_path, encode_path};

/// How many values one call reads.
const READ_CHUNK: usize = 500;
/// The pause before it asks for a session again.
const SESSION_PAUSE: Duration = Duration::from_millis(20);

/// What the data of a connector has in common.
pub(crate) struct DataAccess {
    direct: Direct,
    watched: WatchedReader,
    nonces: AtomicU64,
}

impl DataAccess {
    pub(crate) fn new(direct: Direct, watched: WatchedReader) -> Arc<Self> {
        Arc::new(Self { direct, watched, nonces: AtomicU64::new(0) })
    }

    pub(crate) fn direct(&self) -> &Direct {
        &self.direct
    }

    pub(crate) fn caller(&self) -> &Caller {
        self.direct.caller()
    }

    pub(crate) fn watched(&self) -> &WatchedReader {
        &self.watched
    }

    /// The paths of an index that begin with a prefix, in order. One call for every thousand entries of the index.
    pub(super) async fn list(&self, index: &'static str, prefix: &str, limit: Duration) -> Result<Vec<String>, Error> {
        let begins = encode_path(prefix);
        let (mut paths, mut after) = (Vec::new(), None);
        loop {
            let list = value::list(self.direct.scripts(), index, &begins, None, after);
            let Some(part) = self.direct.invoke(limit, &list).await?.part else {
                return Err(Error::unexpected(list.name()).at(self.direct.server()));
            };
            paths.extend(part.entries.into_iter().filter_map(|(path, _)| decode_path(path.as_bytes())));
            after = part.after;
            if after.is_none() {
                paths.sort_unstable();
                return Ok(paths);
            }
        }
    }
}

/// Data of the group that dies with the connector that has set it, at the latest.
///
/// Made by [`GroupConnector::ephemeral`](crate::GroupConnector::ephemeral). A value lives by its connector's lease, as
/// members and locks do: it goes when the connector closes, and when its process dies, freezes or is cut off for longer
/// than its ttl. It is not set again by itself when a lost connector comes back: follow
/// [`GroupConnector::state`](crate::GroupConnector::state), and set it again.
///
/// Paths are names of 1 to 512 bytes; slashes make folders. `redis-cli GET '{group}/ephemerals/<path>'` shows a line
/// about the owner, and the value.
///
/// # Examples
/// ```no_run
/// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
/// let ephemeral = group.ephemeral();
/// ephemeral.set("endpoints/api-1", &("10.0.0.7", 8080)).await?;
/// for (path, value) in ephemeral.get_all("endpoints/").await? {
///     println!("{path}: {:?}", value.json::<(String, u16)>()?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until one of the calls is awaited"]
pub struct Ephemeral {
    data: Arc<DataAccess>,
    on_conflict: OnConflict,
    timeout: CallTimeout,
}

impl Ephemeral {
    pub(crate) fn new(data: Arc<DataAccess>, timeout: CallTimeout) -> Self {
        Self { data, on_conflict: OnConflict::Reject, timeout }
    }

    /// How long each call may take, in place of [the connector's timeout](crate::GroupConnector::timeout); where it
    /// takes several round trips, each of them.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = CallTimeout::given(timeout);
        self
    }

    /// What a set does when another live connector has set the path. Default: it fails.
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.on_conflict = policy;
        self
    }

    /// Sets a value, as JSON. One round trip.
    ///
    /// # Errors
    /// Before any I/O: [`ErrorKind::InvalidName`], [`ErrorKind::InvalidValue`]. [`ErrorKind::Conflict`] if another live
    /// connector has set it and the policy is [`OnConflict::Reject`]; [`ErrorKind::OutOfMemory`],
    /// [`ErrorKind::ForeignValue`], [`ErrorKind::Denied`], [`ErrorKind::Timeout`], [`ErrorKind::Connection`],
    /// [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the value is set or not.
    pub async fn set(&self, path: &str, value: &(impl Serialize + ?Sized)) -> Result<Revision, Error> {
        self.store(path, json(value)?, None).await
    }

    /// Sets a value, as the bytes it is given. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// As for [`set`](Self::set).
    pub async fn set_bytes(&self, path: &str, value: impl Into<Vec<u8>>) -> Result<Revision, Error> {
        self.store(path, value.into(), None).await
    }

    /// Sets a value, as JSON, that expires after so long even if the connector lives on. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set); [`ErrorKind::Config`] if it is less than a millisecond.
    ///
    /// # Cancel safety
    /// As for [`set`](Self::set).
    pub async fn set_for(
        &self,
        path: &str,
        value: &(impl Serialize + ?Sized),
        expiry: Duration,
    ) -> Result<Revision, Error> {
        self.store(path, json(value)?, Some(expiry)).await
    }

    /// Sets a value, as the bytes it is given, that expires after so long even if the connector lives on. One round
    /// trip.
    ///
    /// # Errors
    /// As for [`set_for`](Self::set_for).
    ///
    /// # Cancel safety
    /// As for [`set`](Self::set).
    pub async fn set_bytes_for(
        &self,
        path: &str,
        value: impl Into<Vec<u8>>,
        expiry: Duration,
    ) -> Result<Revision, Error> {
        self.store(path, value.into(), Some(expiry)).await
    }

    async fn store(&self, path: &str, bytes: Vec<u8>, expiry: Option<Duration>) -> Result<Revision, Error> {
        const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        check_path(path)?;
        check_value(&bytes)?;
        if let Some(expiry) = expiry.filter(|expiry| !(Duration::from_millis(1)..=LONGEST).contains(expiry)) {
            let message = format!("the expiry of {path:?} is {expiry:?}: it must be 1ms to {LONGEST:?}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let direct = &self.data.direct;
        let limit = self.timeout.limit()?;
        let is_asked = AtomicBool::new(false);
        let nonce = self.data.nonces.fetch_add(1, Ordering::Relaxed) + 1;
        let (name, path, on_conflict) = (path, encode_path(path), self.on_conflict);
        let storing = async {
            loop {
                let validity = direct.validity(limit).await?;
                let session = validity.session();
                let value = ValueSet { path: &path, session, nonce, expiry, on_conflict, bytes: &bytes };
                let set = value::set(direct.scripts(), value);
                let answer = direct.repeat(set.name(), limit, |commands| {
                    is_asked.store(true, Ordering::Relaxed);
                    commands.invoke(&set)
                });
                match answer.await? {
                    ValueSetAnswer::Stored(revision) => return Ok(revision),
                    ValueSetAnswer::Conflict { owner } => {
                        let message = format!(
                            "{name:?} has been set by another live connector, {owner}; choose another path, wait, or \
                             use OnConflict::TakeOver"
                        );
                        return Err(Error::new(ErrorKind::Conflict, message).at(direct.server()));
                    }
                    ValueSetAnswer::Lost => direct.caller().lease_lost(session.clone()),
                }
                sleep(SESSION_PAUSE).await;
            }
        };
        timeout(limit, storing).await.unwrap_or_else(|_| {
            let message = format!("{name:?} was not known to be set within {limit:?}");
            let error = direct.late(Error::new(ErrorKind::Timeout, message));
            Err(if is_asked.load(Ordering::Relaxed) { error.after_unanswered() } else { error })
        })
    }

    /// The value at that path, parsed from JSON; `None` where there is none. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set), without [`ErrorKind::Conflict`]; [`ErrorKind::InvalidValue`] if it is no `T`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        self.read(path).await?.map(|value| value.json()).transpose()
    }

    /// The value at that path with its revision; `None` where there is none. One round trip.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn read(&self, path: &str) -> Result<Option<DataValue>, Error> {
        check_path(path)?;
        Ok(self.read_all(vec![path.to_owned()]).await?.pop())
    }

    /// Deletes the value at that path, if this connector has set it. Answers whether it has. One round trip.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the value is deleted or not.
    pub async fn del(&self, path: &str) -> Result<bool, Error> {
        check_path(path)?;
        let limit = self.timeout.limit()?;
        let Some(validity) = self.data.direct.present() else {
            return if self.data.direct.is_closed() { Err(Error::closed()) } else { Ok(false) };
        };
        let direct = &self.data.direct;
        let delete = value::delete(direct.scripts(), &encode_path(path), validity.session());
        direct.invoke(limit, &delete).await
    }

    /// The paths that begin with `prefix`, in order; all of them if it is empty. It takes a round trip for every
    /// thousand values of the group.
    ///
    /// A value that has expired, or whose owner has died, at this very moment may still be among them.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.data.list("ephemerals", prefix, self.timeout.limit()?).await
    }

    /// The values whose paths begin with `prefix`. It takes the round trips of [`list`](Self::list), and one more for
    /// every
    /// 500 of these values.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn get_all(&self, prefix: &str) -> Result<BTreeMap<String, DataValue>, Error> {
        let values = self.read_all(self.list(prefix).await?).await?;
        Ok(values.into_iter().map(|value| (value.path.clone(), value)).collect())
    }

    /// Reads the values at these paths, as far as there are any.
    async fn read_all(&self, mut paths: Vec<String>) -> Result<Vec<DataValue>, Error> {
        let (limit, mut values) = (self.timeout.limit()?, Vec::new());
        while !paths.is_empty() {
            let chunk: Vec<_> = paths.drain(..paths.len().min(READ_CHUNK)).collect();
            let wanted = chunk.iter().map(|path| (format!("ephemerals/{}", encode_path(path)), None)).collect();
            let read = value::read(self.data.direct.scripts(), wanted);
            let findings = self.data.direct.invoke(limit, &read).await?.findings;
            for (path, finding) in chunk.into_iter().zip(findings) {
                match finding {
                    ValueFinding::Value(stored) => values.push(DataValue::new(path, stored.bytes, stored.revision)),
                    ValueFinding::Later => paths.push(path),
                    ValueFinding::Foreign => {
                        let message = format!("at {path:?} stands what this library has not set: remove it");
                        return Err(Error::new(ErrorKind::ForeignValue, message).at(self.data.direct.server()));
                    }
                    ValueFinding::Deleted | ValueFinding::Expired | ValueFinding::LockRecord(_) => {}
                }
            }
        }
        Ok(values)
    }

    /// Follows the values whose paths begin with `prefix`, from a snapshot on. Changes are announced by the server's
    /// notifications, like those of the members.
    ///
    /// The first watch of a connector subscribes to the notifications; the snapshot comes as soon as the server has
    /// confirmed that.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] if the prefix is longer than 512 bytes.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// use group_redis::WatchEvent;
    ///
    /// let mut endpoints = group.ephemeral().watch("endpoints/")?;
    /// while let Some(event) = endpoints.next().await {
    ///     match event {
    ///         WatchEvent::Set(value) => println!("{} is at {:?}", value.path(), value.bytes()),
    ///         WatchEvent::Deleted(value) | WatchEvent::Expired(value) => println!("{} is gone", value.path()),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        if !prefix.is_empty() {
            check_path(prefix)?;
        }
        self.data.caller().follow(Request::Watch(Topic::Ephemerals));
        Ok(Watch::new(self.data.watched.clone(), prefix))
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ephemeral").field("on_conflict", &self.on_conflict).finish_non_exhaustive()
    }
}
