//! The pure core: what a connector knows and decides. No I/O, no clock, no executor, no randomness.
//!
//! The driver calls [`Machine::handle_input`], takes everything out of [`Machine::poll_output`], and calls
//! again with [`Input::Tick`] when [`Machine::poll_timeout`] has come. The form is that of `str0m` and `quinn-proto`.

mod acquisition;
mod effects;
mod in_flight;
mod io;
mod lease;
mod lookups;
mod maintenance;
mod moment;
mod outbox;
mod presence;
mod roster;
mod session;
#[cfg(test)]
mod simulation;
mod source;
mod syncs;
mod timers;
#[cfg(test)]
mod transcripts;
mod warning;
mod watched;

pub(crate) use acquisition::{Acquired, Acquisition, Step};
pub(crate) use io::*;
pub(crate) use lease::{LeaseKeeping, LeaseStep};
pub(crate) use moment::Moment;
pub(crate) use warning::Warning;

use crate::error::Error;
use crate::model::{Incarnation, LeaveCause, MemberId, SessionId};
use crate::mutant;
use crate::settings::CoreSettings;
use crate::wire::{KeyEvent, News, Notice};
use effects::{Effects, StoredMember};
use maintenance::Maintenance;
use outbox::Outbox;
use presence::Presence;
use roster::Roster;
use session::Session;
use source::SourceSelection;
use syncs::Syncs;
use timers::Timer;
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

