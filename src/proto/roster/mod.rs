//! The roster: the members, as far as this connector has been told. What a read says of them becomes changes.

mod news;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::effects::Effects;
use super::in_flight::InFlight;
use super::io::{Change, Command, Entry, Finding, Output, Owner, Reply, Tag, Written};
use super::lookups::{Asked, Lookups};
use super::outbox::Outbox;
use super::{Moment, Warning};
use crate::error::Error;
use crate::model::{Incarnation, LeaveCause, Member, MemberId, Revision, SessionId};
use crate::wire::KeyEvent;

/// What was known of an id when its read was sent: the member that was there, and the one that had left.
#[derive(Debug)]
struct Then {
    incarnation: Option<Incarnation>,
    departed: Option<Incarnation>,
}

#[derive(Debug)]
enum RosterCommand {
    /// A listing that began then; one part of it, after this place.
    List {
        sent: Moment,
        after: Option<Incarnation>,
    },
    Read(Vec<Then>),
}

#[derive(Debug)]
pub(crate) struct Roster {
    /// Of whom it is the roster.
    connector: String,
    members: HashMap<MemberId, Arc<Member>>,
    /// Those among them that other programs keep.
    adopted: HashSet<MemberId>,
    /// Incarnations that have left while a read might still bring word of them.
    departed: HashMap<MemberId, Incarnation>,
    /// What this connector has written during the read under way: it is not known which was first.
    overtaken: HashSet<MemberId>,
    lookups: Lookups<MemberId>,
    in_flight: InFlight<RosterCommand>,
    /// The latest revision of the group that a reply has told: what is older, a read decides.
    as_of: Revision,
    /// Whose record the last news has told. The notification that comes next is about that write.
    told: Option<MemberId>,
    /// How many changes needed no read.
    unread: u64,
}

