//! The choices that a user makes by name.

use std::fmt;

/// What to do with the server's `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notifications {
    /// Read the flags and add those that are missing. None is ever removed.
    #[default]
    Enable,
    /// Read the flags; connecting fails if one is missing. Where `CONFIG` is forbidden, the canary decides.
    Check,
    /// Leave `CONFIG` alone. The canary alone tells whether notifications arrive.
    Never,
}

/// Where hints come from.
///
/// It is the one that is wanted. A source that does not prove itself, or stops to, is replaced by the next in this
/// order: the wanted one, [`Tracking`](Self::Tracking), [`Poll`](Self::Poll); the better ones are tried again from
/// time to time. [`GroupConnector::status`](crate::GroupConnector::status) tells which serves now, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventSource {
    /// `__keyspace@<db>__:<group>/members/*`: only this group's keys are heard. Needs the flags `K$gx`.
    #[default]
    Keyspace,
    /// `__keyevent@<db>__:set` and so on: every key of the database is heard, so it is for a database that holds
    /// little else. Needs the flags `E$gx`; where it has to set them it adds `K`, which others of the group need.
    Keyevent,
    /// `CLIENT TRACKING` in broadcast mode, over RESP3: needs no setting of the server, and the right to
    /// `CLIENT TRACKING`. Somewhat dearer: it does not say what happened to a key, so that each message is a look.
    Tracking,
    /// No messages at all: the group is compared with the server at each
    /// [`poll`](crate::GroupConnectorBuilder::poll) interval. Works everywhere. Members that another program keeps
    /// are not found.
    Poll,
}

impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyspace => "keyspace notifications",
            Self::Keyevent => "keyevent notifications",
            Self::Tracking => "tracking",
            Self::Poll => "polling",
        })
    }
}

/// What a join does when its name is live under another session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnConflict {
    /// Take the name over; the one who had it is told that it was replaced. Right for restarts.
    #[default]
    TakeOver,
    /// Fail with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    Reject,
}

/// What happens to the members of a connector whose lease was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLost {
    /// They join again, as new incarnations, unless somebody else has taken the name meanwhile.
    #[default]
    Rejoin,
    /// They stay away until they are joined again by hand.
    Stop,
}

/// Where heartbeats run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Heartbeats {
    /// On a thread of their own, one for all connectors of the process: a busy runtime costs no membership.
    #[default]
    Thread,
    /// On the runtime that the connector was made on. Without presence: a runtime that hangs would not see in time that
    /// its connection is closed, so only the ttl decides.
    Runtime,
}
