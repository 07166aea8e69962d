//! The fields that the answers of the scripts are made of.

use std::time::Duration;

use redis::Value;

use crate::model::{MemberId, Revision};
use crate::wire::decode;

pub(super) fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// The word that says which answer it is, and the fields of that answer.
pub(super) fn kind(value: &Value) -> Option<(&[u8], &[Value])> {
    let (kind, fields) = items(value)?.split_first()?;
    Some((text(kind)?, fields))
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Whether it is the number that says yes.
pub(super) fn is_one(value: &Value) -> Option<bool> {
    number(value).map(|number| number == 1)
}

pub(super) fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(text) => Some(text),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn id(value: &Value) -> Option<MemberId> {
    decode(text(value)?).map(|name| MemberId::known(&name))
}

pub(super) fn revision(value: &Value) -> Option<Revision> {
    number(value).map(Revision::new)
}

/// Milliseconds, or -1 for never.
pub(super) fn due(value: &Value) -> Option<Option<Duration>> {
    match value {
        Value::Int(-1) => Some(None),
        other => number(other).map(|ms| Some(Duration::from_millis(ms))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An answer in words: whole numbers are such, `(..)` is a list, everything else is text.
    pub(crate) fn answer(words: &str) -> Value {
        let mut lists = vec![Vec::new()];
        for word in words.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
            let item = match word {
                "(" => {
                    lists.push(Vec::new());
                    continue;
                }
                ")" => Value::Array(lists.pop().unwrap()),
                word => word.parse().map_or_else(|_| Value::BulkString(word.into()), Value::Int),
            };
            lists.last_mut().unwrap().push(item);
        }
        let [item] = lists.pop().unwrap().try_into().unwrap();
        item
    }

    #[test]
    fn fields_of_another_type_are_none() {
        assert_eq!(answer("(a 7 (-1))"), {
            let inner = Value::Array(vec![Value::Int(-1)]);
            Value::Array(vec![Value::BulkString(b"a".to_vec()), Value::Int(7), inner])
        });
        assert_eq!(number(&Value::BulkString(b"7".to_vec())), Some(7));
        for odd in ["-1", "x", "()"] {
            assert_eq!(number(&answer(odd)), None, "{odd}");
        }
        assert_eq!((due(&answer("-1")), due(&answer("3"))), (Some(None), Some(Some(Duration::from_millis(3)))));
        assert_eq!((due(&answer("-2")), due(&answer("x"))), (None, None));
        assert_eq!((text(&answer("7")), text(&Value::SimpleString("OK".into()))), (None, Some(&b"OK"[..])));
        assert_eq!((id(&answer("a%20b")), id(&answer("a/b"))), (Some(MemberId::known("a b")), None));
        assert_eq!(kind(&answer("(lost)")), Some((&b"lost"[..], &[][..])));
        assert!(["()", "lost", "(1)"].iter().all(|odd| kind(&answer(odd)).is_none()));
    }
}
