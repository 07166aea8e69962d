//! When to sweep and when to reconcile.
//!
//! The clock never removes a member: a deadline only makes us ask, and the server's answer removes.

use std::collections::VecDeque;
use std::time::Duration;

use super::effects::Effects;
use super::in_flight::InFlight;
use super::io::{Command, Output, Owner, Reply, Tag};
use super::outbox::Outbox;
use super::timers::Timer;
use super::{Moment, Warning};
use crate::error::Error;
use crate::model::MemberId;
use crate::mutant;
use crate::settings::CoreSettings;

/// A key is expired only once the clock has passed its deadline.
const PAST_DEADLINE: Duration = Duration::from_millis(1);
/// Over how long the watchers of one group spread their sweeps.
const SWEEP_JITTER: Duration = Duration::from_millis(2);
/// The sweep gives member keys 2 ms to live; a touch after 3 makes the server expire them.
const TOUCH_AFTER: Duration = Duration::from_millis(3);

/// How long to wait after a sweep that the server refused.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum MaintenanceCommand {
    Sweep,
    Touch(Vec<MemberId>),
}

#[derive(Debug)]
pub(crate) struct Maintenance {
    settings: CoreSettings,
    /// When to sweep next, as far as it is known while a sweep is under way.
    planned: Option<Moment>,
    touches: VecDeque<(Moment, Vec<MemberId>)>,
    /// How late the last sweep was sent.
    lag: Option<Duration>,
    in_flight: InFlight<MaintenanceCommand>,
}

impl Maintenance {
    pub(crate) fn new(settings: CoreSettings) -> Self {
        Self {
            settings,
            planned: None,
            touches: VecDeque::new(),
            lag: None,
            in_flight: InFlight::new(Owner::Maintenance),
        }
    }

    pub(crate) fn link_down(&mut self, out: &mut Outbox) {
        for timer in [Timer::Touch, Timer::Sweep, Timer::Reconcile] {
            out.timers.clear(timer);
        }
        *self = Self { lag: self.lag, ..Self::new(self.settings.clone()) };
    }

    /// Sweeps, and plans the next reconcile: soon where no source announces changes. The rest is the caller's.
    pub(crate) fn reconcile(&mut self, now: Moment, is_told: bool, out: &mut Outbox) {
        let jitter = 0.85 + 0.15 * self.settings.jitter;
        let interval = if is_told { self.settings.reconcile } else { self.settings.poll };
        out.timers.set(Timer::Reconcile, now + interval.mul_f64(jitter));
        self.sweep(out);
    }

    /// No source announces changes any more: the next reconcile comes soon.
    pub(crate) fn hurry(&self, now: Moment, out: &mut Outbox) {
        out.timers.set_sooner(Timer::Reconcile, now + self.settings.poll);
    }

    /// A source announces changes from now on.
    pub(crate) fn relax(&self, now: Moment, out: &mut Outbox) {
        let jitter = 0.85 + 0.15 * self.settings.jitter;
        out.timers.set(Timer::Reconcile, now + self.settings.reconcile.mul_f64(jitter));
    }

    /// How late the last sweep was sent.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.lag
    }

    pub(crate) fn sweep(&mut self, out: &mut Outbox) {
        self.planned = None;
        out.timers.clear(Timer::Sweep);
        if mutant::is("no_sweep") {
            return;
        }
        if self.settings.sweeps && !self.is_sweeping() {
            self.in_flight.send(Command::Sweep, MaintenanceCommand::Sweep, out);
        }
    }

    /// Some answer told how long it is to the earliest deadline.
    pub(crate) fn due(&mut self, now: Moment, due: Option<Duration>, out: &mut Outbox) {
        if let Some(due) = due {
            self.plan(now + due + PAST_DEADLINE + SWEEP_JITTER.mul_f64(self.settings.jitter), out);
        }
    }

    fn plan(&mut self, at: Moment, out: &mut Outbox) {
        if self.is_sweeping() {
            self.planned = Some(self.planned.map_or(at, |planned| planned.min(at)));
        } else if self.settings.sweeps {
            out.timers.set_sooner(Timer::Sweep, at);
        }
    }

    fn is_sweeping(&self) -> bool {
        self.in_flight.iter().any(|under_way| matches!(under_way, MaintenanceCommand::Sweep))
    }

    /// Takes the reply to a command of ours.
    pub(crate) fn reply(
        &mut self,
        now: Moment,
        tag: Tag,
        reply: Result<Reply, Error>,
        effects: &mut Effects,
        out: &mut Outbox,
    ) {
        let Some(under_way) = self.in_flight.take(tag) else { return };
        match (under_way, reply) {
            (_, Err(error)) if error.is_of_the_link() => effects.broken = Some(error),
            (MaintenanceCommand::Sweep, Ok(Reply::Swept { due, more, dying })) => {
                self.swept(now, due, more, dying, out);
            }
            (MaintenanceCommand::Sweep, Err(error)) => {
                self.planned = None;
                out.timers.set(Timer::Sweep, now + SWEEP_AGAIN);
                out.push(Output::Warn(Warning::SweepFailed(error)));
            }
            // The sweeper reads the touched ids itself: without notifications it would not be told.
            (MaintenanceCommand::Touch(ids), Ok(_)) => effects.swept = ids,
            (MaintenanceCommand::Touch(_), Err(error)) => out.push(Output::Warn(Warning::TouchFailed(error))),
            (MaintenanceCommand::Sweep, Ok(_)) => {}
        }
    }

    fn swept(&mut self, now: Moment, due: Option<Duration>, more: bool, dying: Vec<MemberId>, out: &mut Outbox) {
        let planned = self.planned.take();
        if !dying.is_empty() {
            self.touches.push_back((now + TOUCH_AFTER, dying));
            out.timers.set_sooner(Timer::Touch, now + TOUCH_AFTER);
        }
        if more {
            out.timers.set(Timer::Sweep, now);
        } else {
            planned.into_iter().for_each(|at| self.plan(at, out));
            self.due(now, due, out);
        }
    }

    /// The sweep that was to come then is due.
    pub(crate) fn sweep_due(&mut self, now: Moment, due: Moment, out: &mut Outbox) {
        self.lag = Some(now.since(due));
        self.sweep(out);
    }

    /// Touches the keys whose time to live has passed.
    pub(crate) fn touch(&mut self, now: Moment, out: &mut Outbox) {
        while self.touches.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, ids)) = self.touches.pop_front() else { break };
            self.in_flight.send(Command::Touch { ids: ids.clone() }, MaintenanceCommand::Touch(ids), out);
        }
        out.timers.set(Timer::Touch, self.touches.front().map(|(at, _)| *at));
    }
}
