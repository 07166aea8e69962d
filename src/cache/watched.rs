//! What watchers know of the values and leaders of a group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use crate::proto::{Kept, Topic, ValueChange};

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

    pub(crate) fn has_expired(&self, path: &str) -> bool {
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
