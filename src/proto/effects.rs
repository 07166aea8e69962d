//! What a part of the core has found out that concerns the others.

use std::sync::Arc;
use std::time::Duration;

use super::Moment;
use super::io::{Answer, Change, Ticket};
use crate::error::Error;
use crate::model::{Incarnation, LeaveCause, Member, MemberId};

/// A record of ours, and how much had been read or told when it was sent: what came since may be newer.
#[derive(Debug)]
pub(crate) struct StoredMember {
    pub(crate) member: Arc<Member>,
    pub(crate) progress: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// The time to the earliest deadline in the index of leases, where it was told.
    pub(crate) due: Option<Duration>,
    /// A source stands from now on: changes from before it must be listed.
    pub(crate) is_listening_anew: bool,
    /// The members have been listed, as they were at this moment or later.
    pub(crate) listed: Option<Moment>,
    /// What has been read of the members.
    pub(crate) changes: Vec<Change>,
    /// Incarnations that are known to be over. They count before what is stored.
    pub(crate) departed: Vec<(MemberId, Incarnation, LeaveCause)>,
    /// Records that are known because we wrote them.
    pub(crate) stored: Vec<StoredMember>,
    /// Ids to read.
    pub(crate) hints: Vec<MemberId>,
    /// Ids of members that the server has taken for dead, and whose keys are gone now.
    pub(crate) swept: Vec<MemberId>,
    /// To be given when what they speak of can be seen.
    pub(crate) answers: Vec<(Ticket, Result<Answer, Error>)>,
    /// The members could not be listed or read.
    pub(crate) unread: Option<Error>,
    /// The link turned out to be of no use.
    pub(crate) broken: Option<Error>,
}

impl Effects {
    pub(crate) fn answer(&mut self, ticket: Option<Ticket>, result: Result<Answer, Error>) {
        self.answers.extend(ticket.map(|ticket| (ticket, result)));
    }
}
