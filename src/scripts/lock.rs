//! The scripts of locks.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{FromRedisValue, Script, Value};

use super::call::{BatchRequest, BatchScript};
use super::fields::{is_one, items, kind, number, revision, text};
use super::text::{ChannelScript, ownership_script, user_script};
use super::{ScriptCall, ScriptContext};
use crate::error::Error;
use crate::model::{FencingToken, MemberId, Revision};
use crate::proto::Acquired;
use crate::wire::{Grant, HoldId, LockRecord, QueueEntry, waiting};

pub(crate) static ACQUIRE: BatchScript<Acquired> = BatchScript::new(
    "acquire",
    || ChannelScript::split(include_str!("lock_acquire.lua"), include_str!("lock_enqueue.lua")),
    acquired,
);

/// Tries to hold the lock; where `queues`, stands in its queue otherwise.
pub(crate) fn acquire(context: &ScriptContext, queue_entry: &QueueEntry, queues: bool) -> BatchRequest {
    let attempt = if queues { "wait" } else { "try" };
    BatchRequest {
        key: context.keys.at("locks", &queue_entry.hold_id.name),
        argument: format!("{attempt} {}", queue_entry.text(context.safety)),
    }
}

fn acquired(value: &Value) -> Option<Acquired> {
    let mut words = std::str::from_utf8(text(value)?).ok()?.split(' ');
    Some(match words.next()? {
        "held" => Acquired::Held(Grant {
            token: FencingToken::new(words.next()?.parse().ok()?),
            since_ms: words.next()?.parse().ok()?,
        }),
        "busy" => Acquired::Busy,
        "queued" => Acquired::Queued {
            before: words.next()?.parse().ok()?,
            again: words.next()?.parse().ok().map(Duration::from_millis),
        },
        "lost" => Acquired::Lost,
        _ => return None,
    })
}

/// It answers whether the lock was held.
pub(crate) static RELEASE: BatchScript<bool> = BatchScript::new(
    "release",
    || ChannelScript::split(include_str!("lock_release.lua"), include_str!("lock_handover.lua")),
    is_one,
);

/// Gives the lock back, or the place in its queue.
pub(crate) fn release(context: &ScriptContext, queue_entry: &QueueEntry) -> BatchRequest {
    BatchRequest {
        key: context.keys.at("locks", &queue_entry.hold_id.name),
        argument: queue_entry.text(context.safety),
    }
}

static BREAK: LazyLock<ChannelScript> = LazyLock::new(|| ChannelScript::ownership(include_str!("lock_break.lua")));

/// Takes the lock from its holders. Answers from how many.
pub(crate) fn break_lock(context: &ScriptContext, name: &str) -> ScriptCall<'static, u64> {
    let keys = &context.keys;
    let mut script = BREAK.by(context.channels()).key(keys.at("locks", name));
    script.key(keys.at("shared", name)).key(keys.absent()).arg(keys.prefix()).arg(name);
    ScriptCall::new("breaking of the lock", script, number)
}

static INSPECT: LazyLock<Script> = LazyLock::new(|| ownership_script(include_str!("lock_inspect.lua")));

/// The holders and the waiters of a lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inspection {
    pub(crate) holders: Vec<LockRecord>,
    /// For each: whether it wants to share the lock, its member, and since when, in the server's microseconds.
    pub(crate) waiters: Vec<(bool, MemberId, u64)>,
}

pub(crate) fn inspect(context: &ScriptContext, name: &str) -> ScriptCall<'static, Inspection> {
    let keys = &context.keys;
    let mut script = INSPECT.key(keys.at("locks", name));
    script.key(keys.at("shared", name)).key(keys.at("queues", name)).arg(keys.prefix());
    ScriptCall::new("inspection of the lock", script, inspected)
}

fn inspected(value: &Value) -> Option<Inspection> {
    let [holders, waiters] = items(value)? else { return None };
    // What is no record of a lock holds nothing; what is no entry waits for nothing.
    let holders = items(holders)?.iter().filter_map(|holder| LockRecord::parse(text(holder)?)).collect();
    let waiter = |pair: &[Value]| {
        let (shared, member) = waiting(text(&pair[0])?)?;
        Some((shared, member, number(&pair[1])?))
    };
    Some(Inspection { holders, waiters: items(waiters)?.chunks_exact(2).filter_map(waiter).collect() })
}

static FENCED_WRITE: LazyLock<Script> = LazyLock::new(|| ownership_script(include_str!("lock_fenced_write.lua")));

/// What a fenced write has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FencedWrite {
    Set(Revision),
    Deleted(bool),
}

/// Sets or deletes a persistent value; answers `None` if this hold does not have the lock any more.
pub(crate) fn fenced_write(
    context: &ScriptContext,
    hold_id: &HoldId,
    path: &str,
    value: Option<&[u8]>,
) -> ScriptCall<'static, Option<FencedWrite>> {
    let keys = &context.keys;
    let mut script = FENCED_WRITE.key(keys.at("locks", &hold_id.name));
    script
        .key(keys.at("shared", &hold_id.name))
        .key(keys.lease(hold_id.session.as_str()))
        .key(keys.at("persistent", path))
        .key(keys.persistent())
        .key(keys.revision())
        .arg(hold_id.session.as_str())
        .arg(hold_id.nonce)
        .arg(hold_id.mode())
        .arg(path)
        .arg(if value.is_some() { "set" } else { "del" })
        .arg(value.unwrap_or_default());
    ScriptCall::new("a fenced write", script, fenced)
}

