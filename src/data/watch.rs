//! What watchers know of the values and leaders of a group, and the streams that tell it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use super::DataValue;
use crate::proto::{Kept, Topic, ValueChange};
use crate::wire::{decode_path, encode_path};

/// How many of those that went last are remembered with how they went.
const REMEMBERED: usize = 4096;

/// What stands at the watched paths, encoded and with their folders, as it was at one moment.
#[derive(Clone, Default)]
pub(crate) struct Contents {
    pub(crate) kept: BTreeMap<String, Arc<Kept>>,
    /// Those that went last, the latest at the end, and whether they expired.
    gone: VecDeque<(String, bool)>,
    covered: BTreeSet<Topic>,
}

impl Contents {
    pub(crate) fn covers(&self, topic: &Topic) -> bool {
        self.covered.contains(topic)
    }

    fn has_expired(&self, path: &str) -> bool {
        self.gone.iter().rev().find(|(gone, _)| gone == path).is_some_and(|(_, expired)| *expired)
    }
}

/// The reading half, of which there are many.
pub(crate) type Shelf = watch::Receiver<Arc<Contents>>;

/// The writing half: the driver has the only one.
pub(crate) struct ShelfWriter(watch::Sender<Arc<Contents>>);

pub(crate) fn shelf() -> (ShelfWriter, Shelf) {
    let (sender, receiver) = watch::channel(Arc::default());
    (ShelfWriter(sender), receiver)
}

impl ShelfWriter {
    pub(crate) fn apply(&mut self, changes: Vec<ValueChange>) {
        self.0.send_modify(|contents| {
            let contents = Arc::make_mut(contents);
            for change in changes {
                match change {
                    ValueChange::Kept { path, kept } => drop(contents.kept.insert(path, kept)),
                    ValueChange::Gone { path, expired } => {
                        contents.kept.remove(&path);
                        contents.gone.push_back((path, expired));
                    }
                }
            }
            let surplus = contents.gone.len().saturating_sub(REMEMBERED);
            contents.gone.drain(..surplus);
        });
    }

    pub(crate) fn cover(&mut self, topic: Topic) {
        self.0.send_modify(|contents| {
            Arc::make_mut(contents).covered.insert(topic);
        });
    }
}

/// The changes of a shelf from one look at it to the next.
pub(crate) struct Looks {
    looking: Option<ReusableBoxFuture<'static, (Option<Arc<Contents>>, Shelf)>>,
}

async fn next_look(mut shelf: Shelf) -> (Option<Arc<Contents>>, Shelf) {
    let contents = shelf.changed().await.ok().map(|()| shelf.borrow_and_update().clone());
    (contents, shelf)
}

impl Looks {
    /// The first look is at what there is.
    pub(crate) fn new(mut shelf: Shelf) -> Self {
        shelf.mark_changed();
        Self { looking: Some(ReusableBoxFuture::new(next_look(shelf))) }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Contents>>> {
        let Some(looking) = &mut self.looking else { return Poll::Ready(None) };
        let (contents, shelf) = ready!(looking.poll(cx));
        match contents {
            Some(contents) => {
                looking.set(next_look(shelf));
                Poll::Ready(Some(contents))
            }
            None => {
                self.looking = None;
                Poll::Ready(None)
            }
        }
    }
}

/// What happened to the values that are watched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// All the values there are. The first event, and the only one of its kind.
    Snapshot(Vec<DataValue>),
    /// A value was set: one that was not there, or another than before.
    Set(DataValue),
    /// A value was deleted, or its connector was closed. As it was last.
    Deleted(DataValue),
    /// A value ran out, by an expiry of its own or with its owner's lease. As it was last.
    Expired(DataValue),
}

/// The values below a prefix, from a snapshot on. Made by [`Ephemeral::watch`](super::Ephemeral::watch).
///
/// Folding the events gives exactly the values. It tells what there is, not every step on the way: a value that is set
/// twice before the stream is read is told once, and one that comes and goes in between is not told at all. So it needs
/// no buffer, and a slow reader misses nothing that still counts. It ends when the connector closes.
///
/// # Cancel safety
/// Dropping a future of [`next`](Self::next) loses no event.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Watch {
    looks: Looks,
    begins: String,
    known: Option<BTreeMap<String, DataValue>>,
    pending: VecDeque<WatchEvent>,
}

impl Watch {
    pub(crate) fn new(shelf: Shelf, prefix: &str) -> Self {
        let begins = format!("ephemerals/{}", encode_path(prefix));
        Self { looks: Looks::new(shelf), begins, known: None, pending: VecDeque::new() }
    }

    /// The next event, or `None` once the connector is closed. The same as `StreamExt::next`, with nothing to import.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        StreamExt::next(self).await
    }

    fn look(&mut self, contents: &Contents) {
        if !contents.covers(&Topic::Ephemerals) {
            return;
        }
        let watched = contents.kept.range(self.begins.clone()..).take_while(|(path, _)| path.starts_with(&self.begins));
        let present: BTreeMap<String, &Arc<Kept>> = watched.map(|(path, kept)| (path.clone(), kept)).collect();
        let Some(known) = &mut self.known else {
            let known: BTreeMap<_, _> =
                present.into_iter().filter_map(|(path, kept)| Some((path.clone(), value(&path, kept)?))).collect();
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
        for (path, kept) in present {
            let Kept::Value(stored) = &**kept else { continue };
            if known.get(&path).is_some_and(|known| known.revision() == stored.revision) {
                continue;
            }
            let Some(value) = value(&path, kept) else { continue };
            known.insert(path, value.clone());
            self.pending.push_back(WatchEvent::Set(value));
        }
    }
}

fn value(path: &str, kept: &Kept) -> Option<DataValue> {
    let Kept::Value(stored) = kept else { return None };
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
            match ready!(self.looks.poll(cx)) {
                Some(contents) => self.look(&contents),
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
