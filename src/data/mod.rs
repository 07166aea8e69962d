//! Data of the group: ephemeral values, which live as long as their owner, and persistent values, which stay.

mod ephemeral;
mod persistent;
mod watch;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use ephemeral::DataAccess;
pub use ephemeral::Ephemeral;
pub use persistent::Persistent;
pub use watch::{Watch, WatchEvent};

use crate::error::{Error, ErrorKind};
use crate::model::{Revision, check_name, from_json, to_json};

/// The most that a value may hold, in bytes: 8 MiB.
pub const MAX_VALUE: usize = 8 * 1024 * 1024;

pub(crate) fn check_path(path: &str) -> Result<(), Error> {
    check_name("the path", path)
}

fn check_value(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > MAX_VALUE {
        let message = format!("the value has {} bytes; it may have {MAX_VALUE}: divide it", bytes.len());
        return Err(Error::new(ErrorKind::InvalidValue, message));
    }
    Ok(())
}

/// A typed value as JSON.
pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    to_json(ErrorKind::InvalidValue, "the value", value).map(String::into_bytes)
}

/// A value of the group, as it was when it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct DataValue {
    path: String,
    bytes: Vec<u8>,
    revision: Revision,
}

impl DataValue {
    pub(crate) fn new(path: String, bytes: Vec<u8>, revision: Revision) -> Self {
        Self { path, bytes, revision }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its bytes, as they were given.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes, to keep.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// When it was set. It rises with every set of the group; 0 where another program has set the value.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Its bytes as a `T`, parsed from JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] if they are no `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        from_json(ErrorKind::InvalidValue, &format!("the value at {:?}", self.path), &self.bytes)
    }
}

impl fmt::Debug for DataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataValue")
            .field("path", &self.path)
            .field("bytes", &self.bytes.len())
            .field("revision", &self.revision)
            .finish()
    }
}
