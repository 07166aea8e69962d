//! The calls about data, each one round trip.

use std::time::Duration;

use redis::Value;

use super::commands::{Commands, ms};
use super::replies::{number, text};
use crate::error::Error;
use crate::model::{Revision, SessionId};
use crate::proto::{Known, Reply, ValueFinding};
use crate::scripts;
use crate::settings::OnConflict;
use crate::wire::{LockRecord, ValueRecord, decode_path, holder};

/// How many bytes of values one read may bring.
const LOOK_BYTES: usize = 4 << 20;
/// How many entries of an index one call reads.
const CATALOG_ENTRIES: u64 = 1000;

/// A value to be set for a session.
#[derive(Clone, Debug)]
pub(crate) struct EphemeralSet {
    pub(crate) path: String,
    pub(crate) session: SessionId,
    pub(crate) nonce: u64,
    pub(crate) expiry: Option<Duration>,
    pub(crate) on_conflict: OnConflict,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EphemeralSetAnswer {
    ValueRecord(Revision),
    Conflict { owner: String },
    Lost,
}

impl Commands {
    /// Sets a value that dies with its session.
    pub(crate) async fn store(mut self, write: &EphemeralSet) -> Result<EphemeralSetAnswer, Error> {
        let context = self.context.clone();
        let (keys, config) = (&context.keys, &context.config);
        let mut script = scripts::VALUE_SET.key(keys.at("ephemerals", &write.path));
        script
            .key(keys.lease(write.session.as_str()))
            .key(keys.owned(write.session.as_str()))
            .key(keys.ephemerals())
            .key(keys.leases())
            .arg(keys.prefix())
            .arg(&write.path)
            .arg(write.session.as_str())
            .arg(write.nonce)
            .arg(write.expiry.map_or(0, ms))
            .arg(ms(config.safety()))
            .arg(match write.on_conflict {
                OnConflict::TakeOver => "take",
                OnConflict::Reject => "yield",
            })
            .arg(&write.bytes[..]);
        self.ask("set of an ephemeral value", &script, stored).await
    }

    /// Deletes a value of this session; whether there was one.
    pub(crate) async fn erase(mut self, path: &str, session: &SessionId) -> Result<bool, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::VALUE_DELETE.key(keys.at("ephemerals", path));
        script
            .key(keys.owned(session.as_str()))
            .key(keys.ephemerals())
            .key(keys.leases())
            .arg(path)
            .arg(session.as_str());
        self.ask("deletion of an ephemeral value", &script, |value| Some(number(value)? == 1)).await
    }

