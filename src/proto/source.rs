//! How changes are heard of: where hints come from, whether that proves itself, and what takes its place if not.
//!
//! The canary is a key of our own: it is written, touched when it has run out, written again and deleted, and what a
//! source tells of that proves it, whatever may be forbidden or misconfigured on the way.

use std::time::Duration;

use super::effects::Effects;
use super::in_flight::InFlight;
use super::io::{Command, Output, Owner, Reply, SourceReport, Tag};
use super::outbox::Outbox;
use super::timers::Timer;
use super::{Moment, Warning};
use crate::error::{Error, ErrorKind};
use crate::settings::{CoreSettings, EventSource};
use crate::wire::KeyEvent;

/// The canary lives for 2 ms; a touch after 3 makes the server say so.
const TOUCH_AFTER: Duration = Duration::from_millis(3);

/// How much longer each pause before a better source is tried again may grow, in reconcile intervals.
const LONGEST_RETRY: u32 = 32;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    set: bool,
    deleted: bool,
    expired: bool,
    /// Messages of a source that does not say what happened to the key.
    changes: u32,
}

impl Seen {
    fn add(&mut self, key_event: KeyEvent) {
        match key_event {
            KeyEvent::Set => self.set = true,
            KeyEvent::Deleted => self.deleted = true,
            KeyEvent::Expired => self.expired = true,
            KeyEvent::Other => self.changes += 1,
            KeyEvent::Evicted | KeyEvent::Expire => {}
        }
    }

    fn is_proof(self) -> bool {
        self.set && self.deleted && self.expired || self.changes >= 2
    }
}

#[derive(Debug)]
enum Canary {
    Idle,
    /// Sent. Its short life counts from the answer, which is later than its beginning.
    Planting,
    Planted,
    Touching,
    /// Every event has been caused: time counts only from then.
    Awaiting,
}

#[derive(Debug)]
enum SourceCommand {
    Listen,
    Plant { sent: Moment },
    Touch,
}

#[derive(Debug)]
pub(crate) struct SourceSelection {
    settings: CoreSettings,
    /// The wanted source, and what may take its place, the better ones first.
    sources: Vec<EventSource>,
    at: usize,
    canary: Canary,
    seen: Seen,
    /// When the canary was let go.
    begun: Moment,
    is_proven: bool,
    /// It has been made anew since it last proved itself.
    is_renewed: bool,
    retries: u32,
    report: SourceReport,
    in_flight: InFlight<SourceCommand>,
}

impl SourceSelection {
    pub(crate) fn new(settings: CoreSettings) -> Self {
        let all = [settings.source, EventSource::Tracking, EventSource::Poll];
        let first = all.iter().rposition(|source| *source == settings.source).unwrap_or_default();
        let report = SourceReport { source: settings.source, ..SourceReport::default() };
        Self {
            sources: all[first..].to_vec(),
            settings,
            at: 0,
            canary: Canary::Idle,
            seen: Seen::default(),
            begun: Moment::ORIGIN,
            is_proven: false,
            is_renewed: false,
            retries: 0,
            report,
            in_flight: InFlight::new(Owner::Source),
        }
    }

    fn source(&self) -> EventSource {
        self.sources[self.at]
    }

    /// Whether hints come by themselves. If not, only a reconcile finds changes.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// A new link: the best source first, whatever it was that served before.
    pub(crate) fn link_up(&mut self, out: &mut Outbox) {
        self.at = 0;
        self.listen(out);
    }

    pub(crate) fn link_down(&mut self, out: &mut Outbox) {
        self.rest(out);
        out.timers.clear(Timer::BetterSource);
        self.in_flight.clear();
        self.unproven(out);
    }

    /// It is not known whether it tells everything.
    fn unproven(&mut self, out: &mut Outbox) {
        self.is_proven = false;
        if std::mem::take(&mut self.report.is_proven) {
            out.push(Output::Source(self.report.clone()));
        }
    }

    fn listen(&mut self, out: &mut Outbox) {
        self.is_renewed = true;
        self.rest(out);
        self.unproven(out);
        self.in_flight.clear();
        self.in_flight.send(Command::Listen { source: self.source() }, SourceCommand::Listen, out);
    }

    /// No canary is under way.
    fn rest(&mut self, out: &mut Outbox) {
        self.canary = Canary::Idle;
        out.timers.clear(Timer::Canary);
    }

    /// Sends a canary to prove the source, unless one is under way.
    pub(crate) fn prove(&mut self, now: Moment, out: &mut Outbox) {
        if self.source() != EventSource::Poll
            && let Canary::Idle = self.canary
            && self.in_flight.is_empty()
        {
            self.plant(now, out);
        }
    }

    fn plant(&mut self, now: Moment, out: &mut Outbox) {
        (self.canary, self.seen) = (Canary::Planting, Seen::default());
        self.begun = now;
        self.in_flight.send(Command::PlantCanary, SourceCommand::Plant { sent: now }, out);
    }

