//! When to sweep, when to reconcile, and whether notifications still prove themselves.
//!
//! The clock never removes a member: a deadline only makes us ask, and the server's answer removes.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;
use super::io::{Command, Output, Settings, Tag};
use super::outbox::Outbox;
use crate::member::MemberId;
use crate::wire::Happened;

/// A key is expired only once the clock has passed its deadline.
const PAST_DEADLINE: Duration = Duration::from_millis(1);
/// Over how long the watchers of one group spread their sweeps.
const SWEEP_JITTER: Duration = Duration::from_millis(2);
/// The sweep gives member keys 2 ms to live; a touch after 3 makes the server expire them.
const TOUCH_AFTER: Duration = Duration::from_millis(3);

/// How long to wait after a sweep that the server refused.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    set: bool,
    deleted: bool,
    expired: bool,
}

/// A key of our own whose three notifications must come back.
#[derive(Debug)]
enum Canary {
    Idle,
    /// Sent. Its short life counts from the answer, which is later than its beginning.
    Planting {
        until: Moment,
        seen: Seen,
    },
    Planted {
        touch_at: Moment,
        until: Moment,
        seen: Seen,
    },
    Awaiting {
        until: Moment,
        seen: Seen,
    },
}

#[derive(Debug)]
enum Flight {
    Sweep,
    Touch(Vec<MemberId>),
    Plant,
    Canary,
    Enable,
}

#[derive(Debug)]
pub(crate) struct Upkeep {
    settings: Settings,
    sweep_at: Option<Moment>,
    sweeping: bool,
    touches: VecDeque<(Moment, Vec<MemberId>)>,
    reconcile_at: Option<Moment>,
    canary: Canary,
    proven: Option<bool>,
    /// Notifications have been enabled anew since the last reconcile.
    enabled: bool,
    flying: Vec<(Tag, Flight)>,
}

/// What upkeep asks of the rest of the machine.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) hints: Vec<MemberId>,
    /// List again, in full: something may have been missed.
    pub(crate) doubt: bool,
    pub(crate) broken: Option<crate::error::Error>,
}

