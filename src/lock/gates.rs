//! Reentrant holds: one per lock and member, shared by its guards.

use std::sync::{Arc, Weak};

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::guard::Hold;
use crate::model::MemberId;

/// Which guard may acquire next, and what was acquired last.
type Gate = Arc<Mutex<Weak<Hold>>>;

#[derive(Default)]
pub(crate) struct Gates(DashMap<(Arc<str>, MemberId), Gate>);

/// A task at a gate, or waiting before it. The fields are dropped in this order: it has left the gate when that is
/// checked.
pub(super) struct Entrant<'a> {
    gate: Gate,
    _leaving: Leaving<'a>,
}

struct Leaving<'a> {
    gates: &'a Gates,
    name: &'a Arc<str>,
    member: &'a MemberId,
}

impl Gates {
    pub(super) fn at<'a>(&'a self, name: &'a Arc<str>, member: &'a MemberId) -> Entrant<'a> {
        let gate = self.0.entry((name.clone(), member.clone())).or_default().clone();
        Entrant { gate, _leaving: Leaving { gates: self, name, member } }
    }

    /// Removes the gate if no task stands at it and nothing is held.
    pub(super) fn prune(&self, name: &Arc<str>, member: &MemberId) {
        self.0.remove_if(&(name.clone(), member.clone()), |_, gate| {
            Arc::strong_count(gate) == 1 && gate.try_lock().is_ok_and(|last| last.strong_count() == 0)
        });
    }
}

impl Entrant<'_> {
    /// Waits for its turn.
    ///
    /// Cancel safe: dropped, others take theirs.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<Weak<Hold>> {
        self.gate.clone().lock_owned().await
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.gates.prune(self.name, self.member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gate_stands_only_as_long_as_somebody_is_at_it() {
        let (gates, name, member) = (Gates::default(), Arc::from("l"), MemberId::known("a"));
        let (first, second) = (gates.at(&name, &member), gates.at(&name, &member));
        let turn = first.turn().await;
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), second.turn()).await.is_err());
        drop(second);
        assert_eq!(gates.0.len(), 1);
        drop(turn);
        drop(first);
        assert!(gates.0.is_empty());
    }
}
