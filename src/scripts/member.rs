//! The scripts of the members: their records, and the index of them.

use std::sync::{Arc, LazyLock};

use redis::{Script, Value};

use super::fields::{due, id, is_one, items, kind, number, revision, text};
use super::text::{ChannelScript, script};
use super::{ScriptCall, ScriptContext, ms, range_after};
use crate::error::{Error, ErrorKind};
use crate::model::{Incarnation, Member, MemberDraft, MemberId, Metadata, Revision, SessionId};
use crate::proto::{Contest, Entry, Finding, Known, Reply, Written};
use crate::wire::{Record, encode, holder, parse, record_head, record_tail};

static JOIN: LazyLock<ChannelScript> = LazyLock::new(|| ChannelScript::new(include_str!("member_join.lua")));

pub(crate) fn join(
    context: &ScriptContext,
    member: &MemberId,
    session: &SessionId,
    opening: bool,
    contest: Contest,
    nonce: u64,
    draft: &MemberDraft,
) -> Result<ScriptCall<'static, Reply>, Error> {
    let keys = &context.keys;
    let mut script = JOIN.by(context.channels()).key(keys.member(member.as_str()));
    script
        .key(keys.members())
        .key(keys.lease(session.as_str()))
        .key(keys.leases())
        .key(keys.owned(session.as_str()))
        .key(keys.revision())
        .key(keys.absent())
        .arg(keys.prefix())
        .arg(encode(member.as_str()))
        .arg(session.as_str())
        .arg(if opening { "open" } else { "opened" })
        .arg(&context.holder)
        .arg(ms(context.ttl))
        .arg(ms(context.safety))
        .arg(match contest {
            Contest::Take => "take",
            Contest::Yield => "yield",
            Contest::Rejoin => "rejoin",
        })
        .arg(nonce)
        .arg(tail(member, draft)?);
    Ok(ScriptCall::new("join", script, joined))
}

fn joined(value: &Value) -> Option<Reply> {
    Some(match kind(value)? {
        (b"joined", [incarnation, written, joined]) => Reply::Joined {
            incarnation: Incarnation::new(number(incarnation)?),
            revision: revision(written)?,
            joined_at_ms: number(joined)?,
        },
        (b"conflict", [lease]) => Reply::Conflict { holder: holder(text(lease)?) },
        (b"lost", []) => Reply::Lost,
        _ => return None,
    })
}

fn tail(member: &MemberId, draft: &MemberDraft) -> Result<String, Error> {
    record_tail(draft).map_err(|error| {
        Error::caused_by(ErrorKind::InvalidMetadata, format!("the record of {member:?} is no JSON"), error)
    })
}

static UPDATE: LazyLock<ChannelScript> = LazyLock::new(|| ChannelScript::new(include_str!("member_update.lua")));

pub(crate) fn update(
    context: &ScriptContext,
    member: &MemberId,
    session: &SessionId,
    incarnation: Incarnation,
    joined_at_ms: u64,
    nonce: u64,
    draft: &MemberDraft,
) -> Result<ScriptCall<'static, Reply>, Error> {
    let keys = &context.keys;
    let mut script = UPDATE.by(context.channels()).key(keys.member(member.as_str()));
    script
        .key(keys.lease(session.as_str()))
        .key(keys.revision())
        .arg(record_head(incarnation, session))
        .arg(nonce)
        .arg(joined_at_ms)
        .arg(tail(member, draft)?)
        .arg(keys.prefix())
        .arg(encode(member.as_str()));
    Ok(ScriptCall::new("update", script, updated))
}

fn updated(value: &Value) -> Option<Reply> {
    Some(match kind(value)? {
        (b"updated", [written]) => Reply::Updated { revision: revision(written)? },
        (b"lost", []) => Reply::Lost,
        _ => return None,
    })
}

static LEAVE: LazyLock<ChannelScript> = LazyLock::new(|| ChannelScript::new(include_str!("member_leave.lua")));

pub(crate) fn leave(
    context: &ScriptContext,
    member: &MemberId,
    session: &SessionId,
    incarnation: Option<Incarnation>,
) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = LEAVE.by(context.channels()).key(keys.member(member.as_str()));
    script
        .key(keys.members())
        .key(keys.owned(session.as_str()))
        .key(keys.revision())
        .arg(encode(member.as_str()))
        .arg(session.as_str())
        .arg(incarnation.map(|incarnation| incarnation.to_string()).unwrap_or_default())
        .arg(keys.prefix());
    ScriptCall::new("leave", script, left)
}

