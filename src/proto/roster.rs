//! The roster: the members, as far as this connector has been told, and the ids that it has been told to read.
//!
//! Everything takes one way: a hint names an id, a read of that id answers, the answer becomes changes. A listing
//! only finds ids to hint at. One read is under way at a time, so answers arrive in the order of the server, and
//! a hint that comes during a read of its id is simply read again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::effects::Effects;
use super::in_flight::InFlight;
use super::io::{Change, Command, Entry, Finding, Known, Output, Owner, Reply, Tag, Written};
use super::outbox::Outbox;
use super::{Moment, Warning};
use crate::error::Error;
use crate::model::{Incarnation, LeaveCause, Member, MemberId, SessionId};
use crate::mutant;
use crate::wire::KeyEvent;

/// How many ids one read asks for.
pub(crate) const READ_CHUNK: usize = 500;

#[derive(Debug)]
enum Flight {
    List { sent: Moment },
    Read,
}

#[derive(Debug)]
pub(crate) struct Roster {
    members: HashMap<MemberId, Arc<Member>>,
    /// Incarnations that have left while a read might still bring word of them.
    departed: HashMap<MemberId, Incarnation>,
    hinted: HashMap<MemberId, KeyEvent>,
    queue: VecDeque<MemberId>,
    reading: Vec<Asked>,
    /// How many hints have ever been queued, and how many of them have been answered, in order.
    queued: u64,
    settled: u64,
    known: Option<Known>,
    listing: Option<Listing>,
    listings: u64,
    list_wanted: bool,
    flying: InFlight<Flight>,
}

#[derive(Debug)]
struct Asked {
    id: MemberId,
    /// What was known when the read was sent: the member that was there, and the one that had left.
    incarnation: Option<Incarnation>,
    departed: Option<Incarnation>,
    /// This connector has written it since: it is not known which was first.
    overtaken: bool,
    key_event: KeyEvent,
}

#[derive(Debug, Default)]
struct Listing {
    first: Option<Known>,
    seen: HashSet<MemberId>,
    after: Option<Incarnation>,
}

impl Roster {
    pub(crate) fn new() -> Self {
        Self {
            members: HashMap::new(),
            departed: HashMap::new(),
            hinted: HashMap::new(),
            queue: VecDeque::new(),
            reading: Vec::new(),
            queued: 0,
            settled: 0,
            known: None,
            listing: None,
            listings: 0,
            list_wanted: false,
            flying: InFlight::new(Owner::Members),
        }
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
    }

    pub(crate) fn incarnation(&self, id: &MemberId) -> Option<Incarnation> {
        self.members.get(id).map(|member| member.incarnation())
    }

    /// The session of the member that is known under this name.
    pub(crate) fn session(&self, id: &MemberId) -> Option<&SessionId> {
        self.members.get(id).map(|member| member.session())
    }

    /// Forgets what was being asked: the link that would have answered is gone. The members stay as they were.
    pub(crate) fn abandon(&mut self) {
        self.hinted.clear();
        self.queue.clear();
        self.reading.clear();
        self.settled = self.queued;
        self.listing = None;
        self.list_wanted = false;
        self.known = None;
        self.flying.clear();
    }

    /// There is to be a listing.
    pub(crate) fn want_listing(&mut self) {
        self.list_wanted = true;
    }

    /// No longer trusts the last listing, so that the next one is made in full.
    pub(crate) fn doubt(&mut self) {
        self.known = None;
    }

    pub(crate) fn hint(&mut self, id: MemberId, key_event: KeyEvent) {
        if key_event == KeyEvent::Expire && self.members.get(&id).is_some_and(|member| !member.is_adopted()) {
            return;
        }
        if mutant::is("read_over_newer_hint") && self.reading.iter().any(|asked| asked.id == id) {
            return;
        }
        if self.hinted.insert(id.clone(), key_event).is_none() {
            self.queue.push_back(id);
            self.queued += 1;
        }
    }

    /// Sends what can be sent over a link that stands.
    pub(crate) fn advance(&mut self, now: Moment, out: &mut Outbox) {
        if self.list_wanted
            && let Some(known) = self.begin_listing()
        {
            self.list_wanted = false;
            self.flying.send(Command::List { known, after: None }, Flight::List { sent: now }, out);
        }
        if let Some(wanted) = self.next_read() {
            self.flying.send(Command::Read { wanted }, Flight::Read, out);
        }
    }