    /// What stands under these paths, each with its folder.
    pub(crate) async fn read_values(mut self, paths: &[(String, Option<SessionId>)]) -> Result<Reply, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::VALUE_READ.key(keys.leases());
        script.arg(keys.prefix()).arg(LOOK_BYTES);
        for (path, session) in paths {
            script.arg(path).arg(session.as_ref().map_or("", SessionId::as_str));
        }
        self.ask("reading of values", &script, |value| values_found(value, paths)).await
    }

    /// One part of an index: of those that begin so, from this revision on.
    pub(crate) async fn list_values(
        mut self,
        index: &str,
        begins: &str,
        known: Option<Known>,
        after: Option<u64>,
    ) -> Result<Reply, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::VALUE_LIST.key(format!("{}{index}", keys.prefix()));
        script.key(keys.leases()).arg(begins);
        match known {
            Some(known) => script.arg(known.count).arg(known.revision.get()),
            None => script.arg("").arg(""),
        };
        script.arg(after.map_or_else(|| "-inf".to_owned(), |after| format!("({after}"))).arg(CATALOG_ENTRIES);
        self.ask("listing of values", &script, catalogued).await
    }

    /// Sets values that stay, all or none.
    pub(crate) async fn persist(mut self, values: &[(String, Vec<u8>)]) -> Result<Vec<Revision>, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::PERSISTENT_SET.key(keys.persistent());
        script.arg(keys.prefix());
        for (path, bytes) in values {
            script.arg(path).arg(&bytes[..]);
        }
        let revisions = |value: &Value| match value {
            Value::Array(items) => items.iter().map(|item| number(item).map(Revision::new)).collect(),
            _ => None,
        };
        self.ask("set of persistent values", &script, revisions).await
    }

    /// Sets a value that stays if its revision is the one expected.
    pub(crate) async fn exchange(
        mut self,
        path: &str,
        expected: Option<Revision>,
        bytes: &[u8],
    ) -> Result<Option<Revision>, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::PERSISTENT_EXCHANGE.key(keys.at("persistent", path));
        script
            .key(keys.persistent())
            .key(keys.revision())
            .arg(path)
            .arg(expected.map(|expected| expected.to_string()).unwrap_or_default())
            .arg(bytes);
        let revision = |value: &Value| number(value).map(|revision| (revision != 0).then(|| Revision::new(revision)));
        self.ask("exchange of a persistent value", &script, revision).await
    }

    /// A value that stays, and its revision: 0 where another program has set it.
    pub(crate) async fn read_persistent(mut self, path: &str) -> Result<Option<(Vec<u8>, Revision)>, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::PERSISTENT_GET.key(keys.at("persistent", path));
        script.key(keys.persistent()).arg(path);
        let recalled = |value: &Value| match value {
            Value::Array(items) => match &items[..] {
                [] => Some(None),
                [bytes, revision] => Some(Some((text(bytes)?.to_vec(), Revision::new(number(revision)?)))),
                _ => None,
            },
            _ => None,
        };
        self.ask("reading of a persistent value", &script, recalled).await
    }

    /// Deletes a persistent value. Answers whether there was one.
    pub(crate) async fn delete_persistent(mut self, path: &str) -> Result<bool, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::PERSISTENT_DELETE.key(keys.at("persistent", path));
        script.key(keys.persistent()).arg(path);
        self.ask("deletion of a persistent value", &script, |value| Some(number(value)? == 1)).await
    }
}

fn stored(value: &Value) -> Option<EphemeralSetAnswer> {
    let Value::Array(items) = value else { return None };
    Some(match (text(items.first()?)?, &items[1..]) {
        (b"stored", [revision]) => EphemeralSetAnswer::ValueRecord(Revision::new(number(revision)?)),
        (b"conflict", [owner]) => EphemeralSetAnswer::Conflict { owner: holder(text(owner)?) },
        (b"lost", []) => EphemeralSetAnswer::Lost,
        _ => return None,
    })
}

fn due(value: &Value) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

fn values_found(value: &Value, paths: &[(String, Option<SessionId>)]) -> Option<Reply> {
    let Value::Array(items) = value else { return None };
    let (first, found) = items.split_first()?;
    let findings: Vec<_> =
        found.iter().zip(paths).map(|(found, (path, _))| finding(path, found)).collect::<Option<_>>()?;
    (findings.len() == paths.len()).then(|| Reply::ValuesFound { due: due(first), findings })
}

fn finding(path: &str, found: &Value) -> Option<ValueFinding> {
    let Value::Array(fields) = found else { return None };
    Some(match (text(fields.first()?)?, &fields[1..]) {
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

fn catalogued(value: &Value) -> Option<Reply> {
    let Value::Array(items) = value else { return None };
    Some(match (text(items.first()?)?, &items[1..]) {
        (b"same", [first]) => Reply::ValuesUnchanged { due: due(first) },
        (b"part", [first, count, highest, after, entries @ ..]) => Reply::ValuesListed {
            due: due(first),
            known: Known { revision: Revision::new(number(highest)?), count: number(count)? },
            after: number(after),
            // No path is encoded so.
            entries: entries
                .chunks_exact(2)
                .filter(|entry| text(&entry[0]).is_some_and(|path| decode_path(path).is_some()))
                .map(|entry| Some((String::from_utf8(text(&entry[0])?.to_vec()).ok()?, number(&entry[1])?)))
                .collect::<Option<_>>()?,
        },
        _ => return None,
    })
}
