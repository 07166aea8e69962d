//! What goes into the core and what comes out of it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Moment, Warning};
use crate::error::Error;
use crate::model::{Incarnation, LeaveCause, Member, MemberDraft, MemberId, Metadata, Revision, SessionId};
use crate::settings::EventSource;
use crate::wire::{ListedHold, LockRecord, Notice, QueueEntry, ValueRecord, shown};

/// Names a request of a user until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// A part of the core that sends commands of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Session,
    Members,
    Watched,
    Maintenance,
    Source,
    Presence,
}

/// Names a command until its reply, and whose that is. Replies to tags that their owner has forgotten are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) owner: Owner,
    pub(crate) number: u64,
}

#[derive(Debug)]
pub(crate) enum Input {
    /// Both connections stand and the subscription is confirmed.
    LinkUp,
    LinkDown,
    /// What has been heard since, in order.
    Notices(Vec<Notice>),
    Reply(Tag, Result<Reply, Error>),
    /// How the last heartbeat ended, until when the lease is vouched for, and when it is over by its ttl.
    Beat {
        session: SessionId,
        until: Moment,
        over: Moment,
        pulse: Pulse,
    },
    /// A guard has seen that the lease is not vouched for.
    Suspended,
    /// What a user asks for, and for how long.
    Request(Ticket, Request, Duration),
    /// This join was answered when its caller was gone.
    Unclaimed(MemberId, Incarnation),
    /// This lock has no holder or waiter here any more.
    GiveBack(QueueEntry),
    /// A grant has come that the lock table does not know.
    Audit,
    /// Only the time has changed.
    Tick,
}

/// How a heartbeat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    Alive,
    /// The server said that the lease is gone.
    Lost,
    /// No answer.
    Missed,
}

#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// There is to be a session.
    Open,
    /// This topic is to be watched.
    Watch(Topic),
    Join(MemberId, MemberDraft),
    Rejoin(MemberId),
    Edit(MemberId, Edit),
    Leave(MemberId),
    Sync,
    Close,
}

/// What is watched besides the members.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Topic {
    Ephemerals,
    /// The holder of the lock of this name, encoded.
    Leader(String),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ephemerals => f.write_str("the ephemeral values"),
            Self::Leader(lock) => write!(f, "the holder of lock {:?}", shown(lock)),
        }
    }
}

/// A change to what a member says of itself.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Metadata(Metadata),
    AddTags(BTreeSet<String>),
    RemoveTags(BTreeSet<String>),
}

impl Edit {
    pub(crate) fn apply(&self, draft: &mut MemberDraft) {
        match self {
            Self::Metadata(metadata) => draft.metadata = metadata.clone(),
            Self::AddTags(tags) => draft.tags.extend(tags.iter().cloned()),
            Self::RemoveTags(tags) => draft.tags.retain(|tag| !tags.contains(tag)),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Opened,
    Watched,
    Joined(MemberId, Incarnation),
    /// It was held already.
    Held(Incarnation),
    Edited,
    /// Whether there was a membership to end.
    Left(bool),
    Synced,
    Closed,
}

#[derive(Debug)]
pub(crate) enum Output {
    Command(Tag, Command),
    Answer(Ticket, Result<Answer, Error>),
    /// The whole roster; what was known before no longer counts.
    Snapshot(Vec<Arc<Member>>),
    /// One batch of changes, in order.
    Changes(Vec<Change>),
    /// Values and leaders that have changed.
    Values(Vec<ValueChange>),
    /// All of this topic is known from now on.
    Covered(Topic),
    /// What is known was true at this moment.
    Confirmed(Moment),
    State(Phase),
    Standing(MemberId, Standing),
    /// The lease to keep alive from now on, acknowledged when sent at this moment.
    Keep(SessionId, Moment),
    /// The lease is not vouched for, and may live all the same: what is held by it says no.
    Suspend,
    /// The server has said that the lease lived, and which locks are still held: those are held again.
    Resume,
    /// The lease is over by its ttl: what was held by it is lost for good.
    Expire,
    /// There is no lease any more.
    Release,
    /// All the locks that the session held, asked for from this moment on.
    Audited(Moment, Vec<ListedHold>),
    /// How changes are heard of from now on.
    Source(SourceReport),
    /// How many sessions this connector sees to be present.
    Seen(usize),
    /// Something else listens from now on; whether inbox messages come to it.
    Inbox(bool),
    /// The link is of no use: make a new one.
    DropLink(Error),
    /// Something an operator should read.
    Warn(Warning),
    /// Everything is given back; there is nothing left to do.
    Closed,
}

/// How changes are heard of.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceReport {
    pub(crate) source: EventSource,
    /// Since when it is this source; never, before the first has proven itself.
    pub(crate) since: Option<Moment>,
    /// Why it is not the one that is wanted.
    pub(crate) reason: Option<String>,
    pub(crate) is_proven: bool,
    /// Whether inbox messages come. If not, a waiter for a lock has to ask.
    pub(crate) inbox_works: bool,
    pub(crate) canary_at: Option<Moment>,
    pub(crate) round_trip: Option<Duration>,
    /// From the canary's sending to its first event.
    pub(crate) event_lag: Option<Duration>,
    pub(crate) sweep_lag: Option<Duration>,
}

/// One change of the roster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Joined(Arc<Member>),
    Updated { old: Arc<Member>, new: Arc<Member> },
    Left { member: Arc<Member>, cause: LeaveCause },
}

