//! A member and the values it is made of.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::json::from_json;
use super::name::check_name;
use crate::error::{Error, ErrorKind};

/// The most that a member's metadata may hold, in bytes: 1 MiB.
pub const MAX_METADATA: usize = 1024 * 1024;

/// The name of a member, unique in its group: 1 to 512 bytes of any text.
///
/// Where the crate takes a name it takes a `&str` or a `String` too.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(Arc<str>);

impl MemberId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] if it is empty or longer than 512 bytes.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
        check_name("the member's name", name.as_ref())?;
        Ok(Self(name.as_ref().into()))
    }

    /// A name that is known to be valid.
    pub(crate) fn known(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for MemberId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for MemberId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for MemberId {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for MemberId {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// What a member tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberDraft {
    pub(crate) tags: BTreeSet<String>,
    pub(crate) metadata: Metadata,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            pub(crate) const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One life of a member: the revision at which it joined.
    ///
    /// A member that comes back after a crash, a freeze or a leave has a higher incarnation, so it also serves as
    /// a fencing token: a member that is gone cannot write to a resource that refuses incarnations lower than it has
    /// seen. Lower is senior.
    Incarnation
}

number! {
    /// A state of the group: every change of the membership takes a higher one, across restarts and `FLUSHALL`.
    ///
    /// It is `max(previous + 1, the server's time in microseconds)`.
    Revision
}

number! {
    /// The number that a lock's holder shows to a resource. Every grant of the group has a higher one, across release,
    /// expiry, restarts and `FLUSHALL`.
    ///
    /// A holder that has lost its lock without knowing cannot write to a resource that remembers the highest token it
    /// has seen and refuses lower ones. The token is a [`Revision`] of the group.
    FencingToken
}

/// A connector's session in a group, which holds the lease.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(Arc<str>);

impl SessionId {
    pub(crate) fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }

    /// The stand-in for a member that another program keeps: its key is its own lease.
    pub(crate) fn adopted() -> Self {
        Self::new("~")
    }

    pub(crate) fn is_adopted(&self) -> bool {
        &*self.0 == "~"
    }

    /// Whether another connector has it: neither this one, in an earlier or a later session, nor another program.
    pub(crate) fn is_of_another(&self, connector: &str) -> bool {
        !self.is_adopted() && self.0.rsplit_once('-').is_none_or(|(its, _)| its != connector)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a member carries besides its name.
#[derive(Clone, Debug, Default)]
pub(crate) enum Metadata {
    #[default]
    None,
    Text(Box<str>),
    Json(Box<RawValue>),
}

impl Metadata {
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Text(text) => Some(text),
            Self::Json(json) => Some(json.get()),
        }
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.as_str() == other.as_str()
    }
}

impl Eq for Metadata {}

/// A member of the group, as it was at some revision.
#[derive(Clone, PartialEq)]
pub struct Member {
    id: MemberId,
    incarnation: Incarnation,
    revision: Revision,
    session: SessionId,
    joined_at_ms: u64,
    draft: MemberDraft,
}

impl Member {
    pub(crate) fn new(
        id: MemberId,
        incarnation: Incarnation,
        revision: Revision,
        session: SessionId,
        joined_at_ms: u64,
        draft: MemberDraft,
    ) -> Self {
        Self { id, incarnation, revision, session, joined_at_ms, draft }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &MemberId {
        &self.id
    }

    /// Which life of this name it is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// When its metadata or tags last changed; its incarnation if they never did.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// When it joined, by the server's clock. To order members use [`incarnation`](Self::incarnation).
    #[must_use]
    pub fn joined_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.joined_at_ms)
    }

    #[cfg(test)]
    pub(crate) fn joined_at_ms(&self) -> u64 {
        self.joined_at_ms
    }

    /// Its tags, in order.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = &str> {
        self.draft.tags.iter().map(String::as_str)
    }

    /// Whether it has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.draft.tags.contains(tag)
    }

    /// Its metadata as text: raw text as it was given, typed metadata as JSON; `None` if it has none.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.draft.metadata.as_str()
    }

    /// Its metadata as a `T`, parsed from JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMetadata`] if it has none, or none that is a `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let text = self
            .text()
            .ok_or_else(|| Error::new(ErrorKind::InvalidMetadata, format!("member {:?} has no metadata", self.id)))?;
        from_json(ErrorKind::InvalidMetadata, &format!("the metadata of member {:?}", self.id), text.as_bytes())
    }

    /// Whether another program keeps this member by `SET <key> <text> PX <ms>`.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.session.is_adopted()
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    #[cfg(test)]
    pub(crate) fn draft(&self) -> MemberDraft {
        self.draft.clone()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("id", &self.id)
            .field("incarnation", &self.incarnation)
            .field("revision", &self.revision)
            .field("tags", &self.draft.tags)
            .field("metadata_bytes", &self.text().map(str::len))
            .finish_non_exhaustive()
    }
}

/// Why a member left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaveCause {
    /// It left, or its connector closed.
    Left,
    /// Its lease ran out: its process died, froze or was cut off for longer than its ttl.
    Expired,
    /// The server evicted its key to free memory.
    Evicted,
    /// Another program deleted its key while its owner lives, or overwrote it with what is no member.
    Removed,
    /// A newer incarnation has its name: a restart, another session that took it over, or another program.
    Replaced,
}

impl fmt::Display for LeaveCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
        })
    }
}

/// Checks tags: each is a name, 256 of them at the most.
pub(crate) fn check_tags(tags: &BTreeSet<String>) -> Result<(), Error> {
    const MOST: usize = 256;
    if tags.len() > MOST {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!("{} tags; a member has {MOST} at the most", tags.len()),
        ));
    }
    tags.iter().try_for_each(|tag| check_name("a tag", tag))
}

/// Checks the size of metadata.
pub(crate) fn check_metadata(metadata: &Metadata) -> Result<(), Error> {
    let length = metadata.as_str().map_or(0, str::len);
    if length > MAX_METADATA {
        return Err(Error::new(
            ErrorKind::InvalidMetadata,
            format!("the metadata has {length} bytes; a member may carry {MAX_METADATA}"),
        ));
    }
    Ok(())
}
