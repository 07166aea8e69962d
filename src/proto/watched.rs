//! Watched values and leaders. They take the way of the members: a hint names a path, one read at a time says what
//! stands there, and a listing only finds paths to hint at.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Warning;
use super::io::{Command, Output, Reply, Tag, Topic, ValueChange, ValueFinding, WatchedValue};
use super::outbox::Outbox;
use crate::error::Error;
use crate::model::SessionId;
use crate::wire::KeyEvent;

/// How many paths one read asks for.
const READ_CHUNK: usize = 500;

/// The folder of the values that are listed by their index.
const EPHEMERALS: &str = "ephemerals/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverage {
    /// The server has not confirmed the subscription over this link.
    Unheard,
    /// What stands there is being asked for.
    Asking,
    Covered,
}

#[derive(Debug)]
struct Asked {
    path: String,
    key_event: KeyEvent,
}

#[derive(Debug)]
enum Flight {
    Subscribe(Topic),
    Read(Vec<Asked>),
    List,
}

#[derive(Debug, Default)]
struct Listing {
    known: Option<(u64, u64)>,
    seen: HashSet<String>,
}

#[derive(Debug, Default)]
pub(crate) struct WatchedValues {
    topics: BTreeMap<Topic, Coverage>,
    values: BTreeMap<String, Arc<WatchedValue>>,
    hinted: HashMap<String, KeyEvent>,
    queue: VecDeque<String>,
    listing: Option<Listing>,
    list_wanted: bool,
    known: Option<(u64, u64)>,
    flying: Vec<(Tag, Flight)>,
}

impl WatchedValues {
    /// This topic is watched from now on.
    pub(crate) fn watch(&mut self, topic: Topic) {
        self.topics.entry(topic).or_insert(Coverage::Unheard);
    }

    /// A new link: everything is subscribed to anew. What was known stays, until the server says otherwise.
    pub(crate) fn link_down(&mut self) {
        self.topics.values_mut().for_each(|coverage| *coverage = Coverage::Unheard);
        self.hinted.clear();
        self.queue.clear();
        self.listing = None;
        self.list_wanted = false;
        self.known = None;
        self.flying.clear();
    }

    /// Hints come from elsewhere from now on: everything is subscribed to there.
    pub(crate) fn relisten(&mut self) {
        self.topics.values_mut().for_each(|coverage| *coverage = Coverage::Unheard);
        self.flying.retain(|(_, flight)| !matches!(flight, Flight::Subscribe(_)));
        self.doubt();
    }

    /// Reads and lists everything again, in case a notification went missing.
    pub(crate) fn reconcile(&mut self) {
        let leaders = self.topics.iter().filter(|(_, coverage)| **coverage != Coverage::Unheard);
        let leaders: Vec<_> = leaders.filter_map(|(topic, _)| topic.path()).collect();
        leaders.into_iter().for_each(|path| self.queue(path, KeyEvent::Other));
        self.list_wanted |= self.is_listed();
    }

    /// No longer trusts the last listing.
    pub(crate) fn doubt(&mut self) {
        self.known = None;
        self.reconcile();
    }

    fn is_listed(&self) -> bool {
        self.topics.get(&Topic::Ephemerals).is_some_and(|coverage| *coverage != Coverage::Unheard)
    }

    pub(crate) fn hint(&mut self, path: String, key_event: KeyEvent) {
        let is_watched = if path.starts_with(EPHEMERALS) {
            self.is_listed()
        } else {
            self.topics.keys().any(|topic| topic.path().as_ref() == Some(&path))
        };
        if is_watched && key_event != KeyEvent::Expire {
            self.queue(path, key_event);
        }
    }

    fn queue(&mut self, path: String, key_event: KeyEvent) {
        if self.hinted.insert(path.clone(), key_event).is_none() {
            self.queue.push_back(path);
        }
    }

    fn send(&mut self, command: Command, flight: Flight, out: &mut Outbox) {
        let tag = out.command(command);
        self.flying.push((tag, flight));
    }

    /// Sends what can be sent over a link that stands.
    pub(crate) fn advance(&mut self, out: &mut Outbox) {
        let unheard: Vec<_> = self
            .topics
            .iter()
            .filter(|(topic, coverage)| {
                **coverage == Coverage::Unheard
                    && !self.flying.iter().any(|(_, flight)| matches!(flight, Flight::Subscribe(to) if to == *topic))
            })
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in unheard {
            self.send(Command::Subscribe { topic: topic.clone() }, Flight::Subscribe(topic), out);
        }
        if self.list_wanted && self.listing.is_none() {
            self.list_wanted = false;
            self.listing = Some(Listing::default());
            self.send(Command::ListValues { known: self.known, after: None }, Flight::List, out);
        }
        let is_reading = self.flying.iter().any(|(_, flight)| matches!(flight, Flight::Read(_)));
        if !is_reading && !self.queue.is_empty() {
            let take = self.queue.len().min(READ_CHUNK);
            let (mut paths, mut asked) = (Vec::with_capacity(take), Vec::with_capacity(take));
            for path in self.queue.drain(..take) {
                let key_event = self.hinted.remove(&path).unwrap_or(KeyEvent::Other);
                let session = self.values.get(&path).map(|value| value.session().clone());
                paths.push((path.clone(), session));
                asked.push(Asked { path, key_event });
            }
            self.send(Command::ReadValues { paths }, Flight::Read(asked), out);
        }
        self.cover(out);
    }

