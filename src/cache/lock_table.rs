//! Which locks this connector holds or waits for: where letters find whom they are for.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::proto::Moment;
use crate::wire::{Grant, HoldId, InboxMessage, QueueEntry};

/// The acquisitions of one connector, by their nonces.
#[derive(Default)]
pub(crate) struct LockTable {
    table: Mutex<Table>,
    is_silent: AtomicBool,
}

#[derive(Default)]
struct Table {
    nonces: u64,
    /// Known until it is held or forgotten, with the way to who waits as long as nothing has come by it.
    waiting: HashMap<u64, Option<oneshot::Sender<Grant>>>,
    /// Of those that wait: broken since they were granted, before whoever waited has looked.
    broken: HashSet<u64>,
    held: HashMap<u64, Held>,
    /// Held by nobody but their session.
    detached: HashMap<u64, DetachedHold>,
}

/// A hold that somebody has to keep: what it is, only its holder knows.
type DetachedHold = Arc<dyn Any + Send + Sync>;

struct Held {
    queue_entry: QueueEntry,
    since: Moment,
    lost: CancellationToken,
}

impl LockTable {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether letters come.
    pub(crate) fn inbox_works(&self, come: bool) {
        self.is_silent.store(!come, Ordering::Relaxed);
    }

    /// Whether nobody is told of a grant: who waits has to ask.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    /// A nonce for one more acquisition, and where its grant will come.
    pub(crate) fn expect(&self) -> (u64, oneshot::Receiver<Grant>) {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.nonces += 1;
        let nonce = table.nonces;
        table.waiting.insert(nonce, Some(sender));
        (nonce, receiver)
    }

    /// Where the next grant of an acquisition will come, after one that was not believed.
    pub(crate) fn expect_again(&self, nonce: u64) -> oneshot::Receiver<Grant> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.waiting.insert(nonce, Some(sender));
        // Whatever was broken, the server is asked again.
        table.broken.remove(&nonce);
        receiver
    }

    /// It is not waited for any more.
    pub(crate) fn forget(&self, nonce: u64) {
        let mut table = self.table();
        table.waiting.remove(&nonce);
        table.broken.remove(&nonce);
    }

    /// What was waited for is held; `lost` is cancelled when it no longer is.
    pub(crate) fn hold(&self, queue_entry: QueueEntry, lost: CancellationToken) {
        let held = Held { since: clock::now(), lost, queue_entry };
        let mut table = self.table();
        let nonce = held.queue_entry.hold_id.nonce;
        table.waiting.remove(&nonce);
        if table.broken.remove(&nonce) {
            held.lost.cancel();
        } else {
            table.held.insert(nonce, held);
        }
    }

    pub(crate) fn let_go(&self, nonce: u64) {
        self.table().held.remove(&nonce);
    }

    /// Keeps a hold that nobody else keeps, for as long as it is held.
    pub(crate) fn detach(&self, nonce: u64, hold: DetachedHold) {
        let mut table = self.table();
        if table.held.contains_key(&nonce) {
            table.detached.insert(nonce, hold);
        }
    }

    /// Takes a letter to whom it is for; answers whether there is somebody. A grant that nobody here knows is about what
    /// is being given back already, or comes of a queue that a server has brought back from before.
    pub(crate) fn deliver(&self, message: InboxMessage) -> bool {
        match message {
            InboxMessage::Grant { nonce, grant } => {
                let mut table = self.table();
                let is_held = table.held.contains_key(&nonce);
                let Some(waiting) = table.waiting.get_mut(&nonce) else { return is_held };
                // Who stopped waiting in this moment gives it back.
                waiting.take().map(|sender| sender.send(grant).ok());
            }
            InboxMessage::Broken { nonce } => {
                let mut table = self.table();
                let detached = table.detached.remove(&nonce);
                if let Some(held) = table.held.remove(&nonce) {
                    held.lost.cancel();
                } else if table.waiting.contains_key(&nonce) {
                    table.broken.insert(nonce);
                }
                drop(table);
                // Outside the lock: the last of a hold looks into the table.
                drop(detached);
            }
        }
        true
    }

    /// The session cannot be relied on any more: nothing is held. What is to be given back, in case it lives on.
    pub(crate) fn lose_all(&self) -> Vec<QueueEntry> {
        let mut table = self.table();
        let held: Vec<_> = table.held.drain().map(|(_, held)| held).collect();
        let detached = std::mem::take(&mut table.detached);
        drop(table);
        drop(detached);
        held.into_iter()
            .map(|held| {
                held.lost.cancel();
                held.queue_entry
            })
            .collect()
    }

    /// Compares what the server says is held with what is known here. What it does not list is lost; what nobody here
    /// knows, since its acquirer was gone before the answer, is to be given back.
    pub(crate) fn audit(&self, asked: Moment, listed: Vec<HoldId>) -> Vec<QueueEntry> {
        let mut table = self.table();
        let nonces: HashSet<u64> = listed.iter().map(|hold_id| hold_id.nonce).collect();
        table.held.retain(|nonce, held| {
            let missing = held.since < asked && !nonces.contains(nonce);
            if missing {
                held.lost.cancel();
            }
            !missing
        });
        let Table { held, detached, .. } = &mut *table;
        let ended: Vec<_> = detached.extract_if(|nonce, _| !held.contains_key(nonce)).collect();
        let unknown =
            |hold_id: &HoldId| !table.held.contains_key(&hold_id.nonce) && !table.waiting.contains_key(&hold_id.nonce);
        let unknown = listed.into_iter().filter(unknown).map(QueueEntry::from).collect();
        drop(table);
        drop(ended);
        unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;

    fn queue_entry(nonce: u64) -> QueueEntry {
        QueueEntry::from(HoldId { session: SessionId::new("s-1"), nonce, name: "l".into(), shared: false })
    }

    #[test]
    fn what_is_broken_before_its_acquirer_has_looked_is_lost_from_the_first() {
        let holds = LockTable::default();
        let (first, _granted) = holds.expect();
        let (second, _granted) = holds.expect();
        holds.deliver(InboxMessage::Broken { nonce: first });
        let (lost, kept) = (CancellationToken::new(), CancellationToken::new());
        holds.hold(queue_entry(first), lost.clone());
        holds.hold(queue_entry(second), kept.clone());
        assert!(lost.is_cancelled() && !kept.is_cancelled());
        holds.deliver(InboxMessage::Broken { nonce: second });
        assert!(kept.is_cancelled());

        let grant = Grant { token: crate::model::FencingToken::new(1), since_ms: 1 };
        let (known, _granted) = holds.expect();
        assert!(holds.deliver(InboxMessage::Grant { nonce: known, grant }), "it is waited for");
        assert!(holds.deliver(InboxMessage::Grant { nonce: known, grant }), "it has been told already");
        holds.hold(queue_entry(known), CancellationToken::new());
        assert!(holds.deliver(InboxMessage::Grant { nonce: known, grant }), "it is held");
        holds.let_go(known);
        assert!(!holds.deliver(InboxMessage::Grant { nonce: known, grant }), "nobody knows it");

        // Asked again after that, the server's new answer counts.
        let (third, _granted) = holds.expect();
        holds.deliver(InboxMessage::Broken { nonce: third });
        let _granted = holds.expect_again(third);
        let lost = CancellationToken::new();
        holds.hold(queue_entry(third), lost.clone());
        assert!(!lost.is_cancelled());
        holds.let_go(third);
        let table = holds.table();
        assert!(table.waiting.is_empty() && table.broken.is_empty() && table.held.is_empty());
    }
}
