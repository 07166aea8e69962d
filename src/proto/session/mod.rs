//! This connector's session: its lease, the members that live by it, and the requests that wait to be done.
//!
//! The first join, lock or value opens the session; while it is under way the others wait, so that no late opening
//! can revive a lease that has been lost. A request keeps its nonce when it is sent again over a new link, so that a
//! lost reply is not a second join.

mod replies;
mod requests;
mod trust;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use trust::Trust;

use super::effects::{Effects, StoredMember};
use super::in_flight::InFlight;
use super::io::{Answer, Change, Command, Contest, Edit, Output, Owner, Pulse, Reply, Request, Standing, Tag, Ticket};
use super::outbox::Outbox;
use super::timers::Timer;
use super::{Moment, Warning};
use crate::error::{Error, ErrorKind};
use crate::model::{Incarnation, LeaveCause, Member, MemberDraft, MemberId, SessionId, check_tags};
use crate::settings::{CoreSettings, OnConflict, OnLost};
use crate::wire::{HoldId, ListedHold, QueueEntry};

/// How many own members one renewal of the safety ttl covers.
const RENEW_CHUNK: usize = 500;

/// How long after a renewal of the safety ttl the next one comes, in ttls.
const RENEW_EVERY: u32 = 2;

/// How many times a renewal that failed is tried again in one ttl.
const RENEW_AGAIN: u32 = 2;

/// How many commands may be under way at once: each is timed from its sending, and must not wait for the others.
const WINDOW: usize = 256;

#[derive(Debug)]
enum Lease {
    Absent,
    Opening,
    /// `until` is when it cannot be vouched for any more, `over` when its ttl has passed.
    Held {
        session: SessionId,
        until: Moment,
        over: Moment,
        trust: Trust,
    },
}

#[derive(Debug)]
struct Own {
    life: u64,
    draft: MemberDraft,
    state: OwnState,
    edits: VecDeque<Op>,
    editing: bool,
}

/// A member of ours, and which one of those that have had its name: one that has left and joins again is another one.
#[derive(Clone, Debug)]
struct Who {
    id: MemberId,
    life: u64,
}

#[derive(Debug, PartialEq)]
enum OwnState {
    Joining,
    Held { incarnation: Incarnation, joined_at_ms: u64 },
    Rejoining { last: Incarnation, cause: LeaveCause },
    Ended(LeaveCause),
}

#[derive(Debug)]
struct Op {
    ticket: Option<Ticket>,
    /// None: it waits as long as it takes.
    deadline: Option<Moment>,
    nonce: u64,
    /// It was sent before, and its outcome is not known.
    uncertain: bool,
    attempts: u32,
    /// The session that it opened, or tried to.
    opens: Option<SessionId>,
    act: Act,
}

#[derive(Clone, Debug)]
enum Act {
    Join(Who, Contest),
    Edit(Who, Edit),
    Leave(MemberId, Option<Incarnation>),
    Close(SessionId),
    Open,
    GiveBack(QueueEntry),
}

#[derive(Debug)]
enum SessionCommand {
    Op {
        op: Op,
        /// The session it was sent for.
        session: SessionId,
        sent: Moment,
        progress: u64,
        draft: MemberDraft,
    },
    Renew,
    /// What the session holds, as far as it has been told, since this moment.
    Extend {
        session: SessionId,
        sent: Moment,
        held: Vec<ListedHold>,
    },
}

#[derive(Debug)]
pub(crate) struct Session {
    settings: CoreSettings,
    lease: Lease,
    sessions: u64,
    lives: u64,
    nonces: u64,
    own: HashMap<MemberId, Own>,
    with_edits: BTreeSet<MemberId>,
    waiting: VecDeque<Op>,
    delayed: Vec<(Moment, Op)>,
    in_flight: InFlight<SessionCommand>,
    /// A lease was lost and none has been won since.
    lost: bool,
    missing_beats: bool,
    closing: bool,
    /// Whether to renew the safety ttl.
    renewal_wanted: bool,
    /// Whether to ask what the session holds before the next renewal asks it anyway.
    audit_wanted: bool,
    /// How much the roster has been told so far.
    progress: u64,
}

impl Session {
    pub(crate) fn new(settings: CoreSettings) -> Self {
        Self {
            settings,
            lease: Lease::Absent,
            sessions: 0,
            lives: 0,
            nonces: 0,
            own: HashMap::new(),
            with_edits: BTreeSet::new(),
            waiting: VecDeque::new(),
            delayed: Vec::new(),
            in_flight: InFlight::new(Owner::Session),
            lost: false,
            missing_beats: false,
            closing: false,
            renewal_wanted: false,
            audit_wanted: false,
            progress: 0,
        }
    }

    /// The session that this connector has opened.
    pub(crate) fn session(&self) -> Option<&SessionId> {
        match &self.lease {
            Lease::Held { session, .. } => Some(session),
            Lease::Absent | Lease::Opening => None,
        }
    }