    /// Takes the reply to a command of ours.
    pub(crate) fn reply(&mut self, tag: Tag, reply: Result<Reply, Error>, effects: &mut Effects, out: &mut Outbox) {
        let Some(flight) = self.flying.take(tag) else { return };
        match (flight, reply) {
            (Flight::Read, Ok(Reply::Found { due, findings })) => {
                effects.due = due;
                self.found(findings, &mut effects.changes, out);
            }
            (Flight::List { sent }, Ok(Reply::Unchanged { due })) => {
                (effects.due, effects.listed) = (due, Some(sent));
                self.unchanged();
            }
            (Flight::List { sent }, Ok(Reply::Part { due, known, more, entries })) => {
                effects.due = due;
                match self.listed(known, more, entries) {
                    Some(after) => {
                        let command = Command::List { known: None, after: Some(after) };
                        self.flying.send(command, Flight::List { sent }, out);
                    }
                    None => effects.listed = Some(sent),
                }
            }
            (flight, reply) => {
                let error = reply.err().unwrap_or_else(|| Error::unexpected("a look-up of members"));
                match flight {
                    Flight::List { .. } => self.listing_failed(),
                    Flight::Read => self.read_failed(),
                }
                let to = if error.is_of_the_link() { &mut effects.broken } else { &mut effects.unread };
                *to = Some(error);
            }
        }
    }

    /// The next ids to read, each with the session that held it, unless a read is under way.
    fn next_read(&mut self) -> Option<Vec<(MemberId, Option<SessionId>)>> {
        if !self.reading.is_empty() || self.queue.is_empty() {
            return None;
        }
        let take = self.queue.len().min(READ_CHUNK);
        let mut wanted = Vec::with_capacity(take);
        for id in self.queue.drain(..take) {
            let key_event = self.hinted.remove(&id).unwrap_or(KeyEvent::Other);
            let member = self.members.get(&id);
            wanted.push((id.clone(), member.map(|member| member.session().clone())));
            let (incarnation, departed) = (member.map(|member| member.incarnation()), self.departed.get(&id).copied());
            self.reading.push(Asked { id, incarnation, departed, overtaken: false, key_event });
        }
        Some(wanted)
    }

    /// The answers to the read under way become changes.
    fn found(&mut self, findings: Vec<Finding>, changes: &mut Vec<Change>, out: &mut Outbox) {
        let asked = std::mem::take(&mut self.reading);
        self.settled += asked.len() as u64;
        let mut later = Vec::new();
        for (asked, finding) in asked.into_iter().zip(findings) {
            let known = self.incarnation(&asked.id);
            let confirms = matches!(&finding, Finding::Record(member) if Some(member.incarnation()) == known);
            if asked.overtaken && !confirms {
                self.hint(asked.id, asked.key_event);
                continue;
            }
            let cause = match finding {
                Finding::Record(member) => {
                    self.forget_what_the_server_forgot(&asked, member.incarnation(), changes);
                    self.store(member, changes);
                    continue;
                }
                Finding::Later => {
                    later.push(asked);
                    continue;
                }
                Finding::NoMember(why) => {
                    out.push(Output::Warn(Warning::NoMember { id: asked.id.clone(), reason: why }));
                    LeaveCause::Removed
                }
                Finding::Left => LeaveCause::Left,
                Finding::Expired => LeaveCause::Expired,
                Finding::Removed if asked.key_event == KeyEvent::Evicted => LeaveCause::Evicted,
                Finding::Removed => LeaveCause::Removed,
                Finding::Gone => match asked.key_event {
                    KeyEvent::Deleted => LeaveCause::Left,
                    KeyEvent::Evicted => LeaveCause::Evicted,
                    _ => LeaveCause::Expired,
                },
            };
            changes.extend(asked.incarnation.and_then(|then| self.depart(&asked.id, then, cause)));
        }
        for asked in later.into_iter().rev() {
            self.settled -= 1;
            if self.hinted.insert(asked.id.clone(), asked.key_event).is_none() {
                self.queue.push_front(asked.id);
            } else {
                self.settled += 1;
            }
        }
        if self.is_idle() {
            self.departed.clear();
        }
    }

    /// The read under way brought no answer: what it asked is asked by the next full listing.
    fn read_failed(&mut self) {
        self.settled += self.reading.len() as u64;
        self.reading.clear();
        self.known = None;
    }

    /// A server that has lost its data while its clock was behind begins again with lower incarnations. What was
    /// known when the read was sent, the server knew before it answered: if it says less now, less is true.
    fn forget_what_the_server_forgot(&mut self, asked: &Asked, now: Incarnation, changes: &mut Vec<Change>) {
        if asked.departed.is_some() && asked.departed == self.departed.get(&asked.id).copied() {
            self.departed.remove(&asked.id);
        }
        if asked.incarnation > Some(now) && asked.incarnation == self.incarnation(&asked.id) {
            let old = self.members.remove(&asked.id);
            changes.extend(old.map(|member| Change::Left { member, cause: LeaveCause::Replaced }));
        }
    }

