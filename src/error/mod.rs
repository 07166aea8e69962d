//! One opaque error: what kind it is, what it is about, and whether anything happened.

mod answer;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use answer::one_line;
use answer::{During, NO_ANSWER, NOT_CONNECTED, said, verdict, without_arguments};

/// What went wrong, to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing, out of range or contradicts another. Found before any I/O, but for what only the server
    /// knows: a database that it does not have.
    Config,
    /// A name (group, namespace, member, tag) is empty or longer than 512 bytes. Found before any I/O.
    InvalidName,
    /// Metadata is too large, or does not convert to or from JSON. Found before any I/O.
    InvalidMetadata,
    /// A value is too large, or does not convert to or from JSON, which has no NaN and no infinity.
    InvalidValue,
    /// The server could not be reached, or the connection broke. Not retryable where its certificate is not trusted.
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
    /// The lock could not be vouched for, so that the work under it was dropped. It may have been held all the time.
    Suspended,
    /// Keyspace notifications are not enabled, and the policy forbids enabling them.
    Notifications,
    /// Too few replicas have acknowledged it in time: a failover may forget it. Only with
    /// [`Replication::Ack`](crate::Replication::Ack). A join was taken back, a lock was given back; persistent data is
    /// written.
    Unacknowledged,
    /// The connector is closed, or the runtime that it was made on has ended.
    Closed,
    /// The server answered with another error; the [source](StdError::source) has its words. Not retryable where it is
    /// no server for this: a replica, a node of a cluster that serves other slots, a sentinel, or no Redis at all.
    Server,
}

/// Why a call failed.
///
/// The message is one line: the server's address and database, where one was asked, then what was tried, the reason and
/// the cure. The error of the layer below is the [source](StdError::source). Secrets never appear in either.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
    /// The address and the database that it is about, if it is about one.
    server: Option<Arc<str>>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    unapplied: bool,
    retryable: bool,
    ends_link: bool,
    message: String,
    /// Empty where the message has it.
    cure: &'static str,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Inner {
    fn new(kind: ErrorKind, message: String) -> Self {
        let of_the_link = matches!(kind, ErrorKind::Connection | ErrorKind::Timeout);
        let retryable =
            of_the_link || matches!(kind, ErrorKind::OutOfMemory | ErrorKind::Server | ErrorKind::Unacknowledged);
        let cure = if kind == ErrorKind::Timeout { NO_ANSWER } else { "" };
        Self { kind, unapplied: true, retryable, ends_link: of_the_link, message, cure, source: None }
    }
}

impl From<Inner> for Error {
    fn from(inner: Inner) -> Self {
        Self { inner: Arc::new(inner), server: None }
    }
}

