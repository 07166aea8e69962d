//! The lock table: the acquisitions and holds of this connector, which inbox messages are for.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::model::FencingToken;
use crate::mutant;
use crate::proto::Moment;
use crate::wire::{Grant, HoldId, InboxMessage, ListedHold, QueueEntry};

/// The acquisitions of one connector, by their nonces.
#[derive(Default)]
pub(crate) struct LockTable {
    table: Mutex<Table>,
    is_silent: AtomicBool,
}

#[derive(Default)]
struct Table {
    nonces: u64,
    is_suspended: bool,
    /// Known until it is held or forgotten, with the way to its waiter as long as no grant has come.
    waiting: HashMap<u64, Option<oneshot::Sender<Grant>>>,
    /// Of those that wait: broken after the grant, before the waiter has taken it.
    broken: HashSet<u64>,
    held: HashMap<u64, Held>,
    /// Held without a guard, by their session alone.
    detached: HashMap<u64, DetachedHold>,
}

/// A hold that has no guard. Only `lock/` knows its type.
type DetachedHold = Arc<dyn Any + Send + Sync>;

struct Held {
    queue_entry: QueueEntry,
    token: FencingToken,
    since: Moment,
    signals: Arc<HoldSignals>,
}

/// What a hold tells those who wait for it.
#[derive(Debug)]
pub(crate) struct HoldSignals {
    lost: CancellationToken,
    /// Cancelled when the hold is suspended or lost; another one when it is held again.
    unsafe_to_work: Mutex<CancellationToken>,
}

impl HoldSignals {
    /// Lost at the latest when this ends.
    pub(crate) fn new(ended: &CancellationToken) -> Arc<Self> {
        let lost = ended.child_token();
        let unsafe_to_work = Mutex::new(lost.child_token());
        Arc::new(Self { lost, unsafe_to_work })
    }

    /// Cancelled when the hold is lost for good.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Cancelled when the hold is suspended the next time, or lost.
    pub(crate) fn suspended_or_lost(&self) -> CancellationToken {
        self.unsafe_to_work.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn suspend(&self) {
        self.suspended_or_lost().cancel();
    }

    fn resume(&self) {
        *self.unsafe_to_work.lock().unwrap_or_else(PoisonError::into_inner) = self.lost.child_token();
    }
}

impl LockTable {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether inbox messages come.
    pub(crate) fn inbox_works(&self, come: bool) {
        self.is_silent.store(!come, Ordering::Relaxed);
    }

    /// Whether no message announces a grant: a waiter has to ask.
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
    pub(crate) fn hold(&self, queue_entry: QueueEntry, token: FencingToken, signals: Arc<HoldSignals>) {
        let held = Held { since: clock::now(), token, signals, queue_entry };
        let mut table = self.table();
        let nonce = held.queue_entry.hold_id.nonce;
        table.waiting.remove(&nonce);
        if table.broken.remove(&nonce) {
            held.signals.lost.cancel();
        } else {
            if table.is_suspended {
                held.signals.suspend();
            }
            table.held.insert(nonce, held);
        }
    }

    pub(crate) fn let_go(&self, nonce: u64) {
        self.table().held.remove(&nonce);
    }

    /// Keeps a hold without a guard, for as long as it is held.
    pub(crate) fn detach(&self, nonce: u64, hold: DetachedHold) {
        let mut table = self.table();
        if table.held.contains_key(&nonce) {
            table.detached.insert(nonce, hold);
        }
    }

    /// Delivers an inbox message; answers whether it was expected. A grant that the table does not know is about what
    /// is being given back already, or comes of a queue that a server has brought back from before.
    pub(crate) fn deliver(&self, message: InboxMessage) -> bool {
        match message {
            InboxMessage::Grant { nonce, grant } => {
                let mut table = self.table();
                let is_held = table.held.contains_key(&nonce);
                let Some(waiting) = table.waiting.get_mut(&nonce) else { return is_held };
                // A waiter that stopped waiting at this moment gives it back.
                waiting.take().map(|sender| sender.send(grant).ok());
            }
            InboxMessage::Broken { nonce } => {
                let mut table = self.table();
                let detached = table.detached.remove(&nonce);
                if let Some(held) = table.held.remove(&nonce) {
                    held.signals.lost.cancel();
                } else if table.waiting.contains_key(&nonce) {
                    table.broken.insert(nonce);
                }
                drop(table);
                // Outside the mutex: the last part of a hold uses the table.
                drop(detached);
            }
        }
        true
    }

    /// Nothing that is held can be relied on, for now.
    pub(crate) fn suspend_all(&self) {
        let mut table = self.table();
        table.is_suspended = true;
        table.held.values().for_each(|held| held.signals.suspend());
    }

    /// All that is held can be relied on again.
    pub(crate) fn resume_all(&self) {
        let mut table = self.table();
        table.is_suspended = false;
        table.held.values().for_each(|held| held.signals.resume());
    }

