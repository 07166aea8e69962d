//! Watched values and leaders. They take the way of the members: a hint names a path, one read at a time says what
//! stands there, and a listing only finds paths to hint at.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Warning;
use super::effects::Effects;
use super::in_flight::InFlight;
use super::io::{Command, Known, Output, Owner, Reply, Tag, Topic, ValueChange, ValueFinding, WatchedValue};
use super::lookups::{Asked, Lookups};
use super::outbox::Outbox;
use crate::error::Error;
use crate::model::SessionId;
use crate::wire::KeyEvent;

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
enum WatchedCommand {
    Subscribe(Topic),
    Read,
    List,
}

#[derive(Debug)]
pub(crate) struct WatchedValues {
    topics: BTreeMap<Topic, Coverage>,
    values: BTreeMap<String, Arc<WatchedValue>>,
    lookups: Lookups<String>,
    in_flight: InFlight<WatchedCommand>,
}

impl WatchedValues {
    pub(crate) fn new() -> Self {
        Self {
            topics: BTreeMap::new(),
            values: BTreeMap::new(),
            lookups: Lookups::new(),
            in_flight: InFlight::new(Owner::Watched),
        }
    }

    /// This topic is watched from now on.
    pub(crate) fn watch(&mut self, topic: Topic) {
        self.topics.entry(topic).or_insert(Coverage::Unheard);
    }

    /// A new link: everything is subscribed to anew. What was known stays, until the server says otherwise.
    pub(crate) fn link_down(&mut self) {
        self.topics.values_mut().for_each(|coverage| *coverage = Coverage::Unheard);
        self.lookups.abandon();
        self.in_flight.clear();
    }

    /// Hints come from elsewhere from now on: everything is subscribed to there.
    pub(crate) fn relisten(&mut self) {
        self.topics.values_mut().for_each(|coverage| *coverage = Coverage::Unheard);
        self.in_flight.retain(|under_way| !matches!(under_way, WatchedCommand::Subscribe(_)));
        self.doubt();
    }

    /// Reads and lists everything again, in case a notification went missing.
    pub(crate) fn reconcile(&mut self) {
        let leaders = self.topics.iter().filter(|(_, coverage)| **coverage != Coverage::Unheard);
        let leaders: Vec<_> = leaders.filter_map(|(topic, _)| topic.path()).collect();
        leaders.into_iter().for_each(|path| self.lookups.hint(path, KeyEvent::Other));
        if self.is_listed() {
            self.lookups.want_listing();
        }
    }

    /// No longer trusts the last listing.
    pub(crate) fn doubt(&mut self) {
        self.lookups.doubt();
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
            self.lookups.hint(path, key_event);
        }
    }

    /// Sends what can be sent over a link that stands.
    pub(crate) fn advance(&mut self, out: &mut Outbox) {
        let unheard: Vec<_> = self
            .topics
            .iter()
            .filter(|(topic, coverage)| {
                **coverage == Coverage::Unheard
                    && !self
                        .in_flight
                        .iter()
                        .any(|under_way| matches!(under_way, WatchedCommand::Subscribe(to) if to == *topic))
            })
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in unheard {
            self.in_flight.send(Command::Subscribe { topic: topic.clone() }, WatchedCommand::Subscribe(topic), out);
        }
        if let Some(known) = self.lookups.begin_listing() {
            self.in_flight.send(Command::ListValues { known, after: None }, WatchedCommand::List, out);
        }
        if let Some(asked) = self.lookups.next_read() {
            let session = |path: &String| self.values.get(path).map(|value| value.session().clone());
            let paths = asked.iter().map(|asked| (asked.key.clone(), session(&asked.key))).collect();
            self.in_flight.send(Command::ReadValues { paths }, WatchedCommand::Read, out);
        }
        self.cover(out);
    }

    /// Says of which topics it is known now what there is.
    fn cover(&mut self, out: &mut Outbox) {
        if !self.lookups.is_idle() {
            return;
        }
        for (topic, coverage) in &mut self.topics {
            if *coverage == Coverage::Asking {
                *coverage = Coverage::Covered;
                out.push(Output::Covered(topic.clone()));
            }
        }
    }

    /// Takes the reply to a command of ours.
    pub(crate) fn reply(&mut self, tag: Tag, reply: Result<Reply, Error>, effects: &mut Effects, out: &mut Outbox) {
        let Some(under_way) = self.in_flight.take(tag) else { return };
        match (under_way, reply) {
            (_, Err(error)) if error.is_of_the_link() => effects.broken = Some(error),
            (WatchedCommand::Subscribe(topic), reply) => {
                if let Err(error) = reply {
                    out.push(Output::Warn(Warning::NotSubscribed { topic: topic.clone(), error }));
                }
                if let Some(coverage) = self.topics.get_mut(&topic) {
                    *coverage = Coverage::Asking;
                }
                match topic.path() {
                    Some(path) => self.lookups.hint(path, KeyEvent::Other),
                    None => self.lookups.want_listing(),
                }
            }
            (WatchedCommand::Read, Ok(Reply::ValuesFound { due, findings })) => {
                effects.due = due;
                self.found(findings, out);
            }
            (WatchedCommand::List, Ok(Reply::ValuesUnchanged { due })) => {
                effects.due = due;
                self.lookups.listing_unchanged();
            }
            (WatchedCommand::List, Ok(Reply::ValuesListed { due, known, after, entries })) => {
                effects.due = due;
                self.listed(known, after, entries, out);
            }
            (under_way, reply) => {
                let error = reply.err().unwrap_or_else(|| Error::unexpected("a look-up of values"));
                out.push(Output::Warn(Warning::ValuesUnread(error)));
                match under_way {
                    WatchedCommand::List => self.lookups.listing_failed(),
                    _ => self.lookups.read_failed(),
                }
            }
        }
    }

    fn found(&mut self, findings: Vec<ValueFinding>, out: &mut Outbox) {
        let (mut changes, mut later) = (Vec::new(), Vec::new());
        for (asked, finding) in self.lookups.answered().into_iter().zip(findings) {
            let Asked { key: path, key_event } = asked;
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
                    later.push(Asked { key: path, key_event });
                    continue;
                }
                ValueFinding::Expired => true,
                ValueFinding::Deleted | ValueFinding::Foreign => key_event == KeyEvent::Expired,
            };
            if self.values.remove(&path).is_some() {
                changes.push(ValueChange::Gone { path, expired });
            }
        }
        self.lookups.read_again(later);
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

    fn listed(&mut self, known: Known, after: Option<u64>, entries: Vec<(String, u64)>, out: &mut Outbox) {
        let entries = entries.into_iter().map(|(path, revision)| {
            let path = format!("{EPHEMERALS}{path}");
            let is_known = self.values.get(&path).is_some_and(|value| value.revision() == Some(revision));
            (path, is_known)
        });
        self.lookups.listed(known, entries);
        if after.is_some() {
            return self.in_flight.send(Command::ListValues { known: None, after }, WatchedCommand::List, out);
        }
        self.lookups.listing_complete(self.values.keys().filter(|path| path.starts_with(EPHEMERALS)));
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