/// One change of what is watched besides the members. Paths are encoded, with their folder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ValueChange {
    Present { path: String, value: Arc<WatchedValue> },
    Gone { path: String, expired: bool },
}

/// What stands at a path that is watched.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WatchedValue {
    Value(ValueRecord),
    LockRecord(LockRecord),
}

/// The connector's state, by the core's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    Connected,
    Suspended(Moment),
    Lost,
    Closed,
}

/// How a membership of this connector stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Held(Incarnation),
    /// Not vouched for. The server may say later that this incarnation lived.
    Suspended(Incarnation),
    /// Lost, and joined again where that is wanted.
    Lost(LeaveCause),
    Ended(LeaveCause),
}

/// What to do when a joining id is live under another session, or is another program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contest {
    Take,
    Yield,
    /// Yields to another session only: what another program has set does not end a membership.
    Rejoin,
}

/// What a listing is compared to, and what it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) revision: Revision,
    pub(crate) count: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Open {
        session: SessionId,
    },
    Join {
        id: MemberId,
        session: SessionId,
        opening: bool,
        contest: Contest,
        nonce: u64,
        draft: MemberDraft,
    },
    Update {
        id: MemberId,
        session: SessionId,
        incarnation: Incarnation,
        joined_at_ms: u64,
        nonce: u64,
        draft: MemberDraft,
    },
    Leave {
        id: MemberId,
        session: SessionId,
        incarnation: Option<Incarnation>,
    },
    Close {
        session: SessionId,
    },
    Renew {
        session: SessionId,
        ids: Vec<MemberId>,
    },
    /// Renewal of the locks and values, from this place on.
    Extend {
        session: SessionId,
        cursor: u64,
    },
    Release {
        queue_entry: QueueEntry,
    },
    Subscribe {
        topic: Topic,
    },
    ReadValues {
        paths: Vec<(String, Option<SessionId>)>,
    },
    ListValues {
        known: Option<Known>,
        after: Option<u64>,
    },
    Sweep,
    Touch {
        ids: Vec<MemberId>,
    },
    List {
        known: Option<Known>,
        after: Option<Incarnation>,
    },
    Read {
        wanted: Vec<(MemberId, Option<SessionId>)>,
    },
    /// Hints are to come from there, and no longer from where they came from.
    Listen {
        source: EventSource,
    },
    PlantCanary,
    TouchCanary,
    /// Asks for a place among the probers.
    AskToProbe {
        place: Duration,
    },
    Probe {
        sessions: Vec<SessionId>,
    },
    /// Asks whether these probers, named by their connectors, are still connected.
    CheckProbers {
        probers: Vec<String>,
    },
    /// Shortens the leases of sessions that are not present, each with how long ago it was last seen, if ever.
    Shorten {
        sessions: Vec<(SessionId, Option<Duration>)>,
    },
}

/// The answers of the server. `due` is the time to the earliest deadline in the index of leases.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Done,
    /// Whether inbox messages come.
    Listening {
        inbox_works: bool,
    },
    Opened,
    Joined {
        incarnation: Incarnation,
        revision: Revision,
        joined_at_ms: u64,
    },
    Conflict {
        holder: String,
    },
    Lost,
    Updated {
        revision: Revision,
    },
    Left(bool),
    Closed {
        remaining: u64,
    },
    Renewed {
        strangers: Vec<MemberId>,
    },
    Extended {
        cursor: u64,
        held: Vec<ListedHold>,
    },
    Released(bool),
    ValuesFound {
        due: Option<Duration>,
        findings: Vec<ValueFinding>,
    },
    ValuesUnchanged {
        due: Option<Duration>,
    },
    ValuesListed {
        due: Option<Duration>,
        known: Known,
        after: Option<u64>,
        entries: Vec<(String, u64)>,
    },
    Swept {
        due: Option<Duration>,
        more: bool,
        dying: Vec<MemberId>,
    },
    Unchanged {
        due: Option<Duration>,
    },
    Part {
        due: Option<Duration>,
        known: Known,
        more: bool,
        entries: Vec<Entry>,
    },
    Found {
        due: Option<Duration>,
        /// The group's revision when it was looked.
        as_of: Revision,
        findings: Vec<Finding>,
    },
    Probing {
        sessions: Vec<SessionId>,
    },
    NotProbing {
        /// How many have asked within this second.
        asks: u64,
        /// Who has the places, by their connectors.
        probers: Vec<String>,
    },
    Present(Vec<bool>),
    Shortened {
        due: Option<Duration>,
    },
}

/// What a read found at one path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ValueFinding {
    Value(ValueRecord),
    LockRecord(LockRecord),
    Deleted,
    /// The session that it lived by is gone.
    Expired,
    /// Something stands there that is not ours.
    Foreign,
    /// The answer had no room for it.
    Later,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: MemberId,
    pub(crate) incarnation: Incarnation,
    pub(crate) written: Written,
}

/// What a listing says of an entry's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    At(Revision),
    ByAnother,
    Nowhere,
}

/// What a read found in one member's key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finding {
    Record(Arc<Member>),
    /// Something stands there that is no member.
    NoMember(String),
    Left,
    Removed,
    Expired,
    /// A member that another program kept is gone.
    Gone,
    /// The answer had no room for it.
    Later,
}