    pub(crate) fn misses_beats(&self) -> bool {
        self.missing_beats && matches!(self.lease, Lease::Held { .. })
    }

    /// Whether everything has been given back.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing && self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Sends whatever may be sent over a link that stands.
    pub(crate) fn dispatch(&mut self, now: Moment, progress: u64, out: &mut Outbox) {
        self.progress = progress;
        while self.in_flight.len() < WINDOW
            && let Some(op) = self.waiting.pop_front()
        {
            if matches!((&op.act, &self.lease), (Act::Join(..) | Act::Open, Lease::Opening)) {
                self.waiting.push_front(op);
                break;
            }
            self.send(now, op, out);
        }
        if !matches!(self.lease, Lease::Held { .. }) {
            return;
        }
        for id in std::mem::take(&mut self.with_edits) {
            let Some(own) = self.own.get_mut(&id) else { continue };
            if own.editing || !matches!(own.state, OwnState::Held { .. }) {
                self.with_edits.insert(id);
            } else if let Some(op) = own.edits.pop_front() {
                own.editing = true;
                self.send(now, op, out);
            }
        }
        self.renew(now, out);
        if std::mem::take(&mut self.audit_wanted)
            && let Some(session) = self.session().cloned()
        {
            self.extend(session, now, 0, Vec::new(), out);
        }
    }

    /// The session may hold a lock that the lock table does not know.
    pub(crate) fn audit(&mut self) {
        self.audit_wanted = true;
    }

    fn own_of(&self, who: &Who) -> Option<&Own> {
        self.own.get(&who.id).filter(|own| own.life == who.life)
    }

    fn own_of_mut(&mut self, who: &Who) -> Option<&mut Own> {
        self.own.get_mut(&who.id).filter(|own| own.life == who.life)
    }

    fn send(&mut self, now: Moment, mut op: Op, out: &mut Outbox) {
        let nonce = op.nonce;
        let mut draft = MemberDraft::default();
        let mut orphan = None;
        let command = match (&op.act, &self.lease) {
            (Act::Join(who, contest), lease) => {
                let id = &who.id;
                let own = match self.own_of(who) {
                    Some(Own { state: OwnState::Held { incarnation, .. }, .. }) => {
                        answer(out, op.ticket, Ok(Answer::Held(*incarnation)));
                        return;
                    }
                    Some(own) if !matches!(own.state, OwnState::Ended(_)) => own,
                    _ => {
                        answer(out, op.ticket, Err(not_held(id)));
                        let id = id.clone();
                        match op.opens.take() {
                            _ if !op.uncertain => {}
                            Some(session) => {
                                let close = self.op(Act::Close(session));
                                self.waiting.push_back(close);
                            }
                            None => self.take_back(id, None),
                        }
                        return;
                    }
                };
                draft = own.draft.clone();
                let (id, contest) = (id.clone(), *contest);
                let (session, opening) = match lease {
                    Lease::Held { session, .. } => {
                        orphan = op.opens.take();
                        (session.clone(), false)
                    }
                    Lease::Absent | Lease::Opening => (self.opening(&mut op), true),
                };
                Command::Join { id, session, opening, contest, nonce, draft: draft.clone() }
            }
            (Act::Open, Lease::Held { trust, .. }) => {
                let suspended =
                    || Error::new(ErrorKind::Timeout, "the lease is not vouched for: the server does not answer");
                answer(out, op.ticket, if *trust == Trust::Held { Ok(Answer::Opened) } else { Err(suspended()) });
                let orphan = op.opens.take().map(|session| self.op(Act::Close(session)));
                self.waiting.extend(orphan);
                return;
            }
            (Act::Open, Lease::Absent | Lease::Opening) => Command::Open { session: self.opening(&mut op) },
            // Also of a session that is lost: no other connector may know any more what it owned.
            (Act::GiveBack(queue_entry), _) => Command::Release { queue_entry: queue_entry.clone() },
            (Act::Edit(who, edit), Lease::Held { session, .. }) => {
                let id = &who.id;
                let Some((own, OwnState::Held { incarnation, joined_at_ms })) =
                    self.own_of(who).map(|own| (own, &own.state))
                else {
                    answer(out, op.ticket, Err(not_held(id)));
                    return;
                };
                draft = own.draft.clone();
                edit.apply(&mut draft);
                if let Err(error) = check_tags(&draft.tags) {
                    answer(out, op.ticket, Err(error));
                    self.edit_over(&who.clone());
                    return;
                }
                Command::Update {
                    id: id.clone(),
                    session: session.clone(),
                    incarnation: *incarnation,
                    joined_at_ms: *joined_at_ms,
                    nonce,
                    draft: draft.clone(),
                }
            }
            (Act::Edit(who, _), _) => {
                answer(out, op.ticket, Err(not_held(&who.id)));
                return;
            }
            // A new join under this name overwrites what is there.
            (Act::Leave(id, None), _)
                if self.own.get(id).is_some_and(|own| !matches!(own.state, OwnState::Ended(_))) =>
            {
                answer(out, op.ticket, Ok(Answer::Left(false)));
                return;
            }
            (Act::Leave(id, incarnation), Lease::Held { session, .. }) => {
                Command::Leave { id: id.clone(), session: session.clone(), incarnation: *incarnation }
            }
            (Act::Leave(..), _) => {
                answer(out, op.ticket, Ok(Answer::Left(false)));
                return;
            }
            (Act::Close(session), _) => Command::Close { session: session.clone() },
        };
        let (Command::Join { session, .. }
        | Command::Open { session }
        | Command::Release { queue_entry: QueueEntry { hold_id: HoldId { session, .. }, .. } }
        | Command::Update { session, .. }
        | Command::Leave { session, .. }
        | Command::Close { session }) = &command
        else {
            return;
        };
        let session = session.clone();
        let under_way = SessionCommand::Op { op, session, sent: now, progress: self.progress, draft };
        self.in_flight.send(command, under_way, out);
        if let Some(session) = orphan {
            let close = self.op(Act::Close(session));
            self.waiting.push_back(close);
        }
    }

