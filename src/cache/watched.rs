//! The watched values and leaders of a group, for readers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use crate::proto::{Topic, ValueChange, WatchedValue};

/// How many of those that went last are remembered with how they went.
const REMEMBERED: usize = 4096;

/// What stands at the watched paths, encoded and with their folders, as it was at one moment.
#[derive(Clone, Default)]
pub(crate) struct Contents {
    pub(crate) values: BTreeMap<String, Arc<WatchedValue>>,
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
pub(crate) type WatchedReader = watch::Receiver<Arc<Contents>>;

/// The writing half: the driver has the only one.
pub(crate) struct WatchedWriter(watch::Sender<Arc<Contents>>);

pub(crate) fn watched() -> (WatchedWriter, WatchedReader) {
    let (sender, receiver) = watch::channel(Arc::default());
    (WatchedWriter(sender), receiver)
}

impl WatchedWriter {
    pub(crate) fn apply(&mut self, changes: Vec<ValueChange>) {
        self.0.send_modify(|contents| {
            let contents = Arc::make_mut(contents);
            for change in changes {
                match change {
                    ValueChange::Present { path, value } => drop(contents.values.insert(path, value)),
                    ValueChange::Gone { path, expired } => {
                        contents.values.remove(&path);
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

/// The changes of the watched values from one read to the next.
pub(crate) struct ContentsChanges {
    waiting: Option<ReusableBoxFuture<'static, (Option<Arc<Contents>>, WatchedReader)>>,
}

async fn next_contents(mut watched: WatchedReader) -> (Option<Arc<Contents>>, WatchedReader) {
    let contents = watched.changed().await.ok().map(|()| watched.borrow_and_update().clone());
    (contents, watched)
}

impl ContentsChanges {
    /// The first change is the present state.
    pub(crate) fn new(mut watched: WatchedReader) -> Self {
        watched.mark_changed();
        Self { waiting: Some(ReusableBoxFuture::new(next_contents(watched))) }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Contents>>> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
        let (contents, watched) = ready!(waiting.poll(cx));
        match contents {
            Some(contents) => {
                waiting.set(next_contents(watched));
                Poll::Ready(Some(contents))
            }
            None => {
                self.waiting = None;
                Poll::Ready(None)
            }
        }
    }
}
