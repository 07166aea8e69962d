//! The pure core: what a connector knows and decides. No I/O, no clock, no executor, no randomness.
//!
//! The driver calls [`Machine::handle_input`], takes everything out of [`Machine::poll_output`], and calls
//! again with [`Input::Tick`] when [`Machine::poll_timeout`] has come. The form is that of `str0m` and `quinn-proto`.

mod acquisition;
mod in_flight;
mod io;
mod lease;
mod maintenance;
mod moment;
mod outbox;
mod presence;
mod roster;
mod session;
#[cfg(test)]
mod simulation;
mod source;
#[cfg(test)]
mod transcripts;
mod warning;
mod watched;

pub(crate) use acquisition::{Acquired, Acquisition, Step};
pub(crate) use io::*;
pub(crate) use lease::{LeaseKeeping, LeaseStep};
pub(crate) use moment::Moment;
pub(crate) use warning::Warning;

use crate::error::{Error, ErrorKind};
use crate::model::{Incarnation, LeaveCause, MemberId, SessionId};
use crate::mutant;
use crate::settings::CoreSettings;
use crate::wire::{KeyEvent, Notice};
use in_flight::InFlight;
use maintenance::{Maintenance, MaintenanceOutcome};
use outbox::Outbox;
use presence::{Presence, ProbeOutcome};
use roster::Roster;
use session::{Effects, Session, StoredMember};
use source::SourceOutcome;
use watched::WatchedValues;

/// The state of the link and of what is known through it.
#[derive(Debug)]
enum LinkState {
    Detached,
    /// Nothing tells of changes yet.
    Deaf,
    /// Listing and reading what the last link may have missed. Users see none of it until it is whole.
    Syncing {
        listing: u64,
    },
    Live,
}

/// A request to be answered when what was true at its time is known.
#[derive(Debug)]
struct PendingSync {
    ticket: Ticket,
    deadline: Moment,
    /// The listing that must have been made.
    listing: u64,
    /// How many hints must have been settled, once it has been.
    barrier: Option<u64>,
}

#[derive(Debug)]
enum Flight {
    List { sent: Moment },
    Read,
}

#[derive(Debug)]
pub(crate) struct Machine {
    link: LinkState,
    phase: Phase,
    roster: Roster,
    session: Session,
    maintenance: Maintenance,
    source: source::SourceSelection,
    presence: Presence,
    watched: WatchedValues,
    flying: InFlight<Flight>,
    list_wanted: bool,
    /// The listing made last: what must be settled for it to hold, and when it was asked.
    listed: Option<(u64, Moment)>,
    syncs: Vec<PendingSync>,
    /// What users were told by the server, and are told when the view shows it.
    answers: Vec<(Ticket, Result<Answer, Error>)>,
    /// Own members of which the roster knew something newer than they, and whose that was.
    contested: Vec<(MemberId, Incarnation, Option<SessionId>)>,
    closed: bool,
    out: Outbox,
}

impl Machine {
    pub(crate) fn new(settings: CoreSettings) -> Self {
        Self {
            link: LinkState::Detached,
            phase: Phase::Connecting,
            roster: Roster::default(),
            session: Session::new(settings.clone()),
            maintenance: Maintenance::new(settings.clone()),
            source: source::SourceSelection::new(settings.clone()),
            presence: Presence::new(settings),
            watched: WatchedValues::new(),
            flying: InFlight::new(Owner::Members),
            list_wanted: false,
            listed: None,
            syncs: Vec::new(),
            answers: Vec::new(),
            contested: Vec::new(),
            closed: false,
            out: Outbox::default(),
        }
    }

