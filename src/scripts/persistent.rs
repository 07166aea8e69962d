//! The scripts of values that stay.

use std::sync::LazyLock;

use redis::{Script, Value};

use super::fields::{is_one, items, number, revision, text};
use super::text::script;
use super::{ScriptCall, ScriptContext};
use crate::model::Revision;

static SET: LazyLock<Script> = LazyLock::new(|| script(include_str!("persistent_set.lua")));

/// Answers the revision of each, in order.
pub(crate) fn set(context: &ScriptContext, values: &[(String, Vec<u8>)]) -> ScriptCall<'static, Vec<Revision>> {
    let keys = &context.keys;
    let mut script = SET.key(keys.persistent());
    script.arg(keys.prefix());
    for (path, bytes) in values {
        script.arg(path).arg(&bytes[..]);
    }
    ScriptCall::new("set of persistent values", script, revisions)
}

fn revisions(value: &Value) -> Option<Vec<Revision>> {
    items(value)?.iter().map(revision).collect()
}

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| script(include_str!("persistent_exchange.lua")));

/// Sets a value if its revision is the one expected; answers `None` if it is not.
pub(crate) fn exchange(
    context: &ScriptContext,
    path: &str,
    expected: Option<Revision>,
    bytes: &[u8],
) -> ScriptCall<'static, Option<Revision>> {
    let keys = &context.keys;
    let mut script = EXCHANGE.key(keys.at("persistent", path));
    script
        .key(keys.persistent())
        .key(keys.revision())
        .arg(path)
        .arg(expected.map(|expected| expected.to_string()).unwrap_or_default())
        .arg(bytes);
    ScriptCall::new("exchange of a persistent value", script, exchanged)
}

fn exchanged(value: &Value) -> Option<Option<Revision>> {
    number(value).map(|revision| (revision != 0).then(|| Revision::new(revision)))
}

static GET: LazyLock<Script> = LazyLock::new(|| script(include_str!("persistent_get.lua")));

/// Answers the value and its revision: 0 where another program has set it.
pub(crate) fn get(context: &ScriptContext, path: &str) -> ScriptCall<'static, Option<(Vec<u8>, Revision)>> {
    let keys = &context.keys;
    let mut script = GET.key(keys.at("persistent", path));
    script.key(keys.persistent()).arg(path);
    ScriptCall::new("reading of a persistent value", script, got)
}

fn got(value: &Value) -> Option<Option<(Vec<u8>, Revision)>> {
    match items(value)? {
        [] => Some(None),
        [bytes, written] => Some(Some((text(bytes)?.to_vec(), revision(written)?))),
        _ => None,
    }
}

static DELETE: LazyLock<Script> = LazyLock::new(|| script(include_str!("persistent_delete.lua")));

/// Answers whether there was one.
pub(crate) fn delete(context: &ScriptContext, path: &str) -> ScriptCall<'static, bool> {
    let keys = &context.keys;
    let mut script = DELETE.key(keys.at("persistent", path));
    script.key(keys.persistent()).arg(path);
    ScriptCall::new("deletion of a persistent value", script, is_one)
}

#[cfg(test)]
mod tests {
    use super::super::fields::tests::answer;
    use super::*;

    #[test]
    fn answers_about_persistent_values_are_read() {
        assert_eq!(revisions(&answer("(7 8)")), Some(vec![Revision::new(7), Revision::new(8)]));
        assert_eq!(exchanged(&answer("0")), Some(None));
        assert_eq!(exchanged(&answer("7")), Some(Some(Revision::new(7))));
        assert_eq!(got(&answer("()")), Some(None));
        assert_eq!(got(&answer("(x 7)")), Some(Some((b"x".to_vec(), Revision::new(7)))));
    }

    #[test]
    fn odd_answers_about_persistent_values_are_none() {
        assert!(["7", "(x)", "(-1)"].iter().all(|odd| revisions(&answer(odd)).is_none()));
        assert!(["x", "()", "-1"].iter().all(|odd| exchanged(&answer(odd)).is_none()));
        assert!(["7", "(x)", "(x y)", "(x 7 8)"].iter().all(|odd| got(&answer(odd)).is_none()));
    }
}