    /// Takes a record that we wrote.
    pub(crate) fn wrote(&mut self, new: Arc<Member>, changes: &mut Vec<Change>) {
        if let Some(asked) = self.reading.iter_mut().find(|asked| asked.id == *new.id()) {
            asked.overtaken = true;
        }
        self.store(new, changes);
    }

    /// Takes a record that is true, unless something newer is known: then a read decides.
    fn store(&mut self, new: Arc<Member>, changes: &mut Vec<Change>) {
        let id = new.id().clone();
        if self.departed.get(&id).is_some_and(|gone| *gone >= new.incarnation()) {
            return self.hint(id, KeyEvent::Other);
        }
        let Some(old) = self.members.get(&id).cloned() else {
            self.members.insert(id, new.clone());
            changes.push(Change::Joined(new));
            return;
        };
        if new.incarnation() < old.incarnation() {
            self.hint(id, KeyEvent::Other);
        } else if new.incarnation() > old.incarnation() {
            self.members.insert(id, new.clone());
            changes.push(Change::Left { member: old, cause: LeaveCause::Replaced });
            changes.push(Change::Joined(new));
        } else if new.incarnation() == old.incarnation()
            && (new.revision() > old.revision() || new.is_adopted() && *new != *old)
        {
            self.members.insert(id, new.clone());
            changes.push(Change::Updated { old, new });
        }
    }

    /// Takes a member out, if it is still this incarnation.
    pub(crate) fn depart(&mut self, id: &MemberId, incarnation: Incarnation, cause: LeaveCause) -> Option<Change> {
        if self.members.get(id)?.incarnation() != incarnation {
            return None;
        }
        let member = self.members.remove(id)?;
        if !self.is_idle() {
            self.departed.insert(id.clone(), incarnation);
        }
        Some(Change::Left { member, cause })
    }

    fn is_idle(&self) -> bool {
        self.reading.is_empty() && self.queue.is_empty() && self.listing.is_none()
    }

    /// Whether a read of it is under way or to come.
    pub(crate) fn is_asked_for(&self, id: &MemberId) -> bool {
        self.hinted.contains_key(id) || self.reading.iter().any(|asked| asked.id == *id)
    }

    /// Begins a listing, unless one is under way. `Some(None)` asks for all of it.
    fn begin_listing(&mut self) -> Option<Option<Known>> {
        if self.listing.is_some() {
            return None;
        }
        self.listing = Some(Listing::default());
        self.listings += 1;
        Some(self.known)
    }

    /// How many listings have begun.
    pub(crate) fn listings(&self) -> u64 {
        self.listings
    }

    /// The listing said that nothing changed. Members that other programs keep have no revision: read them.
    fn unchanged(&mut self) {
        self.listing = None;
        let adopted: Vec<_> = self.members().filter(|member| member.is_adopted()).map(|m| m.id().clone()).collect();
        for id in adopted {
            self.hint(id, KeyEvent::Other);
        }
    }

    /// Takes one part of a listing; answers where the next part begins, or `None` when it is complete.
    fn listed(&mut self, part: Known, more: bool, entries: Vec<Entry>) -> Option<Incarnation> {
        let mut listing = self.listing.take()?;
        let first = *listing.first.get_or_insert(part);
        for entry in entries {
            listing.after = Some(entry.incarnation);
            let fresh = match entry.written {
                Written::At(revision) => {
                    let is_this = |member: &Arc<Member>| member.incarnation() == entry.incarnation;
                    self.members.get(&entry.id).is_some_and(|member| is_this(member) && member.revision() >= revision)
                }
                Written::ByAnother | Written::Nowhere => false,
            };
            if !fresh {
                self.hint(entry.id.clone(), KeyEvent::Other);
            }
            listing.seen.insert(entry.id);
        }
        if more && listing.after.is_some() {
            let after = listing.after;
            self.listing = Some(listing);
            return after;
        }
        let missing: Vec<_> = self.members.keys().filter(|id| !listing.seen.contains(*id)).cloned().collect();
        for id in missing {
            self.hint(id, KeyEvent::Other);
        }
        self.known = Some(first);
        None
    }

    fn listing_failed(&mut self) {
        self.listing = None;
        self.known = None;
    }

    /// Everything hinted so far is settled once [`settled`](Self::settled) has come this far.
    pub(crate) fn barrier(&self) -> u64 {
        self.queued
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }
}
