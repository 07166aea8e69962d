//! Until when a connector's lease is vouched for, to be asked without I/O, and without waiting for a timer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::heartbeat_thread::Looked;
use crate::clock;
use crate::mutant;
use crate::proto::Moment;

/// What the keeper of a lease says.
#[derive(Debug)]
pub(crate) struct Vouch {
    pub(crate) until: Moment,
    /// Where others see the session by its connection: when this process last looked at that, and for how long it is
    /// vouched for without.
    pub(crate) attended: Option<(Arc<Looked>, Duration)>,
}

impl Vouch {
    /// A vouch that is over.
    pub(super) fn none() -> Self {
        Self { until: Moment::ORIGIN, attended: None }
    }

    fn is_attended(&self, now: Moment) -> bool {
        let in_time = |(looked, unattended): &(Arc<Looked>, Duration)| now < looked.at() + *unattended;
        self.attended.as_ref().is_none_or(in_time) || mutant::is("frozen_says_yes")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Vouched(watch::Receiver<Vouch>);

impl Vouched {
    pub(crate) fn new(vouch: watch::Receiver<Vouch>) -> Self {
        Self(vouch)
    }

    /// Whether the lease is vouched for at this moment, and this process has looked whether its connection is open.
    pub(crate) fn holds(&self) -> bool {
        let now = clock::now();
        self.holds_at(now) && self.is_attended_at(now)
    }

    /// Whether the time for which it is vouched for is not over.
    pub(crate) fn holds_at(&self, now: Moment) -> bool {
        now < self.0.borrow().until
    }

    /// Whether this process was not frozen just now.
    pub(crate) fn is_attended_at(&self, now: Moment) -> bool {
        self.0.borrow().is_attended(now)
    }

    /// Waits until this process has looked what became of its connection while it was frozen.
    ///
    /// Cancel safe.
    pub(crate) async fn attended(&self) {
        while !self.is_attended_at(clock::now()) {
            Looked::again().await;
        }
    }

    /// For how long it is vouched for from now on.
    pub(crate) fn rest(&self) -> Duration {
        self.0.borrow().until.since(clock::now())
    }

    /// Waits until it is vouched for longer than before, or again; `None` if the connector is gone.
    ///
    /// Cancel safe.
    pub(crate) async fn extended(&mut self) -> Option<()> {
        if self.is_attended_at(clock::now()) {
            return self.0.changed().await.ok();
        }
        self.attended().await;
        Some(())
    }
}
