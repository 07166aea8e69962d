//! A model of the server: what the scripts do, without Redis.

mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Command, Contest, Entry, Finding, Known, Moment, Reply, Written};
use crate::error::{Error, ErrorKind};
use crate::model::{Incarnation, LeaveCause, Member, MemberDraft, MemberId, Metadata, Revision, SessionId};
use crate::settings::EventSource;
use crate::wire::{KeyEvent, News, Notice};

pub(super) const TTL: Duration = Duration::from_millis(1000);
const SAFETY: Duration = Duration::from_millis(4000);
/// Small, so that chunks matter.
const CHUNK: usize = 2;

#[derive(Clone, Debug)]
enum Value {
    Ours { member: Arc<Member>, nonce: u64 },
    Text(String),
}

#[derive(Clone, Debug)]
struct Key {
    value: Value,
    expires: Option<Moment>,
}

/// By how much its clock is behind after some losses, in microseconds.
const BEHIND: u64 = 5_000_000;
/// How many losses have revisions of their own.
const LOSSES: u64 = 64;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) now: Moment,
    keys: BTreeMap<MemberId, Key>,
    index: BTreeMap<MemberId, u64>,
    leases: BTreeMap<SessionId, Moment>,
    closed: BTreeSet<SessionId>,
    deadlines: BTreeMap<String, Moment>,
    owned: BTreeMap<SessionId, BTreeSet<MemberId>>,
    revision: u64,
    /// How often it has lost all its data. Every second time its clock is behind from then on.
    losses: u64,
    /// Notifications since they were last taken. The canaries are the connectors' own.
    pub(super) notices: Vec<Notice>,
    pub(super) notifies: bool,
    /// Bits: 1 the channels of notifications, 2 tracking, 4 the setting of flags, 8 the channel of news.
    pub(super) forbidden: u8,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            now: Moment::from_origin(Duration::from_secs(1)),
            keys: BTreeMap::new(),
            index: BTreeMap::new(),
            leases: BTreeMap::new(),
            closed: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            owned: BTreeMap::new(),
            revision: 0,
            losses: 0,
            notices: Vec::new(),
            notifies: true,
            forbidden: 0,
        }
    }

    /// The members that live at this moment: by name, the session and the text of each.
    pub(super) fn live(&self) -> BTreeMap<MemberId, (Option<u64>, Option<String>)> {
        let alive = |key: &&Key| key.expires.is_some_and(|at| at > self.now);
        let live = self.keys.iter().filter(|(_, key)| alive(key));
        live.map(|(id, key)| match &key.value {
            Value::Ours { member, .. } => {
                (id.clone(), (Some(member.incarnation().get()), member.text().map(str::to_owned)))
            }
            Value::Text(text) => (id.clone(), (self.index.get(id).copied(), Some(text.clone()))),
        })
        .collect()
    }

    /// An access: this is when a key that has run out goes, and is told of.
    fn touch(&mut self, id: &MemberId) {
        if self.keys.get(id).and_then(|key| key.expires).is_some_and(|at| at <= self.now) {
            self.keys.remove(id);
            self.notify(id, KeyEvent::Expired);
        }
    }

    fn lives(&self, session: &SessionId) -> bool {
        self.leases.get(session).is_some_and(|at| *at > self.now) && !self.closed.contains(session)
    }

    fn next_revision(&mut self) -> u64 {
        let behind = if self.losses.is_multiple_of(2) { 0 } else { BEHIND };
        let micros = (self.now.as_millis() * 1000).saturating_sub(behind);
        // No microsecond comes twice, also not when the clock shows it again.
        let part = self.losses % LOSSES;
        self.revision = (self.revision / LOSSES + 1).max(micros) * LOSSES + part;
        self.revision
    }

    fn due(&self) -> Option<Duration> {
        self.deadlines.values().min().map(|at| at.since(self.now))
    }

    fn session_of(&mut self, id: &MemberId) -> Option<SessionId> {
        self.touch(id);
        match &self.keys.get(id)?.value {
            Value::Ours { member, .. } => Some(member.session().clone()),
            Value::Text(_) => None,
        }
    }

    /// Another program sets a key: with a time to live, or without.
    pub(super) fn set_text(&mut self, id: &MemberId, text: &str, ttl: Option<Duration>) {
        self.touch(id);
        let expires = ttl.map(|ttl| self.now + ttl);
        self.keys.insert(id.clone(), Key { value: Value::Text(text.into()), expires });
        self.notify(id, KeyEvent::Set);
        if ttl.is_some() {
            self.notify(id, KeyEvent::Expire);
        }
    }

    pub(super) fn delete(&mut self, id: &MemberId, key_event: KeyEvent) {
        self.touch(id);
        if self.keys.remove(id).is_some() {
            self.notify(id, key_event);
        }
    }

    pub(super) fn delete_whole(&mut self, id: &MemberId) {
        self.delete(id, KeyEvent::Deleted);
        self.index.remove(id);
    }

    pub(super) fn flush_all(&mut self) {
        let (now, losses, notifies, forbidden) = (self.now, self.losses + 1, self.notifies, self.forbidden);
        *self = Self { now, losses, notifies, forbidden, ..Self::new() };
        self.notices.push(Notice::Everything);
    }

    pub(super) fn heartbeat(&mut self, session: &SessionId) -> bool {
        if !self.lives(session) {
            return false;
        }
        self.leases.insert(session.clone(), self.now + TTL);
        self.deadlines.insert(session.to_string(), self.now + TTL);
        true
    }

    pub(super) fn run(&mut self, command: &Command) -> Result<Reply, Error> {
        let denied = |what| Err(Error::new(ErrorKind::Denied, what));
        match command {
            Command::Listen { source: EventSource::Keyspace } if self.forbidden & 1 != 0 => return denied("channels"),
            Command::Listen { source: EventSource::Tracking } if self.forbidden & 2 != 0 => return denied("tracking"),
            // Whoever listens to keyspace notifications sees to the flags first, where that is allowed.
            Command::Listen { source: EventSource::Keyspace } => self.notifies |= self.forbidden & 4 == 0,
            _ => {}
        }
        Ok(self.answer(command))
    }

    fn answer(&mut self, command: &Command) -> Reply {
        match command {
            Command::Join { id, session, opening, contest, nonce, draft } => {
                self.join(id, session, *opening, *contest, *nonce, draft)
            }
            Command::Update { id, session, incarnation, joined_at_ms, nonce, draft } => {
                let same = |value: &Value| {
                    matches!(value, Value::Ours { member, .. }
                    if member.incarnation() == *incarnation && member.session() == session)
                };
                self.touch(id);
                match self.keys.get(id).map(|key| key.value.clone()).filter(same) {
                    Some(Value::Ours { member, nonce: last }) if last == *nonce && self.lives(session) => {
                        Reply::Updated { revision: member.revision() }
                    }
                    Some(_) if self.lives(session) => {
                        let revision = self.next_revision();
                        self.write(id, session, incarnation.get(), revision, *joined_at_ms, *nonce, draft);
                        Reply::Updated { revision: Revision::new(revision) }
                    }
                    _ => Reply::Lost,
                }
            }
            Command::Leave { id, session, incarnation } => {
                self.touch(id);
                let ours = self.keys.get(id).is_some_and(|key| {
                    matches!(&key.value, Value::Ours { member, .. } if member.session() == session
                        && incarnation.is_none_or(|wanted| wanted == member.incarnation()))
                });
                if ours {
                    self.tell_gone(LeaveCause::Left, std::slice::from_ref(id));
                    self.delete(id, KeyEvent::Deleted);
                    self.index.remove(id);
                    self.owned.entry(session.clone()).or_default().remove(id);
                    self.next_revision();
                }
                Reply::Left(ours)
            }
            Command::Close { session } => {
                self.leases.insert(session.clone(), self.now + Duration::from_secs(5));
                self.closed.insert(session.clone());
                let gone = self.take_owned(session, CHUNK);
                self.tell_gone(LeaveCause::Left, &gone);
                for id in &gone {
                    self.delete(id, KeyEvent::Deleted);
                    self.index.remove(id);
                }
                let remaining = self.owned.get(session).map_or(0, BTreeSet::len) as u64;
                if remaining == 0 {
                    self.deadlines.remove(session.as_str());
                }
                self.next_revision();
                Reply::Closed { remaining }
            }
            Command::Open { .. }
            | Command::Release { .. }
            | Command::Subscribe { .. }
            | Command::ReadValues { .. }
            | Command::ListValues { .. } => panic!("the model has members only: {command:?}"),
            Command::Extend { .. } => Reply::Extended { cursor: 0, held: Vec::new() },
            Command::Renew { session, ids } => {
                let mut strangers = Vec::new();
                for id in ids {
                    if self.session_of(id).as_ref() == Some(session) {
                        let expires = Some(self.now + SAFETY);
                        self.keys.entry(id.clone()).and_modify(|key| key.expires = expires);
                        self.notify(id, KeyEvent::Expire);
                    } else {
                        strangers.push(id.clone());
                    }
                }
                Reply::Renewed { strangers }
            }
            Command::Sweep => self.sweep(),
            Command::Touch { ids } => {
                ids.iter().for_each(|id| self.touch(id));
                Reply::Done
            }
            Command::List { known, after } => self.list(*known, *after),
            Command::Read { wanted } => {
                let as_of = Revision::new(self.revision);
                let findings = wanted.iter().map(|(id, session)| self.find(id, session.as_ref())).collect();
                Reply::Found { due: self.due(), as_of, findings }
            }
            Command::PlantCanary
            | Command::TouchCanary
            | Command::AskToProbe { .. }
            | Command::Probe { .. }
            | Command::CheckProbers { .. }
            | Command::Shorten { .. } => Reply::Done,
            Command::Listen { .. } => Reply::Listening { inbox_works: true },
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a record")]
    fn write(
        &mut self,
        id: &MemberId,
        session: &SessionId,
        incarnation: u64,
        revision: u64,
        joined: u64,
        nonce: u64,
        draft: &MemberDraft,
    ) {
        let member = Arc::new(Member::new(
            id.clone(),
            Incarnation::new(incarnation),
            Revision::new(revision),
            session.clone(),
            joined,
            draft.clone(),
        ));
        let joins = incarnation == revision;
        let due = joins.then(|| self.deadlines.get(session.as_str()).map_or(Duration::ZERO, |at| at.since(self.now)));
        self.notices.push(Notice::News(News::Present { member: member.clone(), due }));
        let key = Key { value: Value::Ours { member, nonce }, expires: Some(self.now + SAFETY) };
        self.keys.insert(id.clone(), key);
        self.notify(id, KeyEvent::Set);
        self.notify(id, KeyEvent::Expire);
    }

    fn join(
        &mut self,
        id: &MemberId,
        session: &SessionId,
        opening: bool,
        contest: Contest,
        nonce: u64,
        draft: &MemberDraft,
    ) -> Reply {
        let lives = self.lives(session);
        if self.closed.contains(session) || (!lives && !opening) {
            return Reply::Lost;
        }
        self.touch(id);
        let holder = self.session_of(id);
        if let Some(Key { value: Value::Ours { member, nonce: last }, .. }) = self.keys.get(id)
            && member.session() == session
            && *last == nonce
            && lives
        {
            let (incarnation, revision) = (member.incarnation(), member.revision());
            return Reply::Joined { incarnation, revision, joined_at_ms: member.joined_at_ms() };
        }
        if contest != Contest::Take {
            let adopted = contest == Contest::Yield
                && holder.is_none()
                && self.keys.get(id).is_some_and(|key| key.expires.is_some());
            let is_other = |holder: &SessionId| holder != session && !is_outlived(holder, session);
            let other = holder.as_ref().is_some_and(|holder| is_other(holder) && self.lives(holder));
            if adopted || other {
                return Reply::Conflict { holder: "somebody".into() };
            }
        }
        let revision = self.next_revision();
        self.index.insert(id.clone(), revision);
        if !lives {
            self.leases.insert(session.clone(), self.now + TTL);
            self.deadlines.insert(session.to_string(), self.now + TTL);
        }
        self.deadlines.remove(&format!("~{id}"));
        if let Some(holder) = holder.filter(|holder| holder != session) {
            self.owned.entry(holder).or_default().remove(id);
        }
        self.owned.entry(session.clone()).or_default().insert(id.clone());
        let joined = self.now.as_millis();
        self.write(id, session, revision, revision, joined, nonce, draft);
        Reply::Joined {
            incarnation: Incarnation::new(revision),
            revision: Revision::new(revision),
            joined_at_ms: joined,
        }
    }

    fn take_owned(&mut self, session: &SessionId, most: usize) -> Vec<MemberId> {
        let owned = self.owned.entry(session.clone()).or_default();
        let taken: Vec<_> = owned.iter().take(most).cloned().collect();
        owned.retain(|id| !taken.contains(id));
        taken.into_iter().filter(|id| self.session_of(id).as_ref() == Some(session)).collect()
    }

    fn sweep(&mut self) -> Reply {
        let (mut dying, mut more) = (Vec::new(), false);
        let due: Vec<_> =
            self.deadlines.iter().filter(|(_, at)| **at <= self.now).map(|(who, _)| who.clone()).collect();
        for who in due {
            if let Some(id) = who.strip_prefix('~') {
                let id = MemberId::known(id);
                self.touch(&id);
                match self.keys.get(&id).and_then(|key| key.expires) {
                    Some(at) => drop(self.deadlines.insert(who, at)),
                    None => {
                        self.deadlines.remove(&who);
                        self.index.remove(&id);
                        self.next_revision();
                    }
                }
                continue;
            }
            let session = SessionId::new(&who);
            if let Some(at) = self.leases.get(&session).filter(|at| **at > self.now) {
                self.deadlines.insert(who, *at);
                continue;
            }
            for id in self.take_owned(&session, CHUNK) {
                let expires = Some(self.now + Duration::from_millis(2));
                self.keys.entry(id.clone()).and_modify(|key| key.expires = expires);
                self.notify(&id, KeyEvent::Expire);
                self.index.remove(&id);
                dying.push(id);
            }
            if self.owned.get(&session).is_none_or(BTreeSet::is_empty) {
                self.deadlines.remove(&who);
            } else {
                more = true;
            }
        }
        if !dying.is_empty() {
            self.tell_gone(LeaveCause::Expired, &dying);
            self.next_revision();
        }
        Reply::Swept { due: self.due(), more, dying }
    }

    fn list(&mut self, known: Option<Known>, after: Option<Incarnation>) -> Reply {
        let now = Known { revision: Revision::new(self.revision), count: self.index.len() as u64 };
        if self.revision > 0 && known == Some(now) {
            return Reply::Unchanged { due: self.due() };
        }
        let mut order: Vec<_> = self.index.iter().map(|(id, incarnation)| (*incarnation, id.clone())).collect();
        order.sort_unstable();
        let rest = order.into_iter().filter(|(at, _)| after.is_none_or(|after| *at > after.get()));
        let mut entries = Vec::new();
        for (incarnation, id) in rest.take(CHUNK) {
            self.touch(&id);
            let written = match self.keys.get(&id).map(|key| &key.value) {
                Some(Value::Ours { member, .. }) => Written::At(member.revision()),
                Some(Value::Text(_)) => Written::ByAnother,
                None => Written::Nowhere,
            };
            entries.push(Entry { id, incarnation: Incarnation::new(incarnation), written });
        }
        Reply::Part { due: self.due(), known: now, more: entries.len() == CHUNK, entries }
    }

    fn find(&mut self, id: &MemberId, session: Option<&SessionId>) -> Finding {
        self.touch(id);
        match self.keys.get(id).cloned() {
            Some(Key { value: Value::Ours { member, .. }, .. }) => {
                if self.index.get(id) == Some(&member.incarnation().get()) {
                    Finding::Record(member)
                } else if self.closed.contains(member.session()) {
                    Finding::Left
                } else if self.lives(member.session()) {
                    Finding::Removed
                } else {
                    Finding::Expired
                }
            }
            Some(Key { value: Value::Text(_), expires: None }) => Finding::NoMember("no ttl".into()),
            Some(Key { value: Value::Text(text), expires: Some(at) }) => {
                let known = self.index.get(id).copied().filter(|_| self.deadlines.contains_key(&format!("~{id}")));
                let incarnation = known.unwrap_or_else(|| self.next_revision());
                self.index.insert(id.clone(), incarnation);
                self.deadlines.insert(format!("~{id}"), at);
                Finding::Record(Arc::new(Member::new(
                    id.clone(),
                    Incarnation::new(incarnation),
                    Revision::new(incarnation),
                    SessionId::adopted(),
                    incarnation / 1000,
                    MemberDraft { metadata: Metadata::Text(text.into()), ..MemberDraft::default() },
                )))
            }
            None if session.is_some_and(SessionId::is_adopted) => {
                self.forget(id);
                Finding::Gone
            }
            None => match session {
                Some(session) if self.closed.contains(session) => Finding::Left,
                Some(session) if self.lives(session) && self.index.contains_key(id) => Finding::Removed,
                Some(session) if self.lives(session) => Finding::Left,
                _ => {
                    self.forget(id);
                    Finding::Expired
                }
            },
        }
    }

    fn forget(&mut self, id: &MemberId) {
        self.deadlines.remove(&format!("~{id}"));
        if self.index.remove(id).is_some() {
            self.next_revision();
        }
    }
}

/// Whether the second session is a later one of the connector that the first is of.
fn is_outlived(holder: &SessionId, session: &SessionId) -> bool {
    let parts = |session: &SessionId| {
        let (connector, count) = session.as_str().rsplit_once('-')?;
        Some((connector.to_owned(), count.parse::<u64>().ok()?))
    };
    matches!((parts(holder), parts(session)), (Some((of, count)), Some((by, later))) if of == by && count < later)
}
