//! Data of the group: what lives as long as its owner, and what stays.

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::wire::check_name;

/// The most that a value may hold, in bytes: 8 MiB.
pub const MAX_VALUE: usize = 8 * 1024 * 1024;

pub(crate) fn check_path(path: &str) -> Result<(), Error> {
    check_name("the path", path)
}

/// A typed value as JSON.
pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::caused_by(ErrorKind::InvalidValue, "the value does not convert to JSON", error))
}