    /// The next thing to do. To be called until it answers `None` after every input.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// When to call again, if nothing else happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let syncs = self.syncs.iter().map(|sync| sync.deadline).min();
        let [session, maintenance] = [self.session.timeout(self.is_attached()), self.maintenance.timeout()];
        [session, maintenance, self.source.timeout(), self.presence.timeout(), syncs].into_iter().flatten().min()
    }

    pub(crate) fn handle_input(&mut self, now: Moment, input: Input) {
        match input {
            Input::LinkUp => self.link_up(now),
            Input::LinkDown => self.link_down(),
            Input::Notices(notices) => notices.into_iter().for_each(|notice| self.notice(now, notice)),
            Input::Reply(tag, reply) => self.reply(now, tag, reply),
            Input::Beat { session, until, over, pulse } => {
                let mut effects = Effects::default();
                self.session.beat(&session, (until, over), pulse, &mut effects, &mut self.out);
                self.take(now, effects);
            }
            Input::Request(ticket, Request::Sync, limit) => self.sync(ticket, now + limit),
            Input::Request(ticket, Request::Watch(topic), _) => {
                self.watched.watch(topic);
                self.out.push(Output::Answer(ticket, Ok(Answer::Watched)));
            }
            Input::Request(ticket, request, limit) => {
                if let Request::Close = request {
                    for sync in self.syncs.drain(..) {
                        self.out.push(Output::Answer(sync.ticket, Err(Error::closed())));
                    }
                }
                self.session.request(now + limit, ticket, request, &mut self.out);
            }
            Input::Unclaimed(id, incarnation) => self.session.unclaimed(&id, incarnation, &mut self.out),
            Input::GiveBack(queue_entry) => self.session.give_back(queue_entry),
            Input::Audit => self.session.audit(),
            Input::Suspended => self.session.suspended(now, &mut self.out),
            Input::Tick => {}
        }
        self.tick(now);
        self.advance(now);
        self.settle(now);
    }

    fn is_attached(&self) -> bool {
        !matches!(self.link, LinkState::Detached)
    }

    fn link_up(&mut self, now: Moment) {
        self.link_down();
        self.link = LinkState::Deaf;
        self.source.link_up(&mut self.out);
        if mutant::is("snapshot_before_subscribe") {
            self.listening(now);
        }
    }

    /// A source of hints stands: what it could not tell before is listed now.
    fn listening(&mut self, now: Moment) {
        if mutant::is("snapshot_before_subscribe") && !matches!(self.link, LinkState::Deaf) {
            return self.source.prove(now, &mut self.out);
        }
        if let LinkState::Deaf = self.link {
            self.link = LinkState::Syncing { listing: self.roster.listings() + 1 };
            self.presence.link_up(now);
        } else {
            self.roster.doubt();
            self.watched.relisten();
        }
        self.reconcile(now);
    }

    fn reconcile(&mut self, now: Moment) {
        self.maintenance.reconcile(now, self.source.is_proven(), &mut self.out);
        self.source.prove(now, &mut self.out);
        self.watched.reconcile();
        self.list_wanted = true;
    }

    fn link_down(&mut self) {
        self.link = LinkState::Detached;
        self.roster.abandon();
        self.session.link_down(&mut self.out);
        self.maintenance.link_down();
        self.source.link_down(&mut self.out);
        self.presence.link_down();
        self.watched.link_down();
        self.flying.clear();
        self.list_wanted = false;
        self.listed = None;
        for sync in &mut self.syncs {
            (sync.listing, sync.barrier) = (self.roster.listings() + 1, None);
        }
    }

    fn drop_link(&mut self, error: Error) {
        self.link_down();
        self.out.push(Output::DropLink(error));
    }

    fn notice(&mut self, now: Moment, notice: Notice) {
        match notice {
            _ if !self.is_attached() => {}
            Notice::Member(id, KeyEvent::Expired) if mutant::is("expired_believed") => {
                let present = self.roster.incarnation(&id);
                let left = present.and_then(|present| self.roster.depart(&id, present, LeaveCause::Expired));
                self.apply(now, left.into_iter().collect());
            }
            Notice::Member(id, key_event) => self.roster.hint(id, key_event),
            Notice::Canary(key_event) => {
                let was_proven = self.source.is_proven();
                self.source.canary(now, key_event, self.maintenance.lag(), &mut self.out);
                if !was_proven && self.source.is_proven() {
                    self.maintenance.relax(now);
                }
            }
            Notice::Everything => {
                self.roster.doubt();
                self.watched.doubt();
                self.list_wanted = true;
            }
            Notice::Path(path, key_event) => self.watched.hint(path, key_event),
            Notice::Stray(key) => {
                self.out.push(Output::Warn(Warning::StrayKey(key)));
            }
        }
    }

    fn sync(&mut self, ticket: Ticket, deadline: Moment) {
        self.list_wanted = true;
        self.syncs.push(PendingSync { ticket, deadline, listing: self.roster.listings() + 1, barrier: None });
        if self.is_attached() {
            self.maintenance.sweep(&mut self.out);
        }
    }

    fn reply(&mut self, now: Moment, tag: Tag, reply: Result<Reply, Error>) {
        match tag.owner {
            Owner::Session => {
                let effects = self.session.reply(now, tag, reply, &mut self.out);
                self.take(now, effects);
            }
            Owner::Members => self.looked_up(now, tag, reply),
            Owner::Watched => {
                if let Ok(
                    Reply::ValuesFound { due, .. } | Reply::ValuesUnchanged { due } | Reply::ValuesListed { due, .. },
                ) = &reply
                {
                    self.maintenance.due(now, *due);
                }
                let broken = self.watched.reply(tag, reply, &mut self.out);
                broken.into_iter().for_each(|error| self.drop_link(error));
            }
            Owner::Maintenance => {
                let Some(outcome) = self.maintenance.reply(now, tag, reply.as_ref().err(), &mut self.out) else {
                    return;
                };
                if let Ok(Reply::Swept { due, more, dying }) = reply {
                    self.maintenance.swept(now, due, more, dying);
                }
                self.maintained(outcome);
            }
            Owner::Source => {
                let Some(SourceOutcome { anew, broken }) = self.source.reply(now, tag, &reply, &mut self.out) else {
                    return;
                };
                if anew {
                    self.listening(now);
                }
                broken.into_iter().for_each(|error| self.drop_link(error));
            }
            Owner::Presence => {
                let own = self.session.session();
                let Some(ProbeOutcome { due, broken }) = self.presence.reply(now, tag, &reply, own, &mut self.out)
                else {
                    return;
                };
                self.maintenance.due(now, due);
                broken.into_iter().for_each(|error| self.drop_link(error));
            }
        }
    }

    fn looked_up(&mut self, now: Moment, tag: Tag, reply: Result<Reply, Error>) {
        let Some(flight) = self.flying.take(tag) else { return };
        match (flight, reply) {
            (Flight::Read, Ok(Reply::Found { due, findings })) => {
                self.maintenance.due(now, due);
                let (changes, strange) = self.roster.found(findings);
                strange.into_iter().for_each(|warning| self.out.push(Output::Warn(warning)));
                self.apply(now, changes);
            }
            (Flight::List { sent }, Ok(Reply::Unchanged { due })) => {
                self.maintenance.due(now, due);
                self.roster.unchanged();
                self.listing_done(sent);
            }
            (Flight::List { sent }, Ok(Reply::Part { due, known, more, entries })) => {
                self.maintenance.due(now, due);
                match self.roster.listed(known, more, entries) {
                    Some(after) => {
                        let command = Command::List { known: None, after: Some(after) };
                        self.flying.send(command, Flight::List { sent }, &mut self.out);
                    }
                    None => self.listing_done(sent),
                }
            }
            (flight, reply) => {
                let error = reply.err().unwrap_or_else(|| Error::unexpected("a look-up of members"));
                self.lookup_failed(&flight, error);
            }
        }
    }

    fn lookup_failed(&mut self, flight: &Flight, error: Error) {
        match flight {
            Flight::List { .. } => self.roster.listing_failed(),
            Flight::Read => self.roster.read_failed(),
        }
        if error.is_of_the_link() || matches!(self.link, LinkState::Syncing { .. }) {
            self.drop_link(error);
        } else {
            self.out.push(Output::Warn(Warning::MembersUnread(error.clone())));
            for sync in self.syncs.drain(..) {
                self.out.push(Output::Answer(sync.ticket, Err(error.clone())));
            }
        }
    }

    fn listing_done(&mut self, sent: Moment) {
        let barrier = self.roster.barrier();
        self.listed = Some((barrier, sent));
        let made = self.roster.listings();
        for sync in self.syncs.iter_mut().filter(|sync| sync.listing <= made) {
            sync.barrier.get_or_insert(barrier);
        }
    }

    /// New truth: for the own members first, then for the users, unless they are to get it all at once.
    fn apply(&mut self, now: Moment, changes: Vec<Change>) {
        let mut effects = Effects::default();
        for change in &changes {
            if let Change::Joined(member) = change
                && self.session.session() != Some(member.session())
            {
                self.presence.joined(now, member.session());
            }
        }
        self.session.observe(&changes, &mut effects, &mut self.out);
        if let LinkState::Live = self.link {
            self.out.changes(changes);
        }
        self.take(now, effects);
    }

    fn take(&mut self, now: Moment, effects: Effects) {
        let mut changes = Vec::new();
        for (id, incarnation, cause) in effects.departed {
            changes.extend(self.roster.depart(&id, incarnation, cause));
        }
        for StoredMember { member, settled } in effects.stored {
            let (id, incarnation) = (member.id().clone(), member.incarnation());
            self.roster.wrote(member, &mut changes);
            if self.roster.incarnation(&id) != Some(incarnation) {
                let rival = self.roster.session(&id).cloned();
                self.contested.push((id, incarnation, rival));
            } else if self.roster.settled() != settled {
                self.roster.hint(id, KeyEvent::Other);
            }
        }
        for id in effects.hints {
            self.roster.hint(id, KeyEvent::Other);
        }
        if !changes.is_empty() {
            self.apply(now, changes);
        }
        self.answers.extend(effects.answers);
        if let Some(error) = effects.broken {
            self.drop_link(error);
        }
    }

    fn maintained(&mut self, outcome: MaintenanceOutcome) {
        for id in outcome.hints {
            self.roster.hint(id, KeyEvent::Other);
        }
        if let Some(error) = outcome.broken {
            self.drop_link(error);
        }
    }

    fn tick(&mut self, now: Moment) {
        self.session.tick(now, &mut self.out);
        if self.is_attached() {
            let was_proven = self.source.is_proven();
            self.source.tick(now, &mut self.out);
            if was_proven && !self.source.is_proven() {
                self.maintenance.hurry(now);
            }
            self.presence.tick(now, &mut self.out);
            if self.maintenance.tick(now, &mut self.out) {
                self.reconcile(now);
            }
        }
        let (over, waiting) = std::mem::take(&mut self.syncs).into_iter().partition(|sync| sync.deadline <= now);
        self.syncs = waiting;
        let over: Vec<PendingSync> = over;
        for sync in over {
            let message = "the server did not tell who is a member in time";
            self.out.push(Output::Answer(sync.ticket, Err(Error::new(ErrorKind::Timeout, message))));
        }
    }

    /// Sends what can be sent.
    fn advance(&mut self, now: Moment) {
        if !self.is_attached() {
            return;
        }
        self.session.dispatch(now, self.roster.settled(), &mut self.out);
        if let LinkState::Deaf = self.link {
            return;
        }
        if self.list_wanted
            && let Some(known) = self.roster.begin_listing()
        {
            self.list_wanted = false;
            let command = Command::List { known, after: None };
            self.flying.send(command, Flight::List { sent: now }, &mut self.out);
        }
        if let Some(wanted) = self.roster.next_read() {
            self.flying.send(Command::Read { wanted }, Flight::Read, &mut self.out);
        }
        self.watched.advance(&mut self.out);
    }

    /// Members of ours of which something newer was known than the server has answered: once they have been read, that
    /// was either true, or a server's that has lost its data since.
    fn decide_contested(&mut self) {
        if !matches!(self.link, LinkState::Live) {
            return;
        }
        let decided = self.contested.extract_if(.., |(id, ..)| !self.roster.is_asked_for(id));
        for (id, incarnation, rival) in decided {
            if self.roster.incarnation(&id) != Some(incarnation) {
                let by = self.roster.session(&id).or(rival.as_ref());
                self.session.replaced(&id, incarnation, by, &mut self.out);
            }
        }
    }

    /// Says what has become true.
    fn settle(&mut self, now: Moment) {
        self.decide_contested();
        let settled = self.roster.settled();
        if let Some((_, asked)) = self.listed.take_if(|(barrier, _)| *barrier <= settled) {
            if let LinkState::Syncing { listing } = self.link
                && listing <= self.roster.listings()
            {
                self.link = LinkState::Live;
                self.out.push(Output::Snapshot(self.roster.members().cloned().collect()));
            }
            self.out.push(Output::Confirmed(asked));
        }
        if !matches!(self.link, LinkState::Syncing { .. }) {
            let answers = self.answers.drain(..).map(|(ticket, result)| Output::Answer(ticket, result));
            answers.for_each(|answer| self.out.push(answer));
        }
        self.syncs.retain(|sync| {
            let synced = sync.barrier.is_some_and(|barrier| barrier <= settled);
            if synced {
                self.out.push(Output::Answer(sync.ticket, Ok(Answer::Synced)));
            }
            !synced
        });
        let phase = match (&self.link, self.phase) {
            _ if self.session.is_closed() => Phase::Closed,
            _ if self.session.is_lost() => Phase::Lost,
            (LinkState::Live, _) if !self.session.misses_beats() && !self.session.is_suspended() => Phase::Connected,
            (_, phase @ (Phase::Connecting | Phase::Suspended(_))) => phase,
            _ => Phase::Suspended(now),
        };
        if phase != self.phase {
            self.phase = phase;
            self.out.push(Output::State(phase));
        }
        if phase == Phase::Closed && !self.closed {
            self.closed = true;
            self.out.push(Output::Closed);
        }
    }
}
