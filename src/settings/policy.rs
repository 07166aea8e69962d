//! The choices that a user makes by name.

use std::fmt;

/// What to do with the server's `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notifications {
    /// Reads the flags and adds the missing ones. It never removes a flag.
    #[default]
    Enable,
    /// Reads the flags, and fails to connect if one is missing. Where `CONFIG` is forbidden, the canary decides.
    Check,
    /// Does not use `CONFIG`. The canary alone tells whether notifications arrive.
    Never,
}

/// How a connector hears of changes.
///
/// The setting names the wanted source. A source that does not prove itself, or stops doing so, is replaced by the
/// next in this order: the wanted one, [`Tracking`](Self::Tracking), [`Poll`](Self::Poll). The better ones are tried
/// again from time to time. [`GroupConnector::status`](crate::GroupConnector::status) tells which source serves now,
/// and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventSource {
    /// `__keyspace@<db>__:<group>/members/*`: it hears only this group's keys. Needs the flags `K$gx`.
    #[default]
    Keyspace,
    /// `__keyevent@<db>__:set` and so on: it hears every key of the database, so it is for a database that holds little
    /// else. Needs the flags `E$gx`. Where it sets them it adds `K`, which other connectors of the group need.
    Keyevent,
    /// `CLIENT TRACKING` in broadcast mode, over RESP3: needs no setting of the server, and the right to
    /// `CLIENT TRACKING`. It costs somewhat more: a message does not say how a key changed, so each one needs a read.
    Tracking,
    /// No messages: the connector compares its view with the server at each
    /// [`poll`](crate::GroupConnectorBuilder::poll) interval. It works everywhere. It does not find members that
    /// another program keeps.
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
    /// Takes the name over. The previous member learns that it was replaced. Right for restarts.
    #[default]
    TakeOver,
    /// Fails with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    Reject,
}

/// What happens to the members of a connector whose lease was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLost {
    /// They join again, as new incarnations, unless another session has taken the name meanwhile.
    #[default]
    Rejoin,
    /// They stay away until you join them again.
    Stop,
}

/// Where heartbeats run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Heartbeats {
    /// On a thread of their own, one for all connectors of the process: a busy runtime costs no membership.
    #[default]
    Thread,
    /// On the runtime that the connector was made on, and without presence: a runtime that hangs would not notice in
    /// time that its connection is closed, so only the ttl decides.
    Runtime,
}