#[derive(Debug)]
pub(crate) struct Machine {
    link: LinkState,
    phase: Phase,
    roster: Roster,
    session: Session,
    maintenance: Maintenance,
    source: SourceSelection,
    presence: Presence,
    watched: WatchedValues,
    /// The listing made last: what must be settled for it to hold, and when it was asked.
    listed: Option<(u64, Moment)>,
    syncs: Syncs,
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
            roster: Roster::new(settings.connector.clone()),
            session: Session::new(settings.clone()),
            maintenance: Maintenance::new(settings.clone()),
            source: SourceSelection::new(settings.clone()),
            presence: Presence::new(settings),
            watched: WatchedValues::new(),
            listed: None,
            syncs: Syncs::default(),
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
        self.out.timers.next()
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
                    self.syncs.fail(&Error::closed(), &mut self.out);
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
            self.presence.link_up(now, &mut self.out);
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
        self.roster.want_listing();
    }

    fn link_down(&mut self) {
        self.link = LinkState::Detached;
        self.roster.abandon();
        self.session.link_down(&mut self.out);
        self.maintenance.link_down(&mut self.out);
        self.source.link_down(&mut self.out);
        self.presence.link_down(&mut self.out);
        self.watched.link_down();
        self.listed = None;
        self.syncs.link_down(self.roster.listings() + 1);
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
            Notice::Member(id, key_event) => self.roster.notified(id, key_event),
            Notice::News(news) => self.news(now, news),
            Notice::Canary(key_event) => {
                let was_proven = self.source.is_proven();
                self.source.canary(now, key_event, self.maintenance.lag(), &mut self.out);
                if !was_proven && self.source.is_proven() {
                    self.maintenance.relax(now, &mut self.out);
                }
            }
            Notice::Everything => {
                self.roster.doubt();
                self.watched.doubt();
                self.roster.want_listing();
            }
            Notice::Path(path, key_event) => self.watched.hint(path, key_event),
            Notice::Stray(key) => {
                self.out.push(Output::Warn(Warning::StrayKey(key)));
            }
        }
    }

    /// What another connector's script has told. Of our own members the answers to our requests tell, and reads.
    fn news(&mut self, now: Moment, news: News) {
        if !matches!(self.link, LinkState::Live) {
            return news.ids().for_each(|id| self.roster.hint(id.clone(), KeyEvent::Other));
        }
        let mut effects = Effects::default();
        self.roster.news(news, &mut effects);
        self.take(now, effects);
    }

    fn sync(&mut self, ticket: Ticket, deadline: Moment) {
        self.roster.want_listing();
        self.syncs.ask(ticket, deadline, self.roster.listings() + 1, &mut self.out);
        if self.is_attached() {
            self.maintenance.sweep(&mut self.out);
        }
    }

    fn reply(&mut self, now: Moment, tag: Tag, reply: Result<Reply, Error>) {
        let (mut effects, out) = (Effects::default(), &mut self.out);
        match tag.owner {
            Owner::Session => self.session.reply(now, tag, reply, &mut effects, out),
            Owner::Members => self.roster.reply(tag, reply, &mut effects, out),
            Owner::Watched => self.watched.reply(tag, reply, &mut effects, out),
            Owner::Maintenance => self.maintenance.reply(now, tag, reply, &mut effects, out),
            Owner::Source => self.source.reply(now, tag, reply, &mut effects, out),
            Owner::Presence => {
                let own = self.session.session();
                self.presence.reply(now, tag, reply, own, &mut effects, out);
            }
        }
        self.take(now, effects);
    }

    fn listing_done(&mut self, sent: Moment) {
        let barrier = self.roster.barrier();
        self.listed = Some((barrier, sent));
        self.syncs.listed(self.roster.listings(), barrier);
    }

    /// The members could not be looked up: before they are known, nothing can begin over this link.
    fn unread(&mut self, error: Error) {
        if let LinkState::Syncing { .. } = self.link {
            return self.drop_link(error);
        }
        self.out.push(Output::Warn(Warning::MembersUnread(error.clone())));
        self.syncs.fail(&error, &mut self.out);
    }

    /// New truth: for the own members first, then for the users, unless they are to get it all at once.
    fn apply(&mut self, now: Moment, changes: Vec<Change>) {
        let mut effects = Effects::default();
        for change in &changes {
            if let Change::Joined(member) = change
                && self.session.session() != Some(member.session())
            {
                self.presence.joined(now, member.session(), &mut self.out);
            }
        }
        self.session.observe(&changes, &mut effects, &mut self.out);
        if let LinkState::Live = self.link {
            self.out.changes(changes);
        }
        self.take(now, effects);
    }

    fn take(&mut self, now: Moment, effects: Effects) {
        self.maintenance.due(now, effects.due, &mut self.out);
        if effects.is_listening_anew {
            self.listening(now);
        }
        if let Some(sent) = effects.listed {
            self.listing_done(sent);
        }
        let mut changes = effects.changes;
        for (id, incarnation, cause) in effects.departed {
            changes.extend(self.roster.depart(&id, incarnation, cause));
        }
        for StoredMember { member, progress } in effects.stored {
            let (id, incarnation) = (member.id().clone(), member.incarnation());
            self.roster.wrote(member, &mut changes);
            if self.roster.incarnation(&id) != Some(incarnation) {
                let rival = self.roster.session(&id).cloned();
                self.contested.push((id, incarnation, rival));
            } else if self.roster.progress() != progress {
                self.roster.hint(id, KeyEvent::Other);
            }
        }
        for id in effects.hints {
            self.roster.hint(id, KeyEvent::Other);
        }
        self.roster.swept(effects.swept);
        if !changes.is_empty() {
            self.apply(now, changes);
        }
        self.answers.extend(effects.answers);
        effects.unread.into_iter().for_each(|error| self.unread(error));
        effects.broken.into_iter().for_each(|error| self.drop_link(error));
    }

    /// Lets time have its effect.
    fn tick(&mut self, now: Moment) {
        for timer in Timer::ALL {
            if let Some(due) = self.out.timers.expired(timer, now) {
                self.expired(now, timer, due);
            }
        }
    }

    fn expired(&mut self, now: Moment, timer: Timer, due: Moment) {
        let (was_proven, out) = (self.source.is_proven(), &mut self.out);
        match timer {
            Timer::Lease => self.session.distrust(now, out),
            Timer::Retry => self.session.retry(now, out),
            Timer::Request => self.session.expire(now, out),
            Timer::Renewal => self.session.want_renewal(),
            Timer::Canary => self.source.canary_due(out),
            Timer::BetterSource => self.source.retry(now, out),
            Timer::Place => self.presence.ask(out),
            Timer::Probers => self.presence.check(out),
            Timer::Probe => self.presence.probe(now, out),
            Timer::Touch => self.maintenance.touch(now, out),
            Timer::Sweep => self.maintenance.sweep_due(now, due, out),
            Timer::Reconcile => self.reconcile(now),
            Timer::Sync => self.syncs.expire(now, out),
        }
        if was_proven && !self.source.is_proven() {
            self.maintenance.hurry(now, &mut self.out);
        }
    }

    /// Sends what can be sent.
    fn advance(&mut self, now: Moment) {
        if !self.is_attached() {
            return;
        }
        self.session.dispatch(now, self.roster.progress(), &mut self.out);
        if let LinkState::Deaf = self.link {
            return;
        }
        self.roster.advance(now, &mut self.out);
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
        self.syncs.settled(settled, &mut self.out);
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
