//! The connector's link state, as a watch.

use std::fmt;
use std::time::Instant;

use tokio::sync::watch;

use crate::clock;
use crate::proto::Phase;

/// The state of a connector's link to its Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Not yet connected for the first time.
    Connecting,
    /// Both connections stand, the members are known, and heartbeats are answered.
    Connected,
    /// Something of that is missing, and the view grows old. The connector tries to reconnect, for as long as it takes.
    Suspended {
        /// Since when.
        since: Instant,
    },
    /// The lease is lost, or may be by now. This state comes *before* another session can take over.
    ///
    /// A connector that only watches has no lease and never says this. With
    /// [`OnLost::Stop`](crate::OnLost::Stop) it stays until each lost member is joined again or left by name.
    Lost,
    /// [`close`](crate::GroupConnector::close) was called, the connector was dropped, or the runtime that it was made on
    /// has ended. Nothing follows.
    Closed,
}

impl From<Phase> for State {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Connecting => Self::Connecting,
            Phase::Connected => Self::Connected,
            Phase::Suspended(since) => Self::Suspended { since: clock::instant(since) },
            Phase::Lost => Self::Lost,
            Phase::Closed => Self::Closed,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Suspended { .. } => "suspended",
            Self::Lost => "lost",
            Self::Closed => "closed",
        })
    }
}

/// Follows a connector's [`State`]. A state that passes before it is read is skipped; the last one is not.
#[derive(Clone, Debug)]
pub struct StateWatch {
    receiver: watch::Receiver<State>,
}

impl StateWatch {
    pub(crate) fn new(receiver: watch::Receiver<State>) -> Self {
        Self { receiver }
    }

    /// The present state. No I/O.
    #[must_use]
    pub fn get(&self) -> State {
        *self.receiver.borrow()
    }

    /// Waits until the state differs from the one that this watch saw last, and answers it; `None` once this watch
    /// has seen [`State::Closed`].
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future: the next call answers what it would have.
    pub async fn changed(&mut self) -> Option<State> {
        self.receiver.changed().await.ok()?;
        Some(*self.receiver.borrow_and_update())
    }

    /// Waits until the state meets the condition, and answers it; [`State::Closed`] if that comes first.
    ///
    /// It waits for as long as it takes: put a timeout around it.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_for(&mut self, mut condition: impl FnMut(State) -> bool) -> State {
        match self.receiver.wait_for(|state| condition(*state) || *state == State::Closed).await {
            Ok(state) => *state,
            Err(_) => State::Closed,
        }
    }
}
