//! One opaque error: what kind it is, what it is about, and whether anything happened.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What went wrong, to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing, out of range or contradicts another. Found before any I/O.
    Config,
    /// A name (group, namespace, member, tag) is empty or longer than 512 bytes. Found before any I/O.
    InvalidName,
    /// Metadata is too large, or does not convert to or from JSON. Found before any I/O.
    InvalidMetadata,
    /// A value is too large, or does not convert to or from JSON.
    InvalidValue,
    /// The server could not be reached, or the connection broke.
    Connection,
    /// The server refused the credentials, or the user lacks a right.
    Denied,
    /// No answer in time.
    Timeout,
    /// The server is out of memory and took nothing.
    OutOfMemory,
    /// A key of the group holds a value that is not ours to overwrite.
    ForeignValue,
    /// Another live session holds this member id, and the policy is [`OnConflict::Reject`](crate::OnConflict::Reject).
    Conflict,
    /// This connector has a member of that id already.
    AlreadyJoined,
    /// The membership is no longer ours: the lease ran out, or another session took the id over.
    Lost,
    /// Keyspace notifications are not enabled, and the policy forbids enabling them.
    Notifications,
    /// The connector is closed.
    Closed,
    /// The server answered with another error; the [source](StdError::source) has its words.
    Server,
}

/// Why a call failed.
///
/// The message names the thing, the reason and, where there is one, the cure; the server's own words are the
/// [source](StdError::source). Secrets never appear in it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    unapplied: bool,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of which it is sure that nothing happened on the server.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, unapplied: true, message: message.into(), source: None }))
    }

    /// An error after which nobody here knows whether the server did it.
    pub(crate) fn uncertain(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, unapplied: false, message: message.into(), source: None }))
    }

    pub(crate) fn caused_by(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { kind, unapplied: true, message: message.into(), source: Some(Box::new(source)) }))
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the connector is closed; connect a new one")
    }

    /// Translates what redis said of `call`.
    pub(crate) fn from_redis(call: &str, error: redis::RedisError) -> Self {
        let said = error.detail().map(str::to_owned);
        Self::from_redis_about(call, said.as_deref(), error)
    }

    /// The same, where more is known of what was refused than redis said.
    pub(crate) fn from_redis_about(call: &str, refused: Option<&str>, error: redis::RedisError) -> Self {
        use redis::ServerErrorKind as Said;
        // A script's error arrives as a plain ERR that quotes the code of the command that failed in it.
        let quotes = |code: &str| error.detail().is_some_and(|detail| detail.contains(code));
        let kind = match (error.kind(), error.code()) {
            (redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::Server(Said::NoPerm), _)
            | (_, Some("WRONGPASS" | "NOAUTH")) => ErrorKind::Denied,
            (_, Some("OOM")) => ErrorKind::OutOfMemory,
            (_, Some("WRONGTYPE")) => ErrorKind::ForeignValue,
            (redis::ErrorKind::Server(_) | redis::ErrorKind::Extension, _) => match () {
                () if quotes("OOM command not allowed") => ErrorKind::OutOfMemory,
                () if quotes("WRONGTYPE") => ErrorKind::ForeignValue,
                () if quotes("NOPERM") || quotes("ACL failure") || quotes("The user executing the script") => {
                    ErrorKind::Denied
                }
                () => ErrorKind::Server,
            },
            _ if error.is_timeout() => ErrorKind::Timeout,
            _ => ErrorKind::Connection,
        };
        let cure = match kind {
            ErrorKind::Denied => format!(
                ": {}: check user and password, and grant the rights of the ACL line in the README",
                refused.unwrap_or("the server refused it").trim_end_matches('.'),
            ),
            ErrorKind::OutOfMemory => ": the server is out of memory, raise maxmemory or free some".to_owned(),
            ErrorKind::ForeignValue => ": a key of this group holds another program's value, remove it".to_owned(),
            _ => String::new(),
        };
        let unapplied = !matches!(kind, ErrorKind::Timeout | ErrorKind::Connection) || error.is_connection_refusal();
        let message = format!("{call} failed{cure}");
        // A server that does not know a command says it back with its arguments, and they may hold a password.
        let quotes_arguments = quotes("args beginning with");
        let source: Option<Box<dyn StdError + Send + Sync>> =
            if quotes_arguments { None } else { Some(Box::new(error)) };
        Self(Arc::new(Inner { kind, unapplied, message, source }))
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed a little later, with nothing changed by the caller.
    ///
    /// Repeating is safe where [`is_unapplied`](Self::is_unapplied) says so, and for every call but these, which may have
    /// been done: a write of persistent data, which would overwrite what another has written since, and
    /// [`break_lock`](crate::Lock::break_lock), which would break the next one's.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::OutOfMemory | ErrorKind::Server)
    }

    /// Whether it is certain that the call changed nothing on the server.
    ///
    /// `false` means "nobody here knows": the request was sent and its answer did not arrive.
    #[must_use]
    pub fn is_unapplied(&self) -> bool {
        self.0.unapplied
    }

    /// Whether the connection, and not the command, is what failed.
    pub(crate) fn is_of_the_link(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connection | ErrorKind::Timeout)
            || self.0.source.as_ref().and_then(|s| s.downcast_ref::<redis::RedisError>()).is_some_and(|said| {
                matches!(
                    said.code(),
                    Some("NOAUTH" | "WRONGPASS" | "LOADING" | "READONLY" | "MASTERDOWN" | "BUSY" | "CLUSTERDOWN")
                )
            })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("unapplied", &self.0.unapplied)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