fn fenced(value: &Value) -> Option<Option<FencedWrite>> {
    Some(match kind(value)? {
        (b"lost", []) => None,
        (b"set", [written]) => Some(FencedWrite::Set(revision(written)?)),
        (b"deleted", [deleted]) => Some(FencedWrite::Deleted(is_one(deleted)?)),
        _ => return None,
    })
}

/// A script of the user's, to be run by [`fenced_script`].
pub(crate) struct FencedScript(Script);

impl FencedScript {
    pub(crate) fn new(text: &str) -> Self {
        Self(user_script(include_str!("lock_fenced_script.lua"), text))
    }
}

/// What a script of the user's has answered.
#[derive(Debug, PartialEq)]
pub(crate) struct FencedAnswer(Value);

impl FencedAnswer {
    pub(crate) fn read<T: FromRedisValue>(self) -> Result<T, Error> {
        redis::from_redis_value(self.0).map_err(|error| Error::unread_answer(error.into()))
    }
}

/// Runs a script of the user's; answers `None` if this hold does not have the lock any more.
pub(crate) fn fenced_script<'a>(
    context: &ScriptContext,
    script: &'a FencedScript,
    hold_id: &HoldId,
    paths: &[String],
    args: &[&str],
) -> ScriptCall<'a, Option<FencedAnswer>> {
    let keys = &context.keys;
    let mut script = script.0.key(keys.at("locks", &hold_id.name));
    script
        .key(keys.at("shared", &hold_id.name))
        .key(keys.lease(hold_id.session.as_str()))
        .arg(hold_id.session.as_str())
        .arg(hold_id.nonce)
        .arg(hold_id.mode());
    for path in paths {
        script.key(keys.at("persistent", path));
    }
    for arg in args {
        script.arg(*arg);
    }
    ScriptCall::new("a fenced script", script, done)
}

fn done(value: &Value) -> Option<Option<FencedAnswer>> {
    Some(match kind(value)? {
        (b"lost", _) => None,
        // A Lua table ends at its first nil.
        (b"done", fields) => Some(FencedAnswer(fields.first().cloned().unwrap_or(Value::Nil))),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fields::tests::answer;
    use super::*;

    fn text_of(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn answers_to_an_attempt_are_read() {
        let grant = Grant { token: FencingToken::new(9), since_ms: 5 };
        let queued = |again| Acquired::Queued { before: 2, again };
        for (words, expected) in [
            ("held 9 5", Acquired::Held(grant)),
            ("busy", Acquired::Busy),
            ("queued 2 -1", queued(None)),
            ("queued 2 30", queued(Some(Duration::from_millis(30)))),
            ("lost", Acquired::Lost),
        ] {
            assert_eq!(acquired(&text_of(words)), Some(expected), "{words}");
        }
        for odd in ["", "failed", "held", "held 9", "held x 5", "queued", "queued x 1", "queued 2"] {
            assert_eq!(acquired(&text_of(odd)), None, "{odd}");
        }
        assert_eq!(acquired(&Value::Int(1)), None);
    }

    #[test]
    fn an_answer_to_several_is_one_for_each() {
        let unexpected =
            |answered: Result<_, Error>| answered.unwrap_err().to_string().contains("release was answered");
        assert_eq!(RELEASE.answers(Ok(answer("(1 failed 0)")), 3).unwrap(), [Some(true), None, Some(false)]);
        assert!(unexpected(RELEASE.answers(Ok(answer("(1)")), 2)));
        assert!(unexpected(RELEASE.answers(Ok(answer("1")), 1)));
        assert!(RELEASE.answer(Ok(answer("(1)"))).unwrap());
        assert!(unexpected(RELEASE.answer(Ok(answer("(failed)"))).map(|_| Vec::new())));
    }

    #[test]
    fn an_inspection_leaves_out_what_is_no_record_and_no_entry() {
        let record = r#"{"v":1,"token":9,"session":"c-1","nonce":7,"since":5,"member":"m"}"#;
        let holders = Value::Array(vec![text_of(record), text_of("x")]);
        let waiters = ["c-2 7 r 3 4000 n", "8", "x", "9"].map(text_of).to_vec();
        let inspection = inspected(&Value::Array(vec![holders, Value::Array(waiters)])).unwrap();
        assert_eq!(inspection.holders.iter().map(|holder| holder.token.get()).collect::<Vec<_>>(), [9]);
        assert_eq!(inspection.waiters, [(true, MemberId::known("n"), 8)]);
        for odd in ["1", "()", "(() 1)", "(1 ())", "(() () ())"] {
            assert_eq!(inspected(&answer(odd)), None, "{odd}");
        }
    }

    #[test]
    fn answers_to_what_is_fenced_are_read() {
        assert_eq!(fenced(&answer("(lost)")), Some(None));
        assert_eq!(fenced(&answer("(set 7)")), Some(Some(FencedWrite::Set(Revision::new(7)))));
        assert_eq!(fenced(&answer("(deleted 0)")), Some(Some(FencedWrite::Deleted(false))));
        assert!(["1", "()", "(set)", "(set x)", "(deleted)", "(x)"].iter().all(|odd| fenced(&answer(odd)).is_none()));
        assert_eq!(done(&answer("(lost)")), Some(None));
        assert_eq!(done(&answer("(done)")), Some(Some(FencedAnswer(Value::Nil))));
        assert_eq!(done(&answer("(done (7))")), Some(Some(FencedAnswer(answer("(7)")))));
        assert!(["1", "()", "(x)"].iter().all(|odd| done(&answer(odd)).is_none()));
        assert!(FencedAnswer(answer("(7)")).read::<u64>().is_err());
    }
}
