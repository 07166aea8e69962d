//! The choices that a user makes by name.

use std::fmt;
use std::time::Duration;

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

/// When a write counts as done.
///
/// Redis replicates asynchronously: a replica that is promoted may not know the last writes. To wait for replicas
/// narrows that, and does not end it: the sentinels or the cluster may promote one that has not acknowledged, and
/// replicas that have acknowledged may be lost too. What decides is the [`FencingToken`](crate::FencingToken), where the
/// resource checks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replication {
    /// As soon as the primary has it.
    #[default]
    Async,
    /// A join, a grant of a lock and a write of persistent data are told only when so many replicas have acknowledged
    /// them: one more round trip, and the one between primary and replica. Until then, or if it fails, the lock is held
    /// and the member is there for others.
    ///
    /// If too few have acknowledged in time, the call fails with
    /// [`ErrorKind::Unacknowledged`](crate::ErrorKind::Unacknowledged): a failover may forget it. A member is taken out
    /// of the group again then, and a lock is given back; persistent data stays written. What the connector does by
    /// itself is not waited for: a member that rejoins, a lease that is renewed.
    ///
    /// Costs one more connection, one key for each connector, and the right to `WAIT`.
    Ack {
        /// How many replicas: 1 or more.
        replicas: u32,
        /// For how long to wait for them: 1 ms to an hour. The timeouts of the calls count too.
        timeout: Duration,
    },
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