fn left(value: &Value) -> Option<Reply> {
    is_one(value).map(Reply::Left)
}

static RENEW: LazyLock<Script> = LazyLock::new(|| script(include_str!("member_renew.lua")));

pub(crate) fn renew(context: &ScriptContext, session: &SessionId, members: &[MemberId]) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = RENEW.key(keys.owned(session.as_str()));
    script.arg(keys.prefix()).arg(session.as_str()).arg(ms(context.safety));
    for member in members {
        script.arg(encode(member.as_str()));
    }
    ScriptCall::new("renewal of the safety ttl", script, renewed)
}

fn renewed(value: &Value) -> Option<Reply> {
    Some(Reply::Renewed { strangers: items(value)?.iter().map(id).collect::<Option<_>>()? })
}

static LIST: LazyLock<Script> = LazyLock::new(|| script(include_str!("member_list.lua")));

const LIST_ENTRIES: usize = 500;

pub(crate) fn list(
    context: &ScriptContext,
    known: Option<Known>,
    after: Option<Incarnation>,
) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = LIST.key(keys.members());
    script.key(keys.leases()).key(keys.revision()).arg(keys.prefix());
    match known {
        Some(known) => script.arg(known.revision.get()).arg(known.count),
        None => script.arg("").arg(""),
    };
    script.arg(range_after(after.map(Incarnation::get))).arg(LIST_ENTRIES);
    ScriptCall::new("listing of the members", script, listed)
}

fn listed(value: &Value) -> Option<Reply> {
    Some(match kind(value)? {
        (b"same", [first]) => Reply::Unchanged { due: due(first)? },
        (b"part", [first, highest, count, more, entries @ ..]) => Reply::Part {
            due: due(first)?,
            known: Known { revision: revision(highest)?, count: number(count)? },
            more: is_one(more)?,
            // An entry that no name encodes to is nobody; its place in the order still counts.
            entries: entries.chunks_exact(3).filter_map(entry).collect(),
        },
        _ => return None,
    })
}

fn entry(fields: &[Value]) -> Option<Entry> {
    let [name, incarnation, written] = fields else { return None };
    Some(Entry {
        id: id(name)?,
        incarnation: Incarnation::new(number(incarnation)?),
        written: match text(written)? {
            b"0" => Written::Nowhere,
            b"-1" => Written::ByAnother,
            _ => Written::At(revision(written)?),
        },
    })
}

static READ: LazyLock<Script> = LazyLock::new(|| script(include_str!("member_read.lua")));

/// How many bytes of records one read may bring.
const READ_BYTES: usize = 4 << 20;

pub(crate) fn read(context: &ScriptContext, wanted: Vec<(MemberId, Option<SessionId>)>) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = READ.key(keys.members());
    script.key(keys.leases()).key(keys.revision()).arg(keys.prefix()).arg(READ_BYTES);
    for (member, session) in &wanted {
        script.arg(encode(member.as_str())).arg(session.as_ref().map_or("", SessionId::as_str));
    }
    ScriptCall::new("reading of members", script, move |value| found(value, &wanted))
}

fn found(value: &Value, wanted: &[(MemberId, Option<SessionId>)]) -> Option<Reply> {
    let [first, as_of, found @ ..] = items(value)? else { return None };
    if found.len() != wanted.len() {
        return None;
    }
    let findings =
        found.iter().zip(wanted).map(|(found, (member, _))| finding(member, found)).collect::<Option<_>>()?;
    Some(Reply::Found { due: due(first)?, as_of: revision(as_of)?, findings })
}

