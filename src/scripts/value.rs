//! The scripts of values that die with their session, and of what is watched.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};

use super::fields::{due, is_one, items, kind, number, revision, text};
use super::text::{ownership_script, script};
use super::{ScriptCall, ScriptContext, ms, range_after};
use crate::model::{Revision, SessionId};
use crate::proto::{Known, Reply, ValueFinding};
use crate::settings::OnConflict;
use crate::wire::{LockRecord, ValueRecord, decode_path, holder};

static SET: LazyLock<Script> = LazyLock::new(|| script(include_str!("value_set.lua")));

/// A value to be set for a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueSet<'a> {
    pub(crate) path: &'a str,
    pub(crate) session: &'a SessionId,
    pub(crate) nonce: u64,
    pub(crate) expiry: Option<Duration>,
    pub(crate) on_conflict: OnConflict,
    pub(crate) bytes: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueSetAnswer {
    Stored(Revision),
    Conflict { owner: String },
    Lost,
}

pub(crate) fn set(context: &ScriptContext, value: ValueSet<'_>) -> ScriptCall<'static, ValueSetAnswer> {
    let keys = &context.keys;
    let mut script = SET.key(keys.at("ephemerals", value.path));
    script
        .key(keys.lease(value.session.as_str()))
        .key(keys.owned(value.session.as_str()))
        .key(keys.ephemerals())
        .key(keys.leases())
        .key(keys.absent())
        .arg(keys.prefix())
        .arg(value.path)
        .arg(value.session.as_str())
        .arg(value.nonce)
        .arg(value.expiry.map_or(0, ms))
        .arg(ms(context.safety))
        .arg(match value.on_conflict {
            OnConflict::TakeOver => "take",
            OnConflict::Reject => "yield",
        })
        .arg(value.bytes);
    ScriptCall::new("set of an ephemeral value", script, stored)
}

fn stored(value: &Value) -> Option<ValueSetAnswer> {
    Some(match kind(value)? {
        (b"stored", [written]) => ValueSetAnswer::Stored(revision(written)?),
        (b"conflict", [lease]) => ValueSetAnswer::Conflict { owner: holder(text(lease)?) },
        (b"lost", []) => ValueSetAnswer::Lost,
        _ => return None,
    })
}

static DELETE: LazyLock<Script> = LazyLock::new(|| script(include_str!("value_delete.lua")));

/// Deletes a value of this session; answers whether there was one.
pub(crate) fn delete(context: &ScriptContext, path: &str, session: &SessionId) -> ScriptCall<'static, bool> {
    let keys = &context.keys;
    let mut script = DELETE.key(keys.at("ephemerals", path));
    script.key(keys.owned(session.as_str())).key(keys.ephemerals()).key(keys.leases()).arg(path).arg(session.as_str());
    ScriptCall::new("deletion of an ephemeral value", script, is_one)
}

static READ: LazyLock<Script> = LazyLock::new(|| ownership_script(include_str!("value_read.lua")));

/// How many bytes of values one read may bring.
const READ_BYTES: usize = 4 << 20;

/// What stands under some paths, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValuesFound {
    pub(crate) due: Option<Duration>,
    pub(crate) findings: Vec<ValueFinding>,
}

impl From<ValuesFound> for Reply {
    fn from(ValuesFound { due, findings }: ValuesFound) -> Self {
        Self::ValuesFound { due, findings }
    }
}

/// Reads these paths, each with its folder, and the session known of it.
pub(crate) fn read(
    context: &ScriptContext,
    paths: Vec<(String, Option<SessionId>)>,
) -> ScriptCall<'static, ValuesFound> {
    let keys = &context.keys;
    let mut script = READ.key(keys.leases());
    script.arg(keys.prefix()).arg(READ_BYTES);
    for (path, session) in &paths {
        script.arg(path).arg(session.as_ref().map_or("", SessionId::as_str));
    }
    ScriptCall::new("reading of values", script, move |value| found(value, &paths))
}

fn found(value: &Value, paths: &[(String, Option<SessionId>)]) -> Option<ValuesFound> {
    let (first, found) = items(value)?.split_first()?;
    if found.len() != paths.len() {
        return None;
    }
    let findings = found.iter().zip(paths).map(|(found, (path, _))| finding(path, found)).collect::<Option<_>>()?;
    Some(ValuesFound { due: due(first)?, findings })
}

fn finding(path: &str, found: &Value) -> Option<ValueFinding> {
    Some(match kind(found)? {
        (b"value", [value]) if path.starts_with("locks/") => {
            LockRecord::parse(text(value)?).map_or(ValueFinding::Foreign, ValueFinding::LockRecord)
        }
        (b"value", [value]) => ValueRecord::parse(text(value)?).map_or(ValueFinding::Foreign, ValueFinding::Value),
        (b"deleted", []) => ValueFinding::Deleted,
        (b"expired", []) => ValueFinding::Expired,
        (b"foreign", []) => ValueFinding::Foreign,
        (b"later", []) => ValueFinding::Later,
        _ => return None,
    })
}

static LIST: LazyLock<Script> = LazyLock::new(|| script(include_str!("value_list.lua")));

/// How many entries of an index one call reads.
const LIST_ENTRIES: u64 = 1000;