impl Upkeep {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            sweep_at: None,
            sweeping: false,
            touches: VecDeque::new(),
            reconcile_at: None,
            canary: Canary::Idle,
            proven: None,
            enabled: false,
            flying: Vec::new(),
        }
    }

    pub(crate) fn link_down(&mut self) {
        let proven = self.proven;
        *self = Self { proven, ..Self::new(self.settings.clone()) };
    }

    /// Sweeps, plants a canary and says when to come again. The listing is the caller's.
    pub(crate) fn reconcile(&mut self, now: Moment, out: &mut Outbox) {
        let jitter = 0.85 + 0.15 * self.settings.jitter;
        self.reconcile_at = Some(now + self.settings.reconcile.mul_f64(jitter));
        self.enabled = false;
        self.sweep(out);
        if let Canary::Idle = self.canary {
            self.plant(now, out);
        }
    }

    fn send(&mut self, command: Command, flight: Flight, out: &mut Outbox) {
        let tag = out.command(command);
        self.flying.push((tag, flight));
    }

    pub(crate) fn sweep(&mut self, out: &mut Outbox) {
        self.sweep_at = None;
        if self.settings.sweeps && !self.sweeping {
            self.sweeping = true;
            self.send(Command::Sweep, Flight::Sweep, out);
        }
    }

    fn plant(&mut self, now: Moment, out: &mut Outbox) {
        let until = now + self.settings.canary_timeout;
        self.canary = Canary::Planting { until, seen: Seen::default() };
        self.send(Command::PlantCanary, Flight::Plant, out);
    }

    /// Some answer told how long it is to the earliest deadline.
    pub(crate) fn due(&mut self, now: Moment, due: Option<Duration>) {
        let at = due.map(|due| now + due + PAST_DEADLINE + SWEEP_JITTER.mul_f64(self.settings.jitter));
        self.sweep_at = self.sweep_at.into_iter().chain(at).min();
    }

    pub(crate) fn swept(&mut self, now: Moment, due: Option<Duration>, more: bool, dying: Vec<MemberId>) {
        self.sweeping = false;
        if !dying.is_empty() {
            self.touches.push_back((now + TOUCH_AFTER, dying));
        }
        if more {
            self.sweep_at = Some(now);
        } else {
            self.due(now, due);
        }
    }

    pub(crate) fn canary(&mut self, happened: Happened, out: &mut Outbox) {
        let (Canary::Planting { seen, .. } | Canary::Planted { seen, .. } | Canary::Awaiting { seen, .. }) =
            &mut self.canary
        else {
            return;
        };
        match happened {
            Happened::Set => seen.set = true,
            Happened::Deleted => seen.deleted = true,
            Happened::Expired => seen.expired = true,
            Happened::Evicted | Happened::Expire | Happened::Other => {}
        }
        if seen.set && seen.deleted && seen.expired {
            self.canary = Canary::Idle;
            self.prove(true, out);
        }
    }

    fn prove(&mut self, proven: bool, out: &mut Outbox) {
        if self.proven != Some(proven) {
            self.proven = Some(proven);
            out.push(Output::Proven(proven));
        }
    }

    /// Takes the reply to a command of ours; hands back any other tag. Sweeps are passed on to [`swept`](Self::swept).
    pub(crate) fn reply(
        &mut self,
        now: Moment,
        tag: Tag,
        failure: Option<&crate::error::Error>,
        out: &mut Outbox,
    ) -> Option<Wishes> {
        let index = self.flying.iter().position(|(flying, _)| *flying == tag)?;
        let (_, flight) = self.flying.swap_remove(index);
        let mut wishes = Wishes::default();
        if let Some(error) = failure.filter(|error| error.is_of_the_link()) {
            wishes.broken = Some(error.clone());
            return Some(wishes);
        }
        match (flight, failure) {
            (Flight::Sweep, Some(error)) => {
                self.sweeping = false;
                self.sweep_at = Some(now + SWEEP_AGAIN);
                out.push(Output::Warn(format!("the sweep failed, crashes are seen late: {error}")));
            }
            // Who swept looks for itself too: without notifications nobody would tell.
            (Flight::Touch(ids), None) => wishes.hints = ids,
            (Flight::Plant | Flight::Canary, Some(error)) => {
                self.canary = Canary::Idle;
                out.push(Output::Warn(format!("notifications could not be put to the proof: {error}")));
            }
            (Flight::Touch(_), Some(error)) => out.push(Output::Warn(format!("the touch failed: {error}"))),
            (Flight::Enable, None) => {
                wishes.doubt = true;
                self.plant(now, out);
            }
            (Flight::Enable, Some(error)) => {
                out.push(Output::Warn(format!("notifications could not be enabled: {error}")));
            }
            (Flight::Plant, None) => {
                if let Canary::Planting { until, seen } = self.canary {
                    self.canary = Canary::Planted { touch_at: now + TOUCH_AFTER, until, seen };
                }
            }
            (Flight::Sweep | Flight::Canary, None) => {}
        }
        Some(wishes)
    }

    pub(crate) fn timeout(&self) -> Option<Moment> {
        let canary = match self.canary {
            Canary::Idle => None,
            Canary::Planted { touch_at, .. } => Some(touch_at),
            Canary::Planting { until, .. } | Canary::Awaiting { until, .. } => Some(until),
        };
        let touch = self.touches.front().map(|(at, _)| *at);
        let sweep = self.sweep_at.filter(|_| self.settings.sweeps && !self.sweeping);
        [canary, touch, sweep, self.reconcile_at].into_iter().flatten().min()
    }

    /// Lets time have its effect; answers whether it is time to reconcile.
    pub(crate) fn tick(&mut self, now: Moment, out: &mut Outbox) -> bool {
        while self.touches.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, ids)) = self.touches.pop_front() else { break };
            self.send(Command::Touch { ids: ids.clone() }, Flight::Touch(ids), out);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(out);
        }
        match self.canary {
            Canary::Planted { touch_at, until, seen } if touch_at <= now => {
                self.canary = Canary::Awaiting { until, seen };
                self.send(Command::TouchCanary, Flight::Canary, out);
            }
            Canary::Planting { until, .. } | Canary::Awaiting { until, .. } if until <= now => {
                self.canary = Canary::Idle;
                self.prove(false, out);
                if !self.enabled {
                    self.enabled = true;
                    self.send(Command::EnableNotifications, Flight::Enable, out);
                }
            }
            _ => {}
        }
        self.reconcile_at.is_some_and(|at| at <= now)
    }
}
