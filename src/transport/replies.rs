//! What the scripts answer, as types.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use crate::error::Error;
use crate::model::{FencingToken, Incarnation, Member, MemberDraft, MemberId, Metadata, Revision, SessionId};
use crate::proto::{Entry, Finding, Known, Reply, Written};
use crate::wire::{HoldId, ListedHold, Record, decode, holder as lease_holder, parse};

/// Turns an answer into a reply, or says that it is not what the script promises.
pub(super) fn reply(of: &str, value: Value, read: impl FnOnce(&[Value]) -> Option<Reply>) -> Result<Reply, Error> {
    match value {
        Value::Array(items) => read(&items).ok_or_else(|| Error::unexpected(of)),
        other => read(&[other]).ok_or_else(|| Error::unexpected(of)),
    }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(text) => Some(text),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn id(value: &Value) -> Option<MemberId> {
    decode(text(value)?).map(|name| MemberId::known(&name))
}

/// Milliseconds, or -1 for never.
fn due(value: &Value) -> Option<Option<Duration>> {
    match value {
        Value::Int(-1) => Some(None),
        other => number(other).map(|ms| Some(Duration::from_millis(ms))),
    }
}

pub(super) fn opened(items: &[Value]) -> Option<Reply> {
    Some(if number(items.first()?)? == 1 { Reply::Opened } else { Reply::Lost })
}

pub(super) fn probing(items: &[Value]) -> Option<Reply> {
    let (holds, rest) = items.split_first()?;
    if number(holds)? == 0 {
        let (asks, probers) = rest.split_first()?;
        let prober = |value: &Value| Some(std::str::from_utf8(text(value)?).ok()?.to_owned());
        let probers = probers.iter().map(prober).collect::<Option<_>>()?;
        return Some(Reply::NotProbing { asks: number(asks)?, probers });
    }
    let session = |value: &Value| Some(SessionId::new(std::str::from_utf8(text(value)?).ok()?));
    Some(Reply::Probing { sessions: rest.iter().map(session).collect::<Option<_>>()? })
}

/// Channels, each with the number of its subscribers.
pub(super) fn present(items: &[Value]) -> Option<Reply> {
    let is_present = |pair: &[Value]| Some(number(pair.get(1)?)? > 0);
    Some(Reply::Present(items.chunks(2).map(is_present).collect::<Option<_>>()?))
}

pub(super) fn shortened(items: &[Value]) -> Option<Reply> {
    Some(Reply::Shortened { due: due(items.first()?)? })
}

pub(super) fn extended(items: &[Value], session: &SessionId) -> Option<Reply> {
    let (cursor, held) = items.split_first()?;
    let listed = |fields: &[Value]| {
        let hold_id = HoldId::of_path(session, text(&fields[0])?, number(&fields[1])?)?;
        Some(ListedHold { hold_id, token: FencingToken::new(number(&fields[2])?) })
    };
    Some(Reply::Extended { cursor: number(cursor)?, held: held.chunks_exact(3).map(listed).collect::<Option<_>>()? })
}

pub(super) fn joined(items: &[Value]) -> Option<Reply> {
    Some(match (text(items.first()?)?, &items[1..]) {
        (b"joined", [incarnation, revision, joined]) => Reply::Joined {
            incarnation: Incarnation::new(number(incarnation)?),
            revision: Revision::new(number(revision)?),
            joined_at_ms: number(joined)?,
        },
        (b"conflict", [holder]) => Reply::Conflict { holder: lease_holder(text(holder)?) },
        (b"lost", []) => Reply::Lost,
        _ => return None,
    })
}

pub(super) fn updated(items: &[Value]) -> Option<Reply> {
    Some(match (text(items.first()?)?, &items[1..]) {
        (b"updated", [revision]) => Reply::Updated { revision: Revision::new(number(revision)?) },
        (b"lost", []) => Reply::Lost,
        _ => return None,
    })
}

pub(super) fn left(items: &[Value]) -> Option<Reply> {
    Some(Reply::Left(number(items.first()?)? == 1))
}

pub(super) fn closed(items: &[Value]) -> Option<Reply> {
    Some(Reply::Closed { remaining: number(items.first()?)? })
}

pub(super) fn renewed(items: &[Value]) -> Option<Reply> {
    Some(Reply::Renewed { strangers: items.iter().map(id).collect::<Option<_>>()? })
}

pub(super) fn swept(items: &[Value]) -> Option<Reply> {
    let [first, more, dying @ ..] = items else { return None };
    Some(Reply::Swept { due: due(first)?, more: number(more)? == 1, dying: dying.iter().filter_map(id).collect() })
}

pub(super) fn listed(items: &[Value]) -> Option<Reply> {
    match items {
        [kind, first] if text(kind)? == b"same" => Some(Reply::Unchanged { due: due(first)? }),
        [kind, first, revision, count, more, entries @ ..] if text(kind)? == b"part" => Some(Reply::Part {
            due: due(first)?,
            known: Known { revision: Revision::new(number(revision)?), count: number(count)? },
            more: number(more)? == 1,
            // An entry that no name encodes to is nobody; its place in the order still counts.
            entries: entries.chunks_exact(3).filter_map(entry).collect(),
        }),
        _ => None,
    }
}

fn entry(fields: &[Value]) -> Option<Entry> {
    let [name, incarnation, written] = fields else { return None };
    Some(Entry {
        id: id(name)?,
        incarnation: Incarnation::new(number(incarnation)?),
        written: match text(written)? {
            b"0" => Written::Nowhere,
            b"-1" => Written::ByAnother,
            _ => Written::At(Revision::new(number(written)?)),
        },
    })
}

pub(super) fn found(items: &[Value], wanted: &[(MemberId, Option<SessionId>)]) -> Option<Reply> {
    let (first, found) = items.split_first()?;
    if found.len() != wanted.len() {
        return None;
    }
    let findings = found.iter().zip(wanted).map(|(found, (id, _))| finding(id, found)).collect::<Option<_>>()?;
    Some(Reply::Found { due: due(first)?, findings })
}

fn finding(id: &MemberId, found: &Value) -> Option<Finding> {
    let Value::Array(fields) = found else { return None };
    Some(match (text(fields.first()?)?, &fields[1..]) {
        (b"record", [value]) => match parse(id, text(value)?) {
            Record::Ours(member) => Finding::Record(Arc::new(member)),
            Record::Unreadable(why) => Finding::NoMember(why),
            Record::Foreign => return None,
        },
        (b"foreign", [incarnation, value]) => {
            let incarnation = number(incarnation)?;
            let value = String::from_utf8_lossy(text(value)?).into_owned();
            Finding::Record(Arc::new(Member::new(
                id.clone(),
                Incarnation::new(incarnation),
                Revision::new(incarnation),
                SessionId::adopted(),
                incarnation / 1000,
                MemberDraft { metadata: Metadata::Text(value.into()), ..MemberDraft::default() },
            )))
        }
        (b"unkept", []) => {
            Finding::NoMember("it is no text with a time to live, or there is no memory to note it".into())
        }
        (b"left", []) => Finding::Left,
        (b"removed", []) => Finding::Removed,
        (b"expired", []) => Finding::Expired,
        (b"gone", []) => Finding::Gone,
        (b"later", []) => Finding::Later,
        _ => return None,
    })
}
