//! A lock as text: its record, its queue entries, and its inbox messages.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::names::decode_path;
use crate::model::{FencingToken, MemberId, SessionId};

/// What one acquisition is known by, from the first attempt until the lock has been given back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HoldId {
    pub(crate) session: SessionId,
    pub(crate) nonce: u64,
    /// The lock's name, encoded.
    pub(crate) name: Arc<str>,
    /// Whether others may hold it beside this one.
    pub(crate) shared: bool,
}

/// A lock that the server says is held, and under which token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedHold {
    pub(crate) hold_id: HoldId,
    pub(crate) token: FencingToken,
}

/// One attempt to hold a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueEntry {
    pub(crate) hold_id: HoldId,
    /// How many may hold it.
    pub(crate) most: u32,
    /// The member that wants it, encoded. Empty where that is not known any more.
    pub(crate) member: Arc<str>,
}

impl HoldId {
    pub(crate) fn mode(&self) -> &'static str {
        if self.shared { "r" } else { "w" }
    }

    /// The hold id that stands in a session's owned set as this path, with the nonce found in its record.
    pub(crate) fn of_path(session: &SessionId, path: &[u8], nonce: u64) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let (name, shared) = match path.strip_prefix("locks/") {
            Some(name) => (name, false),
            None => (path.strip_prefix("shared/")?.split(' ').next()?, true),
        };
        Some(Self { session: session.clone(), nonce, name: name.into(), shared })
    }
}

impl QueueEntry {
    /// Its place in the queue, as it stands there; the first three words of it where it cannot be in one.
    pub(crate) fn text(&self, safety: Duration) -> String {
        let Self { hold_id: HoldId { session, nonce, .. }, most, member } = self;
        if member.is_empty() {
            return format!("{session} {nonce} {}", self.hold_id.mode());
        }
        format!("{session} {nonce} {} {most} {} {member}", self.hold_id.mode(), safety.as_millis())
    }
}

impl From<HoldId> for QueueEntry {
    fn from(hold_id: HoldId) -> Self {
        Self { hold_id, most: 0, member: "".into() }
    }
}

/// What an inbox brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InboxMessage {
    /// The lock has been handed on to this acquisition.
    Grant { nonce: u64, grant: Grant },
    /// The lock was taken away by an operator.
    Broken { nonce: u64 },
}

/// A lock's token, and since when it is held by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) token: FencingToken,
    pub(crate) since_ms: u64,
}

impl InboxMessage {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(payload).ok()?.split(' ');
        let kind = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let nonce = number()?;
        Some(match kind {
            "grant" => Self::Grant { nonce, grant: Grant { token: FencingToken::new(number()?), since_ms: number()? } },
            "broken" => Self::Broken { nonce },
            _ => return None,
        })
    }
}

/// The holder of a lock, as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockRecord {
    pub(crate) token: FencingToken,
    pub(crate) session: SessionId,
    pub(crate) since_ms: u64,
    pub(crate) member: MemberId,
}

impl LockRecord {
    pub(crate) fn parse(record: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Parsed {
            v: u64,
            token: u64,
            session: String,
            since: u64,
            member: String,
        }
        let parsed: Parsed = serde_json::from_slice(record).ok()?;
        (parsed.v == 1).then_some(())?;
        Some(Self {
            token: FencingToken::new(parsed.token),
            session: SessionId::new(parsed.session),
            since_ms: parsed.since,
            member: MemberId::known(&decode_path(parsed.member.as_bytes())?),
        })
    }
}

/// A waiter, and its mode: the session and the member of a queue entry.
pub(crate) fn waiting(entry: &[u8]) -> Option<(bool, MemberId)> {
    let words: Vec<_> = std::str::from_utf8(entry).ok()?.split(' ').collect();
    let [_, _, mode, _, _, member] = words[..] else { return None };
    Some((mode == "r", MemberId::known(&decode_path(member.as_bytes())?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold_id(shared: bool) -> HoldId {
        HoldId { session: SessionId::new("c-1"), nonce: 7, name: "a/b%20c".into(), shared }
    }

    #[test]
    fn an_entry_says_who_waits() {
        let queue_entry = QueueEntry { hold_id: hold_id(true), most: 3, member: "m%20x".into() };
        let entry = queue_entry.text(Duration::from_secs(4));
        assert_eq!(entry, "c-1 7 r 3 4000 m%20x");
        assert_eq!(waiting(entry.as_bytes()), Some((true, MemberId::known("m x"))));
        assert_eq!(waiting(b"c-1 7 r 3"), None);
        assert_eq!(QueueEntry::from(hold_id(false)).text(Duration::from_secs(4)), "c-1 7 w");
    }

    #[test]
    fn a_path_of_the_owned_set_is_a_hold_id() {
        let session = SessionId::new("c-1");
        assert_eq!(HoldId::of_path(&session, b"locks/a/b%20c", 7), Some(hold_id(false)));
        assert_eq!(HoldId::of_path(&session, b"shared/a/b%20c 7", 7), Some(hold_id(true)));
        assert_eq!(HoldId::of_path(&session, b"members/a", 7), None);
    }

    #[test]
    fn inbox_messages_are_read_and_strange_ones_are_none() {
        let grant = Grant { token: FencingToken::new(9), since_ms: 5 };
        assert_eq!(InboxMessage::parse(b"grant 7 9 5"), Some(InboxMessage::Grant { nonce: 7, grant }));
        assert_eq!(InboxMessage::parse(b"broken 7"), Some(InboxMessage::Broken { nonce: 7 }));
        for strange in [&b""[..], b"grant", b"grant 7", b"grant 7 9", b"grant x 9 5", b"hello 7", b"\xff"] {
            assert_eq!(InboxMessage::parse(strange), None);
        }
    }

    #[test]
    fn a_record_says_who_holds() {
        let record = br#"{"v":1,"token":9,"session":"c-1","nonce":7,"since":5,"member":"m%20x"}"#;
        let record = LockRecord::parse(record).unwrap();
        assert_eq!((record.token.get(), record.since_ms, record.member.as_str()), (9, 5, "m x"));
        assert_eq!(LockRecord::parse(b"text"), None);
        assert_eq!(LockRecord::parse(br#"{"v":2,"token":9,"session":"c","since":5,"member":"m"}"#), None);
    }
}