impl Roster {
    pub(crate) fn new(connector: String) -> Self {
        Self {
            connector,
            members: HashMap::new(),
            adopted: HashSet::new(),
            departed: HashMap::new(),
            overtaken: HashSet::new(),
            lookups: Lookups::new(),
            in_flight: InFlight::new(Owner::Members),
            as_of: Revision::new(0),
            told: None,
            unread: 0,
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
        self.lookups.abandon();
        self.overtaken.clear();
        self.in_flight.clear();
        (self.as_of, self.told) = (Revision::new(0), None);
    }

    pub(crate) fn want_listing(&mut self) {
        self.lookups.want_listing();
    }

    /// No longer trusts the last listing, so that the next one is made in full.
    pub(crate) fn doubt(&mut self) {
        self.told = None;
        self.lookups.doubt();
    }

    pub(crate) fn hint(&mut self, id: MemberId, key_event: KeyEvent) {
        if key_event == KeyEvent::Expire && self.members.get(&id).is_some_and(|member| !member.is_adopted()) {
            return;
        }
        self.lookups.hint(id, key_event);
    }

    /// Sends what can be sent over a link that stands.
    pub(crate) fn advance(&mut self, now: Moment, out: &mut Outbox) {
        if let Some(known) = self.lookups.begin_listing() {
            self.in_flight.send(
                Command::List { known, after: None },
                RosterCommand::List { sent: now, after: None },
                out,
            );
        }
        if let Some(asked) = self.lookups.next_read() {
            let (wanted, then) = asked
                .iter()
                .map(|Asked { key: id, .. }| {
                    let (member, departed) = (self.members.get(id), self.departed.get(id).copied());
                    let incarnation = member.map(|member| member.incarnation());
                    ((id.clone(), member.map(|member| member.session().clone())), Then { incarnation, departed })
                })
                .unzip();
            self.in_flight.send(Command::Read { wanted }, RosterCommand::Read(then), out);
        }
    }

    /// Takes the reply to a command of ours.
    pub(crate) fn reply(&mut self, tag: Tag, reply: Result<Reply, Error>, effects: &mut Effects, out: &mut Outbox) {
        let Some(under_way) = self.in_flight.take(tag) else { return };
        match (under_way, reply) {
            (RosterCommand::Read(then), Ok(Reply::Found { due, as_of, findings })) => {
                effects.due = due;
                self.as_of = self.as_of.max(as_of);
                self.found(then, findings, &mut effects.changes, out);
            }
            (RosterCommand::List { sent, .. }, Ok(Reply::Unchanged { due })) => {
                (effects.due, effects.listed) = (due, Some(sent));
                self.unchanged();
            }
            (RosterCommand::List { sent, after }, Ok(Reply::Part { due, known, more, entries })) => {
                effects.due = due;
                if after.is_none() {
                    // What the first part does not list, no part does.
                    self.as_of = self.as_of.max(known.revision);
                }
                let after = entries.last().map(|entry| entry.incarnation).or(after);
                self.lookups.listed(
                    known,
                    entries.into_iter().map(|entry| {
                        let is_known = is_known(&self.members, &entry);
                        (entry.id, is_known)
                    }),
                );
                if more && after.is_some() {
                    self.in_flight.send(Command::List { known: None, after }, RosterCommand::List { sent, after }, out);
                } else {
                    self.lookups.listing_complete(self.members.keys());
                    effects.listed = Some(sent);
                }
            }
            (under_way, reply) => {
                let error = reply.err().unwrap_or_else(|| Error::unexpected("a look-up of members"));
                match under_way {
                    RosterCommand::List { .. } => self.lookups.listing_failed(),
                    RosterCommand::Read(_) => {
                        self.overtaken.clear();
                        self.lookups.read_failed();
                    }
                }
                let to = if error.is_of_the_link() { &mut effects.broken } else { &mut effects.unread };
                *to = Some(error);
            }
        }
        // No answer is under way any more that could bring one of them back.
        if self.lookups.is_idle() {
            self.departed.clear();
        }
    }

    /// The answers to the read under way become changes.
    fn found(&mut self, then: Vec<Then>, findings: Vec<Finding>, changes: &mut Vec<Change>, out: &mut Outbox) {
        let overtaken = std::mem::take(&mut self.overtaken);
        let mut later = Vec::new();
        for ((asked, then), finding) in self.lookups.answered().into_iter().zip(then).zip(findings) {
            let Asked { key: id, key_event } = &asked;
            let known = self.incarnation(id);
            let confirms = matches!(&finding, Finding::Record(member) if Some(member.incarnation()) == known);
            if overtaken.contains(id) && !confirms {
                self.hint(id.clone(), *key_event);
                continue;
            }
            let cause = match finding {
                Finding::Record(member) => {
                    self.forget_what_the_server_forgot(id, &then, member.incarnation(), changes);
                    self.store(member, changes);
                    continue;
                }
                Finding::Later => {
                    later.push(asked);
                    continue;
                }
                Finding::NoMember(why) => {
                    out.push(Output::Warn(Warning::NoMember { id: id.clone(), reason: why }));
                    LeaveCause::Removed
                }
                Finding::Left => LeaveCause::Left,
                Finding::Expired => LeaveCause::Expired,
                Finding::Removed if *key_event == KeyEvent::Evicted => LeaveCause::Evicted,
                Finding::Removed => LeaveCause::Removed,
                Finding::Gone => match key_event {
                    KeyEvent::Deleted => LeaveCause::Left,
                    KeyEvent::Evicted => LeaveCause::Evicted,
                    _ => LeaveCause::Expired,
                },
            };
            changes.extend(then.incarnation.and_then(|then| self.depart(id, then, cause)));
        }
        self.lookups.read_again(later);
    }

    /// A server that has lost its data while its clock was behind begins again with lower incarnations. What was
    /// known when the read was sent, the server knew before it answered: if it says less now, less is true.
    fn forget_what_the_server_forgot(
        &mut self,
        id: &MemberId,
        then: &Then,
        now: Incarnation,
        changes: &mut Vec<Change>,
    ) {
        if then.departed.is_some() && then.departed == self.departed.get(id).copied() {
            self.departed.remove(id);
        }
        if then.incarnation > Some(now) && then.incarnation == self.incarnation(id) {
            let old = self.take_out(id);
            changes.extend(old.map(|member| Change::Left { member, cause: LeaveCause::Replaced }));
        }
    }

    /// Takes a record that we wrote.
    pub(crate) fn wrote(&mut self, new: Arc<Member>, changes: &mut Vec<Change>) {
        if self.lookups.is_being_read(new.id()) {
            self.overtaken.insert(new.id().clone());
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
            self.put(new.clone());
            changes.push(Change::Joined(new));
            return;
        };
        if new.incarnation() < old.incarnation() {
            self.hint(id, KeyEvent::Other);
        } else if new.incarnation() > old.incarnation() {
            self.put(new.clone());
            changes.push(Change::Left { member: old, cause: LeaveCause::Replaced });
            changes.push(Change::Joined(new));
        } else if new.incarnation() == old.incarnation()
            && (new.revision() > old.revision() || new.is_adopted() && *new != *old)
        {
            self.put(new.clone());
            changes.push(Change::Updated { old, new });
        }
    }

    fn put(&mut self, member: Arc<Member>) {
        if member.is_adopted() {
            self.adopted.insert(member.id().clone());
        } else {
            self.adopted.remove(member.id());
        }
        self.members.insert(member.id().clone(), member);
    }

    fn take_out(&mut self, id: &MemberId) -> Option<Arc<Member>> {
        self.adopted.remove(id);
        self.members.remove(id)
    }

    /// Takes a member out, if it is still this incarnation.
    pub(crate) fn depart(&mut self, id: &MemberId, incarnation: Incarnation, cause: LeaveCause) -> Option<Change> {
        if self.members.get(id)?.incarnation() != incarnation {
            return None;
        }
        let member = self.take_out(id)?;
        if !self.lookups.is_idle() {
            self.departed.insert(id.clone(), incarnation);
        }
        Some(Change::Left { member, cause })
    }

    /// Whether a read of it is under way or to come.
    pub(crate) fn is_asked_for(&self, id: &MemberId) -> bool {
        self.lookups.is_asked_for(id)
    }

    /// The listing said that nothing changed. Members that other programs keep have no revision: read them.
    fn unchanged(&mut self) {
        self.lookups.listing_unchanged();
        self.adopted.iter().for_each(|id| self.lookups.hint(id.clone(), KeyEvent::Other));
    }

    /// How many listings have begun.
    pub(crate) fn listings(&self) -> u64 {
        self.lookups.listings()
    }

    /// Everything hinted so far is settled once [`settled`](Self::settled) has come this far.
    pub(crate) fn barrier(&self) -> u64 {
        self.lookups.barrier()
    }

    pub(crate) fn settled(&self) -> u64 {
        self.lookups.settled()
    }

    /// How much has been read or told so far: what was written before may be older.
    pub(crate) fn progress(&self) -> u64 {
        self.lookups.settled() + self.unread
    }
}

/// Whether this entry of a listing says nothing new.
fn is_known(members: &HashMap<MemberId, Arc<Member>>, entry: &Entry) -> bool {
    match entry.written {
        Written::At(revision) => members
            .get(&entry.id)
            .is_some_and(|member| member.incarnation() == entry.incarnation && member.revision() >= revision),
        Written::ByAnother | Written::Nowhere => false,
    }
}