/// One part of an index; none where nothing has changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValueListing {
    pub(crate) due: Option<Duration>,
    pub(crate) part: Option<IndexPart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexPart {
    /// The count and the highest revision.
    pub(crate) known: Known,
    /// Where the next part begins, if there is one.
    pub(crate) after: Option<u64>,
    pub(crate) entries: Vec<(String, u64)>,
}

impl From<ValueListing> for Reply {
    fn from(ValueListing { due, part }: ValueListing) -> Self {
        match part {
            None => Self::ValuesUnchanged { due },
            Some(IndexPart { known, after, entries }) => Self::ValuesListed { due, known, after, entries },
        }
    }
}

/// Lists one part of an index: the paths that begin so, from this revision on.
pub(crate) fn list(
    context: &ScriptContext,
    index: &str,
    begins: &str,
    known: Option<Known>,
    after: Option<u64>,
) -> ScriptCall<'static, ValueListing> {
    let keys = &context.keys;
    let mut script = LIST.key(format!("{}{index}", keys.prefix()));
    script.key(keys.leases()).arg(begins);
    match known {
        Some(known) => script.arg(known.count).arg(known.revision.get()),
        None => script.arg("").arg(""),
    };
    script.arg(range_after(after)).arg(LIST_ENTRIES);
    // Nothing is the same as what is not known.
    let is_answer = move |listing: &ValueListing| listing.part.is_some() || known.is_some();
    ScriptCall::new("listing of values", script, move |value| listed(value).filter(is_answer))
}

fn listed(value: &Value) -> Option<ValueListing> {
    let (first, part) = match kind(value)? {
        (b"same", [first]) => (first, None),
        (b"part", [first, count, highest, after, entries @ ..]) => {
            let known = Known { revision: revision(highest)?, count: number(count)? };
            let entries = entries.chunks_exact(2).filter_map(entry).collect::<Option<_>>()?;
            (first, Some(IndexPart { known, after: number(after), entries }))
        }
        _ => return None,
    };
    Some(ValueListing { due: due(first)?, part })
}

/// A path and its revision. No path is encoded as what is left out.
fn entry(fields: &[Value]) -> Option<Option<(String, u64)>> {
    let path = text(&fields[0]).filter(|path| decode_path(path).is_some())?;
    let path = String::from_utf8(path.to_vec()).ok();
    Some(path.zip(number(&fields[1])))
}

#[cfg(test)]
mod tests {
    use super::super::fields::tests::answer;
    use super::*;

    #[test]
    fn answers_to_a_set_are_read() {
        assert_eq!(stored(&answer("(stored 7)")), Some(ValueSetAnswer::Stored(Revision::new(7))));
        let owner = "another program".to_owned();
        assert_eq!(stored(&answer("(conflict x)")), Some(ValueSetAnswer::Conflict { owner }));
        assert_eq!(stored(&answer("(lost)")), Some(ValueSetAnswer::Lost));
        for odd in ["1", "()", "(stored)", "(stored x)", "(conflict 1)", "(lost 1)", "(x)"] {
            assert_eq!(stored(&answer(odd)), None, "{odd}");
        }
    }

    #[test]
    fn a_read_says_of_each_path_what_was_found() {
        let paths = ["ephemerals/a", "locks/a"].map(|path| (path.to_owned(), None));
        let findings = vec![ValueFinding::Foreign, ValueFinding::Expired];
        assert_eq!(found(&answer("(-1 (value x) (expired))"), &paths), Some(ValuesFound { due: None, findings }));
        let record = br#"{"v":1,"token":9,"session":"c-1","nonce":7,"since":5,"member":"m"}"#;
        let value = Value::Array(vec![Value::BulkString(b"value".to_vec()), Value::BulkString(record.to_vec())]);
        assert!(matches!(finding("locks/a", &value), Some(ValueFinding::LockRecord(_))));
        assert_eq!(finding("ephemerals/a", &value), Some(ValueFinding::Foreign));
        for odd in ["()", "(-1 (later))", "(-1 (later) (x))", "(x (later) (later))", "(-1 (later) (later 1))"] {
            assert_eq!(found(&answer(odd), &paths), None, "{odd}");
        }
    }

    #[test]
    fn a_listing_leaves_out_what_is_no_path() {
        let due = Some(Duration::from_millis(9));
        assert_eq!(listed(&answer("(same 9)")), Some(ValueListing { due, part: None }));
        let entries = vec![("a".to_owned(), 7), ("b/c".to_owned(), 8)];
        let part = Some(IndexPart { known: Known { revision: Revision::new(8), count: 2 }, after: Some(8), entries });
        assert_eq!(listed(&answer("(part 9 2 8 8 a 7 % 1 b/c 8)")), Some(ValueListing { due, part }));
        let text = |text: &str| Value::BulkString(text.into());
        let last = Value::Array(vec![text("part"), Value::Int(-1), Value::Int(0), text("0"), text("")]);
        let none = Known { revision: Revision::new(0), count: 0 };
        let empty = IndexPart { known: none, after: None, entries: Vec::new() };
        assert_eq!(listed(&last), Some(ValueListing { due: None, part: Some(empty) }));
        for odd in ["1", "()", "(same)", "(same x)", "(part 9 2 8)", "(part 9 x 8 8)", "(part 9 2 8 8 a x)"] {
            assert_eq!(listed(&answer(odd)), None, "{odd}");
        }
    }
}
