//! Persistent data: values that stay.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ephemeral::DataAccess;
use super::{DataValue, check_path, check_value, json};
#[cfg(doc)]
use crate::ErrorKind;
use crate::error::Error;
use crate::model::Revision;
use crate::scripts::persistent;
use crate::settings::CallTimeout;
use crate::wire::encode_path;

/// Data of the group that stays when the last connector has gone.
///
/// Made by [`GroupConnector::persistent`](crate::GroupConnector::persistent). The bytes stand as they are under
/// `{group}/persistent/<path>`, for any program to read; the index `{group}/persistent` holds the revision of each.
/// A value that another program sets there can be read here too. It is not listed, and has the revision 0.
///
/// No write is repeated by itself. If the answer of a write is lost, [`Error::is_unapplied`] is `false`, and you decide
/// whether to write again.
///
/// # Examples
/// ```no_run
/// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
/// let settings = group.persistent();
/// let seen = settings.read("limits/burst").await?;
/// let burst = seen.as_ref().map_or(Ok(10), |value| value.json::<u32>())?;
/// let expected = seen.map(|value| value.revision());
/// if settings.compare_and_set("limits/burst", expected, &(burst + 1)).await?.is_none() {
///     println!("another writer was faster: read it again");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until one of the calls is awaited"]
pub struct Persistent {
    data: Arc<DataAccess>,
    timeout: CallTimeout,
}

impl Persistent {
    pub(crate) fn new(data: Arc<DataAccess>, timeout: CallTimeout) -> Self {
        Self { data, timeout }
    }

    /// How long each call may take, in place of [the connector's timeout](crate::GroupConnector::timeout). A write waits
    /// so long for a link and for the one answer; a read may be sent again.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = CallTimeout::given(timeout);
        self
    }

    /// Sets a value, as JSON. One round trip.
    ///
    /// # Errors
    /// Before any I/O: [`ErrorKind::InvalidName`], [`ErrorKind::InvalidValue`]. [`ErrorKind::OutOfMemory`],
    /// [`ErrorKind::Denied`], [`ErrorKind::ForeignValue`] if the index is not one; after [`ErrorKind::Timeout`] and
    /// [`ErrorKind::Connection`] it is not known whether the value is set, unless [`Error::is_unapplied`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the value is set or not.
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
        let revisions = self.set_many_bytes([(path, value)]).await?;
        revisions.first().copied().ok_or_else(|| Error::unexpected("a set of persistent values"))
    }

    /// Sets values, as JSON: all or none, in the order given. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, all are set or none.
    pub async fn set_many<P: AsRef<str>, T: Serialize>(
        &self,
        values: impl IntoIterator<Item = (P, T)>,
    ) -> Result<Vec<Revision>, Error> {
        let converted = values.into_iter().map(|(path, value)| Ok((path, json(&value)?)));
        self.set_many_bytes(converted.collect::<Result<Vec<_>, Error>>()?).await
    }

    /// Sets values, as the bytes they are given: all or none, in the order given. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, all are set or none.
    pub async fn set_many_bytes<P: AsRef<str>, B: Into<Vec<u8>>>(
        &self,
        values: impl IntoIterator<Item = (P, B)>,
    ) -> Result<Vec<Revision>, Error> {
        let checked = values.into_iter().map(|(path, value)| {
            let value = value.into();
            check_path(path.as_ref())?;
            check_value(&value)?;
            Ok((encode_path(path.as_ref()), value))
        });
        let values: Vec<_> = checked.collect::<Result<_, Error>>()?;
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let direct = self.data.direct();
        direct.write_once(self.timeout.limit()?, &persistent::set(direct.scripts(), &values), |_| true).await
    }

    /// Sets a value, as JSON, if its revision is the expected one, or, with `None`, if there is no value. Answers the
    /// new revision, or `None` if the value had another revision. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// As for [`set`](Self::set).
    pub async fn compare_and_set(
        &self,
        path: &str,
        expected: Option<Revision>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Option<Revision>, Error> {
        self.compare_and_set_bytes(path, expected, json(value)?).await
    }

    /// The same with the bytes as they are given. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// As for [`set`](Self::set).
    pub async fn compare_and_set_bytes(
        &self,
        path: &str,
        expected: Option<Revision>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Option<Revision>, Error> {
        let value = value.into();
        check_path(path)?;
        check_value(&value)?;
        let direct = self.data.direct();
        let exchange = persistent::exchange(direct.scripts(), &encode_path(path), expected, &value);
        direct.write_once(self.timeout.limit()?, &exchange, Option::is_some).await
    }

    /// The value at that path, parsed from JSON; `None` where there is none. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set); [`ErrorKind::InvalidValue`] if it is no `T`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        self.read(path).await?.map(|value| value.json()).transpose()
    }

    /// The value at that path with its revision; `None` where there is none. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn read(&self, path: &str) -> Result<Option<DataValue>, Error> {
        check_path(path)?;
        let direct = self.data.direct();
        let get = persistent::get(direct.scripts(), &encode_path(path));
        let found = direct.invoke(self.timeout.limit()?, &get).await?;
        Ok(found.map(|(bytes, revision)| DataValue::new(path.to_owned(), bytes, revision)))
    }

    /// Deletes the value at that path. Answers whether there was one. One round trip.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the value is deleted or not.
    pub async fn del(&self, path: &str) -> Result<bool, Error> {
        check_path(path)?;
        let direct = self.data.direct();
        let delete = persistent::delete(direct.scripts(), &encode_path(path));
        direct.write_once(self.timeout.limit()?, &delete, |was_there| *was_there).await
    }

    /// The paths that begin with `prefix`, in order; all of them if it is empty. It takes a round trip for every
    /// thousand values of the group.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.data.list("persistent", prefix, self.timeout.limit()?).await
    }
}

impl fmt::Debug for Persistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persistent").finish_non_exhaustive()
    }
}