    /// The session cannot be relied on any more: nothing is held. What is to be given back, in case it lives on.
    pub(crate) fn lose_all(&self) -> Vec<QueueEntry> {
        let mut table = self.table();
        table.is_suspended = false;
        let held: Vec<_> = table.held.drain().map(|(_, held)| held).collect();
        let detached = std::mem::take(&mut table.detached);
        drop(table);
        drop(detached);
        held.into_iter()
            .map(|held| {
                held.signals.lost.cancel();
                held.queue_entry
            })
            .collect()
    }

    /// Compares the locks that the server lists with the table. A hold that is not listed under its token is lost. A
    /// listed lock that the table does not know is to be given back: its acquirer was gone before the answer.
    pub(crate) fn audit(&self, asked: Moment, listed: Vec<ListedHold>) -> Vec<QueueEntry> {
        let mut table = self.table();
        let tokens: HashMap<u64, FencingToken> = listed.iter().map(|one| (one.hold_id.nonce, one.token)).collect();
        // Under another token it was granted anew: another may have held it in between.
        let is_ours = |nonce: &u64, held: &Held| {
            tokens.get(nonce).is_some_and(|token| *token == held.token || mutant::is("resumed_under_another_token"))
        };
        table.held.retain(|nonce, held| {
            let missing = held.since < asked && !is_ours(nonce, held);
            if missing {
                held.signals.lost.cancel();
            }
            !missing
        });
        let Table { held, detached, .. } = &mut *table;
        let ended: Vec<_> = detached.extract_if(|nonce, _| !held.contains_key(nonce)).collect();
        let unknown =
            |hold_id: &HoldId| !table.held.contains_key(&hold_id.nonce) && !table.waiting.contains_key(&hold_id.nonce);
        let unknown = listed.into_iter().map(|one| one.hold_id).filter(unknown).map(QueueEntry::from).collect();
        drop(table);
        drop(ended);
        unknown
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::SessionId;

    fn queue_entry(nonce: u64) -> QueueEntry {
        QueueEntry::from(HoldId { session: SessionId::new("s-1"), nonce, name: "l".into(), shared: false })
    }

    fn signals() -> Arc<HoldSignals> {
        HoldSignals::new(&CancellationToken::new())
    }

    fn is_lost(signals: &HoldSignals) -> bool {
        signals.lost().is_cancelled()
    }

    fn is_suspended(signals: &HoldSignals) -> bool {
        signals.suspended_or_lost().is_cancelled()
    }

    const TOKEN: FencingToken = FencingToken::new(1);

    #[test]
    fn broken_before_its_acquirer_looked_is_lost_from_the_first() {
        let table = LockTable::default();
        let (first, _granted) = table.expect();
        let (second, _granted) = table.expect();
        table.deliver(InboxMessage::Broken { nonce: first });
        let (lost, kept) = (signals(), signals());
        table.hold(queue_entry(first), TOKEN, lost.clone());
        table.hold(queue_entry(second), TOKEN, kept.clone());
        assert!(is_lost(&lost) && !is_lost(&kept));
        table.deliver(InboxMessage::Broken { nonce: second });
        assert!(is_lost(&kept));

        let grant = Grant { token: TOKEN, since_ms: 1 };
        let (known, _granted) = table.expect();
        assert!(table.deliver(InboxMessage::Grant { nonce: known, grant }), "it is waited for");
        assert!(table.deliver(InboxMessage::Grant { nonce: known, grant }), "it has been told already");
        table.hold(queue_entry(known), TOKEN, signals());
        assert!(table.deliver(InboxMessage::Grant { nonce: known, grant }), "it is held");
        table.let_go(known);
        assert!(!table.deliver(InboxMessage::Grant { nonce: known, grant }), "nobody knows it");

        // Asked again after that, the server's new answer counts.
        let (third, _granted) = table.expect();
        table.deliver(InboxMessage::Broken { nonce: third });
        let _granted = table.expect_again(third);
        let held = signals();
        table.hold(queue_entry(third), TOKEN, held.clone());
        assert!(!is_lost(&held));
        table.let_go(third);
        let table = table.table();
        assert!(table.waiting.is_empty() && table.broken.is_empty() && table.held.is_empty());
    }

    fn listed(nonce: u64, token: u64) -> ListedHold {
        ListedHold { hold_id: queue_entry(nonce).hold_id, token: FencingToken::new(token) }
    }

    #[test]
    fn suspended_is_held_again_only_under_its_token() {
        let table = LockTable::default();
        let [same, other, missing] = [signals(), signals(), signals()];
        for (nonce, signals) in [(1, &same), (2, &other), (3, &missing)] {
            table.hold(queue_entry(nonce), FencingToken::new(7), signals.clone());
        }
        table.suspend_all();
        let late = signals();
        table.hold(queue_entry(4), TOKEN, late.clone());
        assert!([&same, &other, &missing, &late].into_iter().all(|held| is_suspended(held) && !is_lost(held)));

        let unknown =
            table.audit(clock::now() + Duration::from_secs(1), vec![listed(1, 7), listed(2, 8), listed(4, 1)]);
        table.resume_all();
        assert_eq!(unknown, [queue_entry(2)], "granted anew, it is given back");
        assert!(!is_suspended(&same) && !is_suspended(&late));
        assert!(is_lost(&other) && is_suspended(&other) && is_lost(&missing) && is_suspended(&missing));
    }
}