fn finding(member: &MemberId, found: &Value) -> Option<Finding> {
    Some(match kind(found)? {
        (b"record", [value]) => match parse(member, text(value)?) {
            Record::Ours(member) => Finding::Record(Arc::new(member)),
            Record::Unreadable(why) => Finding::NoMember(why),
            Record::Foreign => return None,
        },
        (b"foreign", [incarnation, value]) => {
            Finding::Record(Arc::new(adopted(member, number(incarnation)?, text(value)?)))
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

/// The member that another program keeps, as text of its own.
fn adopted(member: &MemberId, incarnation: u64, text: &[u8]) -> Member {
    let text = String::from_utf8_lossy(text).into_owned();
    Member::new(
        member.clone(),
        Incarnation::new(incarnation),
        Revision::new(incarnation),
        SessionId::adopted(),
        incarnation / 1000,
        MemberDraft { metadata: Metadata::Text(text.into()), ..MemberDraft::default() },
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fields::tests::answer;
    use super::*;

    #[test]
    fn answers_about_one_member_are_read() {
        let reply = Reply::Joined { incarnation: Incarnation::new(7), revision: Revision::new(8), joined_at_ms: 9 };
        assert_eq!(joined(&answer("(joined 7 8 9)")), Some(reply));
        let holder = "another program".to_owned();
        assert_eq!(joined(&answer("(conflict x)")), Some(Reply::Conflict { holder }));
        assert_eq!((joined(&answer("(lost)")), updated(&answer("(lost)"))), (Some(Reply::Lost), Some(Reply::Lost)));
        assert_eq!(updated(&answer("(updated 8)")), Some(Reply::Updated { revision: Revision::new(8) }));
        assert_eq!((left(&answer("1")), left(&answer("0"))), (Some(Reply::Left(true)), Some(Reply::Left(false))));
        assert_eq!(renewed(&answer("()")), Some(Reply::Renewed { strangers: Vec::new() }));
        let strangers = vec![MemberId::known("a b")];
        assert_eq!(renewed(&answer("(a%20b)")), Some(Reply::Renewed { strangers }));
    }

    #[test]
    fn odd_answers_about_one_member_are_none() {
        for odd in ["1", "()", "(x)", "(joined 7 8)", "(joined x 8 9)", "(conflict)", "(lost 1)"] {
            assert_eq!(joined(&answer(odd)), None, "{odd}");
        }
        assert!(
            ["1", "()", "(updated)", "(updated x)", "(joined 7 8 9)"].iter().all(|o| updated(&answer(o)).is_none())
        );
        assert!(["x", "()"].iter().all(|odd| left(&answer(odd)).is_none()));
        assert!(["1", "(a/b)", "(7)"].iter().all(|odd| renewed(&answer(odd)).is_none()));
    }

    #[test]
    fn a_listing_leaves_out_entries_that_are_nobody() {
        assert_eq!(listed(&answer("(same -1)")), Some(Reply::Unchanged { due: None }));
        let text = |text: &str| Value::BulkString(text.into());
        let mut part = vec![text("part"), Value::Int(9), text("12"), Value::Int(3), Value::Int(1)];
        for (name, written) in [("a", "8"), ("a/b", "8"), ("b", "0"), ("c", "-1")] {
            part.extend([text(name), text("7"), text(written)]);
        }
        let entry =
            |name: &str, written| Entry { id: MemberId::known(name), incarnation: Incarnation::new(7), written };
        let reply = Reply::Part {
            due: Some(Duration::from_millis(9)),
            known: Known { revision: Revision::new(12), count: 3 },
            more: true,
            entries: vec![
                entry("a", Written::At(Revision::new(8))),
                entry("b", Written::Nowhere),
                entry("c", Written::ByAnother),
            ],
        };
        assert_eq!(listed(&Value::Array(part)), Some(reply));
        for odd in ["1", "()", "(same)", "(same x)", "(part -1 7 0)", "(part -1 x 0 0)", "(part -1 7 0 x)"] {
            assert_eq!(listed(&answer(odd)), None, "{odd}");
        }
    }

    #[test]
    fn a_read_says_of_each_what_was_found() {
        let wanted = ["a", "b", "c"].map(|name| (MemberId::known(name), None));
        let Some(Reply::Found { due: None, as_of, findings }) =
            found(&answer("(-1 9000 (foreign 7000 x) (left) (unkept))"), &wanted)
        else {
            panic!("not read")
        };
        let [Finding::Record(member), Finding::Left, Finding::NoMember(_)] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert_eq!((member.id().as_str(), member.joined_at_ms(), member.revision().get()), ("a", 7, 7000));
        assert_eq!(as_of.get(), 9000);
        for odd in [
            "()",
            "(-1 9)",
            "(-1 9 (left) (left))",
            "(x 9 (left) (left) (left))",
            "(-1 x (left) (left) (left))",
            "(-1 9 (left) (left) (x))",
        ] {
            assert_eq!(found(&answer(odd), &wanted), None, "{odd}");
        }
        for odd in ["left", "()", "(record x)", "(foreign x y)", "(left 1)"] {
            assert_eq!(finding(&wanted[0].0, &answer(odd)), None, "{odd}");
        }
    }
}
