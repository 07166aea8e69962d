//! Reentrant holds: one per lock and member, shared by its guards.

use std::sync::{Arc, Weak};

use dashmap::DashMap;
use tokio::sync::Mutex;

use super::guard::Hold;
use crate::member::MemberId;

/// Whose turn it is to acquire, and what was acquired last.
pub(super) type Gate = Arc<Mutex<Weak<Hold>>>;

#[derive(Default)]
pub(crate) struct Gates(DashMap<(Arc<str>, MemberId), Gate>);

impl Gates {
    pub(super) fn of(&self, name: &Arc<str>, member: &MemberId) -> Gate {
        self.0.entry((name.clone(), member.clone())).or_default().clone()
    }

    /// A hold has ended: where nobody stands at its gate, the gate goes too.
    pub(super) fn prune(&self, name: &Arc<str>, member: &MemberId) {
        self.0.remove_if(&(name.clone(), member.clone()), |_, gate| Arc::strong_count(gate) == 1);
    }
}
