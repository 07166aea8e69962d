//! The scripts of a session: its lease, and what it owns.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};

use super::fields::{due, id, is_one, items, number, text};
use super::text::{ChannelScript, ownership_script, script};
use super::{ScriptCall, ScriptContext, ms};
use crate::model::{FencingToken, SessionId};
use crate::proto::Reply;
use crate::wire::{HoldId, ListedHold};

static OPEN: LazyLock<Script> = LazyLock::new(|| script(include_str!("session_open.lua")));

pub(crate) fn open(context: &ScriptContext, session: &SessionId) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = OPEN.key(keys.lease(session.as_str()));
    script
        .key(keys.leases())
        .key(keys.owned(session.as_str()))
        .arg(session.as_str())
        .arg(&context.holder)
        .arg(ms(context.ttl))
        .arg(ms(context.safety));
    ScriptCall::new("opening of the session", script, opened)
}

fn opened(value: &Value) -> Option<Reply> {
    Some(if is_one(value)? { Reply::Opened } else { Reply::Lost })
}

static HEARTBEAT: LazyLock<Script> = LazyLock::new(|| script(include_str!("session_heartbeat.lua")));

/// Answers whether the lease lives.
pub(crate) fn heartbeat(context: &ScriptContext, session: &SessionId) -> ScriptCall<'static, bool> {
    let keys = &context.keys;
    let mut script = HEARTBEAT.key(keys.lease(session.as_str()));
    script.key(keys.leases()).arg(session.as_str()).arg(ms(context.ttl));
    ScriptCall::new("heartbeat", script, is_one)
}

static EXTEND: LazyLock<Script> = LazyLock::new(|| ownership_script(include_str!("session_extend.lua")));

const EXTEND_KEYS: usize = 500;

/// Renews what the session owns, from this place on.
pub(crate) fn extend(context: &ScriptContext, session: &SessionId, cursor: u64) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = EXTEND.key(keys.owned(session.as_str()));
    script
        .key(keys.members())
        .key(keys.leases())
        .key(keys.ephemerals())
        .arg(keys.prefix())
        .arg(session.as_str())
        .arg(ms(context.safety))
        .arg(cursor)
        .arg(EXTEND_KEYS);
    let session = session.clone();
    ScriptCall::new("renewal of what the session owns", script, move |value| extended(value, &session))
}

fn extended(value: &Value, session: &SessionId) -> Option<Reply> {
    let (cursor, held) = items(value)?.split_first()?;
    let listed = |fields: &[Value]| {
        let hold_id = HoldId::of_path(session, text(&fields[0])?, number(&fields[1])?)?;
        Some(ListedHold { hold_id, token: FencingToken::new(number(&fields[2])?) })
    };
    Some(Reply::Extended { cursor: number(cursor)?, held: held.chunks_exact(3).map(listed).collect::<Option<_>>()? })
}

static CLOSE: LazyLock<ChannelScript> = LazyLock::new(|| ChannelScript::ownership(include_str!("session_close.lua")));

const CLOSE_KEYS: usize = 1000;
/// How long the lease of a closed session says so.
const LAST_WORD: Duration = Duration::from_secs(5);

pub(crate) fn close(context: &ScriptContext, session: &SessionId) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = CLOSE.by(context.channels()).key(keys.lease(session.as_str()));
    script
        .key(keys.leases())
        .key(keys.members())
        .key(keys.owned(session.as_str()))
        .key(keys.revision())
        .key(keys.absent())
        .arg(keys.prefix())
        .arg(session.as_str())
        .arg(CLOSE_KEYS)
        .arg(ms(LAST_WORD.min(context.safety)));
    ScriptCall::new("close", script, closed)
}

fn closed(value: &Value) -> Option<Reply> {
    Some(Reply::Closed { remaining: number(value)? })
}

static SWEEP: LazyLock<ChannelScript> = LazyLock::new(|| ChannelScript::ownership(include_str!("session_sweep.lua")));

/// How many keys of dead sessions one sweep may take, so that no call stops the server for long.
const SWEEP_KEYS: usize = 500;
const SWEEP_LEASES: usize = 64;
/// How many members a sweep draws, to check that the index of leases lists their sessions: few, since a large group
/// sweeps often.
const SWEEP_DRAWN: usize = 2;

pub(crate) fn sweep(context: &ScriptContext) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = SWEEP.by(context.channels()).key(keys.leases());
    script
        .key(keys.members())
        .key(keys.revision())
        .key(keys.absent())
        .arg(keys.prefix())
        .arg(SWEEP_KEYS)
        .arg(SWEEP_LEASES)
        .arg(SWEEP_DRAWN);
    ScriptCall::new("sweep", script, swept)
}

fn swept(value: &Value) -> Option<Reply> {
    let [first, more, dying @ ..] = items(value)? else { return None };
    Some(Reply::Swept { due: due(first)?, more: is_one(more)?, dying: dying.iter().filter_map(id).collect() })
}

#[cfg(test)]
mod tests {
    use super::super::fields::tests::answer;
    use super::*;
    use crate::model::MemberId;

    #[test]
    fn answers_about_a_session_are_read() {
        assert_eq!(opened(&answer("1")), Some(Reply::Opened));
        assert_eq!(opened(&answer("0")), Some(Reply::Lost));
        assert_eq!(closed(&answer("7")), Some(Reply::Closed { remaining: 7 }));
        let due = Some(Duration::from_millis(9));
        let swept_all = Reply::Swept { due: None, more: false, dying: Vec::new() };
        assert_eq!(swept(&answer("(-1 0)")), Some(swept_all));
        let dying = vec![MemberId::known("a b")];
        assert_eq!(swept(&answer("(9 1 a%20b a/b)")), Some(Reply::Swept { due, more: true, dying }));
    }

    #[test]
    fn an_extension_lists_what_is_held() {
        let session = SessionId::new("c-1");
        let shared = HoldId { session: session.clone(), nonce: 7, name: "a/b".into(), shared: true };
        let held = vec![ListedHold { hold_id: shared, token: FencingToken::new(9) }];
        let reply = extended(&answer("(3 (shared/a/b) )"), &session);
        assert_eq!(reply, Some(Reply::Extended { cursor: 3, held: Vec::new() }), "what is no triple is left out");
        let path = Value::BulkString(b"shared/a/b 7".to_vec());
        let value = Value::Array(vec![Value::Int(0), path, Value::Int(7), Value::Int(9)]);
        assert_eq!(extended(&value, &session), Some(Reply::Extended { cursor: 0, held }));
        for odd in ["()", "3", "(x)", "(0 members/a 7 9)", "(0 locks/a x 9)", "(0 locks/a 7 x)"] {
            assert_eq!(extended(&answer(odd), &session), None, "{odd}");
        }
    }

    #[test]
    fn odd_answers_about_a_session_are_none() {
        for odd in ["x", "()", "(1)", "-1"] {
            assert_eq!((opened(&answer(odd)), closed(&answer(odd))), (None, None), "{odd}");
        }
        for odd in ["1", "()", "(-1)", "(x 0)", "(-1 x)"] {
            assert_eq!(swept(&answer(odd)), None, "{odd}");
        }
    }
}