    /// The session that this operation opens, the same one at every attempt.
    fn opening(&mut self, op: &mut Op) -> SessionId {
        self.lease = Lease::Opening;
        let session = op.opens.clone().unwrap_or_else(|| {
            self.sessions += 1;
            SessionId::new(format!("{}-{}", self.settings.connector, self.sessions))
        });
        op.opens = Some(session.clone());
        session
    }

    fn renew(&mut self, now: Moment, out: &mut Outbox) {
        let Some(session) = self.session().cloned() else { return };
        if !std::mem::take(&mut self.renewal_wanted) {
            return;
        }
        out.timers.set(Timer::Renewal, now + RENEW_EVERY * self.settings.ttl);
        let held: Vec<_> = self
            .own
            .iter()
            .filter(|(_, own)| matches!(own.state, OwnState::Held { .. }))
            .map(|(id, _)| id.clone())
            .collect();
        for ids in held.chunks(RENEW_CHUNK) {
            self.in_flight.send(
                Command::Renew { session: session.clone(), ids: ids.to_vec() },
                SessionCommand::Renew,
                out,
            );
        }
        self.extend(session, now, 0, Vec::new(), out);
    }

    /// Renews what else the session owns, from this place on.
    fn extend(&mut self, session: SessionId, sent: Moment, cursor: u64, held: Vec<ListedHold>, out: &mut Outbox) {
        let command = Command::Extend { session: session.clone(), cursor };
        self.in_flight.send(command, SessionCommand::Extend { session, sent, held }, out);
    }

    /// Puts an operation that was not answered back where it came from.
    fn park(&mut self, op: Op, out: &mut Outbox) {
        let Act::Edit(who, _) = &op.act else { return self.waiting.push_front(op) };
        if op.ticket.is_none() {
            // Its caller has given it up.
            return self.edit_over(&who.clone());
        }
        let id = who.id.clone();
        match self.own_of_mut(who) {
            Some(own) if !matches!(own.state, OwnState::Ended(_)) => {
                own.editing = false;
                own.edits.push_front(op);
                self.with_edits.insert(id);
            }
            _ => answer(out, op.ticket, Err(not_held(&id))),
        }
    }

    /// The link is gone: what was sent is sent again over the next.
    pub(crate) fn link_down(&mut self, out: &mut Outbox) {
        // A server that comes back from a crash, or a replica in its place, may not have what was renewed last.
        self.renewal_wanted = true;
        out.timers.clear(Timer::Renewal);
        for under_way in self.in_flight.drain().rev() {
            if let SessionCommand::Op { mut op, .. } = under_way {
                op.uncertain = true;
                self.park(op, out);
            }
        }
        if let Lease::Opening = self.lease {
            self.lease = Lease::Absent;
        }
    }

    /// The safety ttl is to be renewed.
    pub(crate) fn want_renewal(&mut self) {
        self.renewal_wanted = true;
    }

    /// Does again what failed some time ago.
    pub(crate) fn retry(&mut self, now: Moment, out: &mut Outbox) {
        let due = self.delayed.extract_if(.., |(at, _)| *at <= now);
        self.waiting.extend(due.map(|(_, op)| op));
        out.timers.set(Timer::Retry, self.delayed.iter().map(|(at, _)| *at).min());
    }
}

impl Act {
    fn name(&self) -> &'static str {
        match self {
            Self::Join(..) => "join",
            Self::Edit(..) => "update",
            Self::Leave(..) => "leave",
            Self::Close(_) => "close",
            Self::Open => "open a session",
            Self::GiveBack(_) => "release",
        }
    }
}

fn answer(out: &mut Outbox, ticket: Option<Ticket>, result: Result<Answer, Error>) {
    if let Some(ticket) = ticket {
        out.push(Output::Answer(ticket, result));
    }
}

fn not_held(id: &MemberId) -> Error {
    Error::new(ErrorKind::Lost, format!("member {id:?} is not held by this connector any more; rejoin it"))
}
