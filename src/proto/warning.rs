//! What an operator should read: each a case with its facts, for the log.

use std::fmt;

use super::Topic;
use crate::error::Error;
use crate::model::{LeaveCause, MemberId};
use crate::settings::EventSource;
use crate::wire::shown;

#[derive(Clone, Debug)]
pub(crate) enum Warning {
    /// A source of hints does not serve, and another takes its place.
    SourceReplaced {
        given_up: EventSource,
        reason: String,
        next: EventSource,
    },
    /// The canary could not be written, so that the source was not checked.
    CanaryFailed(Error),
    /// What is watched is not told of by notifications.
    NotSubscribed {
        topic: Topic,
        error: Error,
    },
    ValuesUnread(Error),
    MembersUnread(Error),
    /// A key stands among the members and is no member's.
    StrayKey(String),
    /// A member's key holds what is no member.
    NoMember {
        id: MemberId,
        reason: String,
    },
    /// A member was taken out, though nobody joined as it and its owner did not leave.
    PutRight {
        id: MemberId,
        cause: LeaveCause,
    },
    RejoinFailed {
        id: MemberId,
        error: Error,
    },
    LeaveFailed {
        id: MemberId,
        error: Error,
    },
    /// A lock was not given back. Its name is encoded.
    ReleaseFailed {
        lock: String,
        error: Error,
    },
    RenewalFailed(Error),
    SweepFailed(Error),
    TouchFailed(Error),
    /// Nobody looks here for processes that have ended.
    ProbeFailed(Error),
    /// The lease of a process that has ended keeps its ttl.
    ShortenFailed(Error),
}

impl Warning {
    /// Its name in the log, to filter by.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::SourceReplaced { .. } => "source_replaced",
            Self::CanaryFailed(_) => "canary_failed",
            Self::NotSubscribed { .. } => "not_subscribed",
            Self::ValuesUnread(_) => "values_unread",
            Self::MembersUnread(_) => "members_unread",
            Self::StrayKey(_) => "stray_key",
            Self::NoMember { .. } => "no_member",
            Self::PutRight { .. } => "put_right",
            Self::RejoinFailed { .. } => "rejoin_failed",
            Self::LeaveFailed { .. } => "leave_failed",
            Self::ReleaseFailed { .. } => "release_failed",
            Self::RenewalFailed(_) => "renewal_failed",
            Self::SweepFailed(_) => "sweep_failed",
            Self::TouchFailed(_) => "touch_failed",
            Self::ProbeFailed(_) => "probe_failed",
            Self::ShortenFailed(_) => "shorten_failed",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceReplaced { given_up, reason, next } => {
                write!(f, "{given_up} does not serve: {reason}; {next} takes its place")
            }
            Self::CanaryFailed(error) => {
                write!(f, "the canary could not be written, so the source could not be checked: {error}")
            }
            Self::NotSubscribed { topic, error } => {
                write!(f, "no notifications come of {topic}, it is only reconciled: {error}")
            }
            Self::ValuesUnread(error) => write!(f, "values could not be read, trying again: {error}"),
            Self::MembersUnread(error) => write!(f, "the members could not be read, trying again: {error}"),
            Self::StrayKey(key) => write!(f, "{key:?} stands among the members but is no member's key"),
            Self::NoMember { id, reason } => write!(f, "the key of member {id:?} is not a member's: {reason}"),
            Self::PutRight { id, cause } => {
                write!(f, "member {id:?} was {cause} though no other connector joined as it: it rejoins")
            }
            Self::RejoinFailed { id, error } => write!(f, "member {id:?} could not rejoin yet: {error}"),
            Self::LeaveFailed { id, error } => write!(f, "member {id:?} could not leave yet: {error}"),
            Self::ReleaseFailed { lock, error } => write!(f, "lock {:?} was not given back: {error}", shown(lock)),
            Self::RenewalFailed(error) => write!(f, "the safety ttl was not renewed: {error}"),
            Self::SweepFailed(error) => write!(f, "the sweep failed, crashes are seen late: {error}"),
            Self::TouchFailed(error) => write!(f, "the touch of expired members failed: {error}"),
            Self::ProbeFailed(error) => {
                write!(f, "processes that end are seen only when their leases run out: {error}")
            }
            Self::ShortenFailed(error) => {
                write!(f, "a process that has ended is seen only when its lease runs out: {error}")
            }
        }
    }
}