    /// Says of which topics it is known now what there is.
    fn cover(&mut self, out: &mut Outbox) {
        let is_idle = self.queue.is_empty()
            && self.listing.is_none()
            && !self.list_wanted
            && !self.flying.iter().any(|(_, flight)| matches!(flight, Flight::Read(_)));
        if !is_idle {
            return;
        }
        for (topic, coverage) in &mut self.topics {
            if *coverage == Coverage::Asking {
                *coverage = Coverage::Covered;
                out.push(Output::Covered(topic.clone()));
            }
        }
    }

    /// Takes the reply to a command of ours; hands back any other. An error of the link is the caller's.
    pub(crate) fn reply(
        &mut self,
        tag: Tag,
        reply: Result<Reply, Error>,
        out: &mut Outbox,
    ) -> Result<Option<Error>, Result<Reply, Error>> {
        let Some(index) = self.flying.iter().position(|(flying, _)| *flying == tag) else { return Err(reply) };
        let (_, flight) = self.flying.swap_remove(index);
        match (flight, reply) {
            (_, Err(error)) if error.is_of_the_link() => return Ok(Some(error)),
            (Flight::Subscribe(topic), reply) => {
                if let Err(error) = reply {
                    out.push(Output::Warn(Warning::NotSubscribed { topic: topic.clone(), error }));
                }
                if let Some(coverage) = self.topics.get_mut(&topic) {
                    *coverage = Coverage::Asking;
                }
                match topic.path() {
                    Some(path) => self.queue(path, KeyEvent::Other),
                    None => self.list_wanted = true,
                }
            }
            (Flight::Read(asked), Ok(Reply::ValuesFound { findings, .. })) => self.found(asked, findings, out),
            (Flight::List, Ok(Reply::ValuesUnchanged { .. })) => self.listing = None,
            (Flight::List, Ok(Reply::ValuesListed { known, after, entries, .. })) => {
                self.listed(known, after, entries, out);
            }
            (flight, reply) => {
                let error = reply.err().unwrap_or_else(|| Error::unexpected("a look-up of values"));
                out.push(Output::Warn(Warning::ValuesUnread(error)));
                self.known = None;
                if let Flight::List = flight {
                    self.listing = None;
                }
            }
        }
        Ok(None)
    }

    fn found(&mut self, asked: Vec<Asked>, findings: Vec<ValueFinding>, out: &mut Outbox) {
        let mut changes = Vec::new();
        for (Asked { path, key_event }, finding) in asked.into_iter().zip(findings) {
            let expired = match finding {
                ValueFinding::Value(stored) => {
                    self.set(path, WatchedValue::Value(stored), &mut changes);
                    continue;
                }
                ValueFinding::LockRecord(record) => {
                    self.set(path, WatchedValue::LockRecord(record), &mut changes);
                    continue;
                }
                ValueFinding::Later => {
                    self.queue(path, key_event);
                    continue;
                }
                ValueFinding::Expired => true,
                ValueFinding::Deleted | ValueFinding::Foreign => key_event == KeyEvent::Expired,
            };
            if self.values.remove(&path).is_some() {
                changes.push(ValueChange::Gone { path, expired });
            }
        }
        if !changes.is_empty() {
            out.push(Output::Values(changes));
        }
    }

    fn set(&mut self, path: String, value: WatchedValue, changes: &mut Vec<ValueChange>) {
        if self.values.get(&path).is_some_and(|known| **known == value) {
            return;
        }
        let value = Arc::new(value);
        self.values.insert(path.clone(), value.clone());
        changes.push(ValueChange::Present { path, value });
    }

    fn listed(&mut self, known: (u64, u64), after: Option<u64>, entries: Vec<(String, u64)>, out: &mut Outbox) {
        let Some(mut listing) = self.listing.take() else { return };
        // The first part was true before anything that came meanwhile, so it is what the next listing is compared to.
        listing.known.get_or_insert(known);
        for (path, revision) in entries {
            let path = format!("{EPHEMERALS}{path}");
            if self.values.get(&path).is_none_or(|value| value.revision() != Some(revision)) {
                self.queue(path.clone(), KeyEvent::Other);
            }
            listing.seen.insert(path);
        }
        if let Some(after) = after {
            self.listing = Some(listing);
            return self.send(Command::ListValues { known: None, after: Some(after) }, Flight::List, out);
        }
        let missing = self.values.keys().filter(|path| path.starts_with(EPHEMERALS) && !listing.seen.contains(*path));
        let missing: Vec<_> = missing.cloned().collect();
        missing.into_iter().for_each(|path| self.queue(path, KeyEvent::Other));
        self.known = listing.known;
    }
}

impl Topic {
    /// The one path that it is about, if it is about one.
    fn path(&self) -> Option<String> {
        match self {
            Self::Ephemerals => None,
            Self::Leader(lock) => Some(format!("locks/{lock}")),
        }
    }
}

impl WatchedValue {
    fn session(&self) -> &SessionId {
        match self {
            Self::Value(stored) => &stored.session,
            Self::LockRecord(record) => &record.session,
        }
    }

    fn revision(&self) -> Option<u64> {
        match self {
            Self::Value(stored) => Some(stored.revision.get()),
            Self::LockRecord(_) => None,
        }
    }
}
