//! Presence: a process that ends takes its connections with it, long before its lease runs out.
//!
//! A few connectors, the probers, check at short intervals whether each session still has its subscription. A prober
//! shortens the lease of a session that it has seen over this link, and that is gone now. Of a session that it has never
//! seen it asks the server, which judges by the mark in the lease. The others stand by: they check whether the probers
//! are still there, so that the probers may be among the dead.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::effects::Effects;
use super::in_flight::InFlight;
use super::io::{Command, Output, Owner, Reply, Tag};
use super::outbox::Outbox;
use super::timers::Timer;
use super::{Moment, Warning};
use crate::error::{Error, ErrorKind};
use crate::model::SessionId;
use crate::mutant;
use crate::settings::CoreSettings;

/// How long a prober's place is held without being asked for again.
pub(crate) const PLACE: Duration = Duration::from_secs(1);

/// The pause between two probes, for so few sessions that a probe costs next to nothing.
const PAUSE: Duration = Duration::from_millis(20);
/// What each session adds to it, so that a server's work for it stays the same.
const PAUSE_EACH: Duration = Duration::from_micros(200);
/// A connector without a place asks again after this, and more seldom the more of them ask.
const LEAST_WAIT: Duration = Duration::from_millis(500);
const MOST_WAIT: Duration = Duration::from_secs(60);
/// A connector without a place checks on the probers so many times as often as it asks, but not more often than this.
const CHECKS: u32 = 20;
const LEAST_CHECK: Duration = Duration::from_millis(40);
/// Where so many have asked within a second, of which half has passed on average, each waits as long as before.
const ENOUGH_ASKS: f64 = 25.0;

#[derive(Debug)]
enum PresenceCommand {
    Ask,
    Probe { sessions: Vec<SessionId>, sent: Moment },
    CheckProbers,
    Shorten,
}

#[derive(Debug)]
pub(crate) struct Presence {
    settings: CoreSettings,
    /// Since when the link stands.
    linked: Option<Moment>,
    /// Whether this connector is a prober.
    has_place: bool,
    /// The sessions to probe.
    sessions: BTreeSet<SessionId>,
    /// When each was last seen, over this link.
    seen: HashMap<SessionId, Moment>,
    /// Sessions that were absent and never seen, and that the server has judged since the last ask.
    judged: BTreeSet<SessionId>,
    /// The probers to check on while there is no place.
    probers: Vec<String>,
    /// How long to wait for a place that was not to be had.
    wait: Duration,
    /// How many were seen when it was last told.
    told: usize,
    in_flight: InFlight<PresenceCommand>,
}

impl Presence {
    pub(crate) fn new(settings: CoreSettings) -> Self {
        Self {
            settings,
            linked: None,
            has_place: false,
            sessions: BTreeSet::new(),
            seen: HashMap::new(),
            judged: BTreeSet::new(),
            probers: Vec::new(),
            wait: LEAST_WAIT,
            told: 0,
            in_flight: InFlight::new(Owner::Presence),
        }
    }

    pub(crate) fn link_up(&mut self, now: Moment, out: &mut Outbox) {
        self.linked = Some(now);
        out.timers.set(Timer::Place, self.settings.presence.then_some(now));
    }

    pub(crate) fn link_down(&mut self, out: &mut Outbox) {
        for timer in [Timer::Place, Timer::Probers, Timer::Probe] {
            out.timers.clear(timer);
        }
        *self = Self { told: self.told, wait: self.wait, ..Self::new(self.settings.clone()) };
    }

    /// A member of this session has joined: the server names the session only when it is asked again.
    pub(crate) fn joined(&mut self, now: Moment, session: &SessionId, out: &mut Outbox) {
        if self.has_place && !session.is_adopted() && !self.sessions.contains(session) {
            self.sessions.insert(session.clone());
            // It is not subscribed yet, very likely.
            self.judged.insert(session.clone());
            if !self.is_probing(out) {
                out.timers.set(Timer::Probe, now);
            }
        }
    }

    /// Asks for a place among the probers, or to keep it.
    pub(crate) fn ask(&mut self, out: &mut Outbox) {
        self.in_flight.send(Command::AskToProbe { place: PLACE }, PresenceCommand::Ask, out);
    }

    pub(crate) fn probe(&mut self, now: Moment, out: &mut Outbox) {
        let sessions: Vec<_> = self.sessions.iter().cloned().collect();
        self.in_flight.send(
            Command::Probe { sessions: sessions.clone() },
            PresenceCommand::Probe { sessions, sent: now },
            out,
        );
    }

    /// Asks whether the probers are still there.
    pub(crate) fn check(&mut self, out: &mut Outbox) {
        self.in_flight.send(
            Command::CheckProbers { probers: self.probers.clone() },
            PresenceCommand::CheckProbers,
            out,
        );
    }