impl Error {
    /// An error of which it is sure that nothing happened on the server.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Inner::new(kind, message.into()).into()
    }

    /// An error after which nobody here knows whether the server did it.
    pub(crate) fn uncertain(kind: ErrorKind, message: impl Into<String>) -> Self {
        Inner { unapplied: false, ..Inner::new(kind, message.into()) }.into()
    }

    pub(crate) fn caused_by(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Inner { source: Some(Arc::new(source)), ..Inner::new(kind, message.into()) }.into()
    }

    pub(crate) fn closed() -> Self {
        let message = "the connector is closed, or the runtime that it was made on has ended; connect a new one";
        Self::new(ErrorKind::Closed, message)
    }

    /// The call was sent, and the connector ended before its answer.
    pub(crate) fn closed_unanswered(what: &str) -> Self {
        let message = format!("{what}: the connector was closed before the answer came; connect a new one");
        Self::uncertain(ErrorKind::Closed, message)
    }

    pub(crate) fn runtime_ended() -> Self {
        let message = "the runtime that the connector was made on has ended; connect on a runtime that lives on";
        Self::new(ErrorKind::Closed, message)
    }

    /// The same error, with another cure.
    pub(crate) fn cured_by(mut self, cure: &'static str) -> Self {
        Arc::make_mut(&mut self.inner).cure = cure;
        self
    }

    /// A replica answers where a primary is needed.
    pub(crate) fn replica_there(of: Option<(String, u16)>) -> Self {
        let of = of.map_or_else(String::new, |(host, port)| format!(" of {host}:{port}"));
        let message = format!("connecting: the server is a replica{of}");
        let cure = "connect to its primary, or use follow_replica";
        Inner { retryable: false, ends_link: true, cure, ..Inner::new(ErrorKind::Server, message) }.into()
    }

    /// A node of a cluster answers whose group another one serves.
    pub(crate) fn slot_elsewhere(node: &str) -> Self {
        let message = format!("connecting: the node {node} of the cluster serves this group");
        let cure = "see to it that the cluster announces addresses that can be reached from here";
        Inner { ends_link: true, cure, ..Inner::new(ErrorKind::Server, message) }.into()
    }

    /// No node of the cluster serves the group.
    pub(crate) fn slot_unserved() -> Self {
        let message = "connecting: no node of the cluster serves this group".to_owned();
        let cure = "give its slot to a node, as redis-cli --cluster fix does";
        Inner { retryable: false, ends_link: true, cure, ..Inner::new(ErrorKind::Server, message) }.into()
    }

    /// A sentinel answers where a server is needed.
    pub(crate) fn sentinel_there() -> Self {
        let message = "connecting: what answers there is a sentinel and no server".to_owned();
        let cure = "use redis+sentinel://host:port/master for it";
        Inner { retryable: false, ends_link: true, cure, ..Inner::new(ErrorKind::Config, message) }.into()
    }

    /// The files with certificates cannot be read, or are none.
    #[cfg(feature = "tls")]
    pub(crate) fn unusable_certificates(why: &str) -> Self {
        let message = format!("connecting: certificates: {}", one_line(why));
        let cure = "see to the files that Tls names, in the PEM format";
        Inner { retryable: false, ends_link: true, cure, ..Inner::new(ErrorKind::Config, message) }.into()
    }

    /// The server has answered in a form that is not known here, so that nobody knows what it has done.
    pub(crate) fn unexpected(what: &str) -> Self {
        let message = format!("{what} was answered in a form that is not known here");
        let cure = "use one version of group-redis for the whole group";
        Inner { unapplied: false, retryable: false, cure, ..Inner::new(ErrorKind::Server, message) }.into()
    }

    /// A script was run, and its answer is not of the type that was asked for.
    pub(crate) fn unread_answer(error: redis::RedisError) -> Self {
        let words = said(&error);
        // The answer itself comes in parentheses.
        let words = words.split(" (").next().unwrap_or_default();
        let message = format!("the script was run, and its answer is not of the type asked for: {words}");
        let cure = "ask for the type that it answers";
        let source: Option<Arc<dyn StdError + Send + Sync>> = Some(Arc::new(error));
        let inner = Inner::new(ErrorKind::Server, message);
        Inner { unapplied: false, retryable: false, cure, source, ..inner }.into()
    }

    /// It was done, and too few replicas are known to have it.
    pub(crate) fn unacknowledged(what: &str, why: &str) -> Self {
        let message = format!("{what} may be forgotten by a failover: {why}");
        Self::uncertain(ErrorKind::Unacknowledged, message).cured_by("see to the replicas, or wait for fewer")
    }

    /// The same error, which ends the link.
    pub(crate) fn of_the_link(mut self) -> Self {
        Arc::make_mut(&mut self.inner).ends_link = true;
        self
    }

    /// There was no connection in time.
    pub(crate) fn not_connected(limit: Duration) -> Self {
        let message = format!("connecting: no connection within {limit:?}");
        Self::new(ErrorKind::Timeout, message).cured_by(NOT_CONNECTED)
    }

    /// The call was sent, and no answer came in time.
    pub(crate) fn no_answer(what: &str, limit: Duration) -> Self {
        Self::uncertain(ErrorKind::Timeout, format!("{what}: no answer within {limit:?}"))
    }

    /// The call was not sent, since there was no link in time.
    pub(crate) fn no_link(what: &str, limit: Duration) -> Self {
        let message = format!("{what}: there was no link to the server within {limit:?}");
        let cure = "see GroupConnector::status, and try again when it is connected";
        Self::new(ErrorKind::Timeout, message).cured_by(cure)
    }

    /// Translates what redis said of `call`.
    pub(crate) fn from_redis(call: &str, error: redis::RedisError) -> Self {
        Self::translate(call, None, error, During::Call)
    }

    /// The same, where more is known of what was refused than redis said.
    pub(crate) fn from_redis_about(call: &str, refused: &str, error: redis::RedisError) -> Self {
        Self::translate(call, Some(refused), error, During::Call)
    }

    /// Translates why there is no connection: whatever it was, nothing was asked for yet.
    pub(crate) fn connecting(what: &str, error: redis::RedisError) -> Self {
        Self::translate(what, None, error, During::Connecting)
    }

    fn translate(what: &str, refused: Option<&str>, error: redis::RedisError, during: During) -> Self {
        let error = without_arguments(error);
        let verdict = verdict(&error, during);
        let reason = match (refused, verdict.reason) {
            (Some(refused), _) if verdict.kind == ErrorKind::Denied => one_line(refused),
            (_, Some(reason)) => reason.to_owned(),
            (_, None) => said(&error),
        };
        let unanswered = matches!(verdict.kind, ErrorKind::Timeout | ErrorKind::Connection);
        let inner = Inner {
            kind: verdict.kind,
            unapplied: during == During::Connecting || !unanswered || error.is_connection_refusal(),
            retryable: verdict.passes,
            ends_link: verdict.ends_link,
            message: format!("{what} failed: {}", reason.trim_end_matches('.')),
            cure: verdict.cure,
            source: Some(Arc::new(error)),
        };
        inner.into()
    }

    /// The same error of a call that an earlier attempt may have done.
    pub(crate) fn after_unanswered(mut self) -> Self {
        if self.is_unapplied() {
            Arc::make_mut(&mut self.inner).unapplied = false;
        }
        self
    }

    /// The same error, about this server.
    pub(crate) fn at(mut self, server: &Arc<str>) -> Self {
        self.server.get_or_insert_with(|| server.clone());
        self
    }

    /// The same error, where it is known why: the reason is said, with its cure, and becomes the source.
    pub(crate) fn because(mut self, reason: Option<&Self>) -> Self {
        if let Some(reason) = reason {
            let inner = Arc::make_mut(&mut self.inner);
            inner.message = format!("{}: {}", inner.message, reason.inner.message);
            inner.cure = reason.inner.cure;
            inner.source = Some(Arc::new(reason.clone()));
        }
        self
    }

    /// The same error of a connector that has been up, and goes on trying to be: what ends its link may pass.
    pub(crate) fn while_reconnecting(mut self) -> Self {
        if self.is_of_the_link() && !self.is_retryable() {
            Arc::make_mut(&mut self.inner).retryable = true;
        }
        self
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call may succeed a little later, with nothing changed by the caller.
    ///
    /// Repeating is safe where [`is_unapplied`](Self::is_unapplied) says so, and for every call but these, which may have
    /// been done: a write of persistent data, which would overwrite what another has written since, and
    /// [`break_lock`](crate::Lock::break_lock), which would break the next one's.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.inner.retryable
    }

    /// Whether it is certain that the call changed nothing on the server.
    ///
    /// `false` means "nobody here knows": the request was sent and its answer did not arrive.
    #[must_use]
    pub fn is_unapplied(&self) -> bool {
        self.inner.unapplied
    }

    /// Whether the connection, or the server behind it, is what failed, and not the command.
    pub(crate) fn is_of_the_link(&self) -> bool {
        self.inner.ends_link
    }

    /// Whether a server was to be asked for it: then it says which.
    pub(crate) fn is_of_a_server(&self) -> bool {
        !matches!(
            self.kind(),
            ErrorKind::Closed
                | ErrorKind::AlreadyJoined
                | ErrorKind::InvalidName
                | ErrorKind::InvalidMetadata
                | ErrorKind::InvalidValue
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = &self.server {
            write!(f, "{server}: ")?;
        }
        f.write_str(&self.inner.message)?;
        if !self.inner.cure.is_empty() {
            write!(f, "; {}", self.inner.cure)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("unapplied", &self.inner.unapplied)
            .field("retryable", &self.inner.retryable)
            .field("server", &self.server)
            .field("message", &self.inner.message)
            .field("cure", &self.inner.cure)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
