//! The stream of changes to the values of a group.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};

use super::DataValue;
use crate::cache::{Contents, ContentsChanges, WatchedReader};
use crate::proto::{Topic, WatchedValue};
use crate::wire::{decode_path, encode_path};

/// A change of the watched values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// All the values that there are. It is the first event, and the only one of its kind.
    Snapshot(Vec<DataValue>),
    /// A value was set: a new one, or another one than before.
    Set(DataValue),
    /// A value was deleted, or its connector was closed. This is the value as it was last.
    Deleted(DataValue),
    /// A value ran out, by an expiry of its own or with its owner's lease. This is the value as it was last.
    Expired(DataValue),
}

/// The values below a prefix, from a snapshot on. Made by [`Ephemeral::watch`](super::Ephemeral::watch).
///
/// Folding the events gives exactly the values. The stream tells the difference between two states, and not every step
/// between them: a value that is set twice before the stream is read comes once, and a value that comes and goes in
/// between does not come at all. So the stream needs no buffer, and a slow reader misses nothing that still counts. It
/// ends when the connector closes.
///
/// # Cancel safety
/// Dropping a future of [`next`](Self::next) loses no event.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Watch {
    changes: ContentsChanges,
    begins: String,
    known: Option<BTreeMap<String, DataValue>>,
    pending: VecDeque<WatchEvent>,
}

impl Watch {
    pub(crate) fn new(watched: WatchedReader, prefix: &str) -> Self {
        let begins = format!("ephemerals/{}", encode_path(prefix));
        Self { changes: ContentsChanges::new(watched), begins, known: None, pending: VecDeque::new() }
    }

    /// The next event, or `None` once the connector is closed. The same as `StreamExt::next`, with nothing to import.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        StreamExt::next(self).await
    }

    fn compare(&mut self, contents: &Contents) {
        if !contents.covers(&Topic::Ephemerals) {
            return;
        }
        let watched =
            contents.values.range(self.begins.clone()..).take_while(|(path, _)| path.starts_with(&self.begins));
        let present: BTreeMap<String, &Arc<WatchedValue>> =
            watched.map(|(path, value)| (path.clone(), value)).collect();
        let Some(known) = &mut self.known else {
            let known: BTreeMap<_, _> = present
                .into_iter()
                .filter_map(|(path, watched)| Some((path.clone(), data_value(&path, watched)?)))
                .collect();
            self.pending.push_back(WatchEvent::Snapshot(known.values().cloned().collect()));
            self.known = Some(known);
            return;
        };
        let gone: Vec<_> = known.keys().filter(|path| !present.contains_key(*path)).cloned().collect();
        for path in gone {
            let Some(value) = known.remove(&path) else { continue };
            let expired = contents.has_expired(&path);
            self.pending.push_back(if expired { WatchEvent::Expired(value) } else { WatchEvent::Deleted(value) });
        }
        for (path, watched) in present {
            let WatchedValue::Value(stored) = &**watched else { continue };
            if known.get(&path).is_some_and(|known| known.revision() == stored.revision) {
                continue;
            }
            let Some(value) = data_value(&path, watched) else { continue };
            known.insert(path, value.clone());
            self.pending.push_back(WatchEvent::Set(value));
        }
    }
}

fn data_value(path: &str, watched: &WatchedValue) -> Option<DataValue> {
    let WatchedValue::Value(stored) = watched else { return None };
    let path = decode_path(path.strip_prefix("ephemerals/")?.as_bytes())?;
    Some(DataValue::new(path, stored.bytes.clone(), stored.revision))
}

impl Stream for Watch {
    type Item = WatchEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Poll::Ready(Some(event));
            }
            match ready!(self.changes.poll(cx)) {
                Some(contents) => self.compare(&contents),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("begins", &self.begins)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