    /// The source has told something of the canary.
    pub(crate) fn canary(&mut self, now: Moment, key_event: KeyEvent, sweep_lag: Option<Duration>, out: &mut Outbox) {
        if let Canary::Idle = self.canary {
            return;
        }
        if self.seen == Seen::default() {
            self.report.event_lag = Some(now.since(self.begun));
        }
        self.seen.add(key_event);
        if self.seen.is_proof() {
            self.rest(out);
            self.in_flight.clear();
            (self.is_proven, self.is_renewed) = (true, false);
            (self.report.canary_at, self.report.sweep_lag) = (Some(now), sweep_lag);
            self.settled(now, out);
        }
    }

    /// This source serves from now on.
    fn settled(&mut self, now: Moment, out: &mut Outbox) {
        let source = self.source();
        if self.report.source != source || self.report.since.is_none() {
            (self.report.source, self.report.since) = (source, Some(now));
        }
        if self.at == 0 {
            out.timers.clear(Timer::BetterSource);
            (self.retries, self.report.reason) = (0, None);
        } else if !out.timers.is_set(Timer::BetterSource) {
            let pause = self.settings.reconcile * 2u32.saturating_pow(self.retries).min(LONGEST_RETRY);
            out.timers.set(Timer::BetterSource, now + pause);
            self.retries = self.retries.saturating_add(1);
        }
        self.report.is_proven = source != EventSource::Poll;
        out.push(Output::Source(self.report.clone()));
    }

    /// The source is of no use; the next takes its place.
    fn give_up(&mut self, reason: &str, out: &mut Outbox) {
        let given_up = self.source();
        self.rest(out);
        self.at = (self.at + 1).min(self.sources.len() - 1);
        if self.retries == 0 || self.report.source == given_up {
            let next = self.source();
            out.push(Output::Warn(Warning::SourceReplaced { given_up, reason: reason.to_owned(), next }));
        }
        self.report.reason = Some(format!("{given_up}: {reason}"));
        self.report.is_proven = false;
        out.push(Output::Source(self.report.clone()));
        self.listen(out);
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
            // With `Notifications::Check`, connecting fails.
            (SourceCommand::Listen, Err(error))
                if error.kind() == ErrorKind::Notifications && self.report.since.is_none() =>
            {
                effects.broken = Some(error);
            }
            // Polling is the last source: without it nothing would be found.
            (SourceCommand::Listen, Err(error)) if self.source() == EventSource::Poll => effects.broken = Some(error),
            (SourceCommand::Listen, Err(error)) => self.give_up(&error.to_string(), out),
            (SourceCommand::Listen, Ok(reply)) => {
                effects.is_listening_anew = true;
                self.report.inbox_works = matches!(reply, Reply::Listening { inbox_works: true });
                out.push(Output::Inbox(self.report.inbox_works));
                if self.source() == EventSource::Poll {
                    self.settled(now, out);
                }
            }
            (SourceCommand::Plant { sent }, Ok(_)) => {
                self.report.round_trip = Some(now.since(sent));
                if let Canary::Planting = self.canary {
                    self.canary = Canary::Planted;
                    out.timers.set(Timer::Canary, now + TOUCH_AFTER);
                }
            }
            (SourceCommand::Touch, Ok(_)) => {
                if let Canary::Touching = self.canary {
                    self.canary = Canary::Awaiting;
                    out.timers.set(Timer::Canary, now + self.settings.canary_timeout);
                }
            }
            (SourceCommand::Plant { .. } | SourceCommand::Touch, Err(error)) => {
                // Where nothing can be written, out of memory say, this proves nothing.
                self.rest(out);
                out.push(Output::Warn(Warning::CanaryFailed(error)));
            }
        }
    }

    /// The canary's timer has run out.
    pub(crate) fn canary_due(&mut self, out: &mut Outbox) {
        match self.canary {
            Canary::Planted => {
                self.canary = Canary::Touching;
                self.in_flight.send(Command::TouchCanary, SourceCommand::Touch, out);
            }
            Canary::Awaiting => self.unproven_in_time(out),
            Canary::Idle | Canary::Planting | Canary::Touching => {}
        }
    }

    /// Tries the best source again, once no canary is under way.
    pub(crate) fn retry(&mut self, now: Moment, out: &mut Outbox) {
        if self.in_flight.is_empty() && matches!(self.canary, Canary::Idle) {
            self.at = 0;
            self.listen(out);
        } else {
            out.timers.set(Timer::BetterSource, now + self.settings.canary_timeout);
        }
    }

    /// The canary's events did not come in time.
    fn unproven_in_time(&mut self, out: &mut Outbox) {
        self.rest(out);
        if self.is_renewed {
            self.give_up("the events of its canary do not arrive", out);
        } else {
            // It served until now: perhaps only the server's settings are gone, or its subscription.
            self.listen(out);
        }
    }
}
