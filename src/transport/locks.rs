//! The calls about locks that go together with their like.

use super::batcher::{BatchRunner, Batcher};
use super::commands::Commands;
use crate::error::Error;
use crate::proto::Acquired;
use crate::scripts::lock;
use crate::wire::QueueEntry;

/// The acquisitions and the releases over one connection.
pub(super) struct Batchers {
    pub(super) runner: BatchRunner,
    acquire: Batcher<Acquired>,
    release: Batcher<bool>,
}

impl Batchers {
    pub(super) fn new(runner: BatchRunner) -> Self {
        Self { runner, acquire: Batcher::new(&lock::ACQUIRE), release: Batcher::new(&lock::RELEASE) }
    }
}

impl Commands {
    /// Tries to hold the lock; where `queues`, stands in its queue otherwise.
    pub(crate) async fn acquire(&self, queue_entry: &QueueEntry, queues: bool) -> Result<Acquired, Error> {
        let request = lock::acquire(&self.context.scripts, queue_entry, queues);
        self.batchers.acquire.ask(self, &queue_entry.hold_id.session, request).await
    }

    /// Gives the lock back, or the place in its queue. Answers whether it was held.
    pub(crate) async fn release(&self, queue_entry: &QueueEntry) -> Result<bool, Error> {
        let request = lock::release(&self.context.scripts, queue_entry);
        self.batchers.release.ask(self, &queue_entry.hold_id.session, request).await
    }
}
