//! Requests that are answered when what was true at their time is known.

use super::Moment;
use super::io::{Answer, Output, Ticket};
use super::outbox::Outbox;
use super::timers::Timer;
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
struct PendingSync {
    ticket: Ticket,
    deadline: Moment,
    /// The listing that must have been made.
    listing: u64,
    /// How many hints must have been settled, once it has been.
    barrier: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Syncs {
    pending: Vec<PendingSync>,
}

impl Syncs {
    pub(crate) fn ask(&mut self, ticket: Ticket, deadline: Moment, listing: u64, out: &mut Outbox) {
        self.pending.push(PendingSync { ticket, deadline, listing, barrier: None });
        out.timers.set_sooner(Timer::Sync, deadline);
    }

    /// The link that would have told it is gone: this listing will, over the next.
    pub(crate) fn link_down(&mut self, listing: u64) {
        for sync in &mut self.pending {
            (sync.listing, sync.barrier) = (listing, None);
        }
    }

    /// So many listings have been made. The last holds once so many hints are settled.
    pub(crate) fn listed(&mut self, listings: u64, barrier: u64) {
        for sync in self.pending.iter_mut().filter(|sync| sync.listing <= listings) {
            sync.barrier.get_or_insert(barrier);
        }
    }

    /// So many hints are settled.
    pub(crate) fn settled(&mut self, settled: u64, out: &mut Outbox) {
        let is_done = |sync: &mut PendingSync| sync.barrier.is_some_and(|barrier| barrier <= settled);
        for sync in self.pending.extract_if(.., is_done) {
            out.push(Output::Answer(sync.ticket, Ok(Answer::Synced)));
        }
        self.time(out);
    }

    pub(crate) fn fail(&mut self, error: &Error, out: &mut Outbox) {
        for sync in self.pending.drain(..) {
            out.push(Output::Answer(sync.ticket, Err(error.clone())));
        }
        self.time(out);
    }

    /// Answers those whose time is up.
    pub(crate) fn expire(&mut self, now: Moment, out: &mut Outbox) {
        for sync in self.pending.extract_if(.., |sync| sync.deadline <= now) {
            let message = "the server did not tell who is a member in time";
            out.push(Output::Answer(sync.ticket, Err(Error::new(ErrorKind::Timeout, message))));
        }
        self.time(out);
    }

    fn time(&self, out: &mut Outbox) {
        out.timers.set(Timer::Sync, self.pending.iter().map(|sync| sync.deadline).min());
    }
}