    /// Takes the reply to a command of ours. `own` is the session of this connector.
    pub(crate) fn reply(
        &mut self,
        now: Moment,
        tag: Tag,
        reply: Result<Reply, Error>,
        own: Option<&SessionId>,
        effects: &mut Effects,
        out: &mut Outbox,
    ) {
        let Some(under_way) = self.in_flight.take(tag) else { return };
        match (under_way, reply) {
            (_, Err(error)) if error.is_of_the_link() => effects.broken = Some(error),
            (PresenceCommand::Shorten, Err(error)) => {
                out.push(Output::Warn(Warning::ShortenFailed(error)));
            }
            (_, Err(error)) => {
                self.link_down(out);
                // What is forbidden stays so; anything else may pass.
                let is_passing = error.kind() != ErrorKind::Denied;
                out.timers.set(Timer::Place, is_passing.then(|| now + self.settings.reconcile));
                out.push(Output::Warn(Warning::ProbeFailed(error)));
            }
            (PresenceCommand::Ask, Ok(Reply::Probing { sessions })) => {
                self.has_place = true;
                self.stand_by(now, Vec::new(), out);
                self.judged.clear();
                self.sessions = sessions.into_iter().filter(|session| Some(session) != own).collect();
                self.seen.retain(|session, _| self.sessions.contains(session));
                out.timers.set(Timer::Place, now + PLACE / 2);
                if !self.sessions.is_empty() && !self.is_probing(out) {
                    out.timers.set(Timer::Probe, now);
                }
            }
            (PresenceCommand::Ask, Ok(Reply::NotProbing { asks, probers })) => {
                self.has_place = false;
                self.sessions.clear();
                self.seen.clear();
                self.judged.clear();
                out.timers.clear(Timer::Probe);
                let change = (asks as f64 / ENOUGH_ASKS).clamp(0.5, 2.0);
                self.wait = self.wait.mul_f64(change).clamp(LEAST_WAIT, MOST_WAIT);
                out.timers.set(Timer::Place, now + self.wait.mul_f64(1.0 + self.settings.jitter));
                self.stand_by(now, probers, out);
            }
            // An ask that is under way takes the place.
            (PresenceCommand::CheckProbers, Ok(Reply::Present(present))) if out.timers.is_set(Timer::Place) => {
                if present.iter().all(|is_present| *is_present) {
                    self.check_later(now, out);
                } else {
                    out.timers.set(Timer::Place, now);
                }
            }
            (PresenceCommand::Probe { sessions, sent }, Ok(Reply::Present(present))) => {
                self.probed(sent, &sessions, &present, out);
                let pause = PAUSE.max(PAUSE_EACH * u32::try_from(sessions.len()).unwrap_or(u32::MAX));
                let again = (!self.sessions.is_empty()).then(|| now.max(sent + pause));
                out.timers.set(Timer::Probe, again);
            }
            (PresenceCommand::Shorten, Ok(Reply::Shortened { due })) => effects.due = due,
            (_, Ok(_)) => {}
        }
        if std::mem::replace(&mut self.told, self.seen.len()) != self.seen.len() {
            out.push(Output::Seen(self.seen.len()));
        }
    }

    /// These have the places from now on, and this connector has none.
    fn stand_by(&mut self, now: Moment, probers: Vec<String>, out: &mut Outbox) {
        self.probers = probers;
        self.check_later(now, out);
    }

    fn check_later(&self, now: Moment, out: &mut Outbox) {
        let pause = LEAST_CHECK.max(self.wait / CHECKS);
        out.timers.set(Timer::Probers, (!self.probers.is_empty()).then(|| now + pause));
    }

    /// Whether a probe is under way or to come.
    fn is_probing(&self, out: &Outbox) -> bool {
        out.timers.is_set(Timer::Probe)
            || self.in_flight.iter().any(|under_way| matches!(under_way, PresenceCommand::Probe { .. }))
    }

    fn probed(&mut self, sent: Moment, sessions: &[SessionId], present: &[bool], out: &mut Outbox) {
        let mut gone = Vec::new();
        for (session, is_present) in sessions.iter().zip(present) {
            if *is_present {
                self.judged.remove(session);
                self.seen.insert(session.clone(), sent);
                continue;
            }
            let absent = self.seen.remove(session).map(|last| sent.since(last));
            if absent.is_none() && self.linked.is_none_or(|linked| sent.since(linked) < self.settings.settling) {
                continue;
            }
            let is_judged = !self.judged.insert(session.clone());
            if absent.is_some() || !is_judged && !mutant::is("only_seen_are_judged") {
                gone.push((session.clone(), absent));
            }
        }
        if !gone.is_empty() {
            self.in_flight.send(Command::Shorten { sessions: gone }, PresenceCommand::Shorten, out);
        }
    }
}
