//! The server of the model: one lease, one lock, and somebody else who waits for it.

use crate::proto::Moment;

/// The holder of the lock, as the server says, and its token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Lock {
    Ours(u64),
    Theirs(u64),
    /// Taken by an operator, which the holder may learn late.
    Broken(u64),
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) now: Moment,
    pub(super) is_up: bool,
    /// When the lease runs out; none once it is gone.
    pub(super) lease: Option<Moment>,
    /// Whether the holder is subscribed to its presence.
    pub(super) is_present: bool,
    /// Whether it ever was: then a prober may judge it.
    pub(super) is_marked: bool,
    pub(super) lock: Lock,
    pub(super) tokens: u64,
}

impl Server {
    pub(super) fn lives(&self) -> bool {
        self.lease.is_some_and(|until| self.now <= until)
    }

    pub(super) fn next_token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// What the sweep does: the lock of a dead lease goes to the waiter.
    pub(super) fn sweep(&mut self) {
        if self.is_up && !self.lives() {
            self.lease = None;
            if let Lock::Ours(_) = self.lock {
                self.lock = Lock::Theirs(self.next_token());
            }
        }
    }
}
