//! When each fault was active, on whom, and what that excuses.

use crate::history::{Line, What};
use crate::plan::{self, Fault};
use crate::promotions::Promotions;

const MS: u64 = 1000;
/// The ttl of the workers, in microseconds.
pub(crate) const TTL: u64 = 2_000 * MS;
/// How long after a fault its consequences may still come.
pub(crate) const AFTERMATH: u64 = TTL + 1_000 * MS;
/// How long a session that was cut off may take to be back or to end: the longest pause and the grace.
const RECOVERY: u64 = 750 * MS;
/// By how much the server's clock is stepped, and a little more.
const STEP: u64 = 62_000 * MS;
/// The nemesis's own process: when it is kept waiting, the machine is.
const MACHINE: &str = "nemesis";

pub(crate) struct Faults {
    spans: Vec<Span>,
    pub(crate) promotions: Promotions,
    /// Who was kept waiting by the machine, from when to when.
    stalls: Vec<(String, u64, u64)>,
}

pub(crate) struct Span {
    pub(crate) fault: &'static Fault,
    on: Vec<String>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    stamp: Option<u64>,
    /// The keys that it was about, and whose they were.
    hits: Vec<(String, Option<String>)>,
}

/// What a judgement is about, so that a fault elsewhere is no excuse.
pub(crate) struct About<'a> {
    pub(crate) workers: &'a [&'a str],
    pub(crate) lock: &'a str,
    /// In the server's order of incarnations and tokens. What was born after a fault was healed, it cannot have hurt.
    pub(crate) born: Option<u64>,
}

impl Span {
    fn is_on(&self, worker: &str) -> bool {
        let of = |(_, owner): &(String, Option<String>)| owner.as_ref().is_none_or(|owner| owner == worker);
        (!self.fault.single || self.on.iter().any(|on| on == worker))
            && (self.hits.is_empty() || self.hits.iter().any(of))
    }

    fn hits(&self, lock: &str) -> bool {
        self.hits.iter().any(|(key, _)| key.split_once('/').is_some_and(|(_, name)| name == lock))
    }

    fn lasts(&self, from: u64, to: u64, born: Option<u64>) -> bool {
        // Who joins by a session that has no link yet may share its end.
        let margin = if self.fault.cuts { RECOVERY } else { 0 };
        let was_there = born.is_none_or(|born| self.stamp.is_none_or(|stamp| born <= stamp.saturating_add(margin)));
        let until = if was_there { self.to.saturating_add(AFTERMATH) } else { self.to };
        self.from <= to && until >= from
    }

    /// Whether it loses the number that the next incarnations and tokens rise from.
    fn forgets(&self) -> bool {
        let names = ["server_restart_empty", "server_restart_stale", "flush_all", "flush_db", "swap_db"];
        names.contains(&self.fault.name) || self.fault.name == "evict_allkeys_random"
    }
}

impl Faults {
    pub(crate) fn of(lines: &[Line]) -> Self {
        let (mut spans, mut stalls): (Vec<Span>, Vec<(String, u64, u64)>) = Default::default();
        for line in lines {
            match &line.what {
                What::Fault { fault, on } => {
                    if let Some(fault) = plan::by_name(fault) {
                        let (from, to) = (line.at, u64::MAX);
                        spans.push(Span { fault, on: on.clone(), from, to, stamp: None, hits: Vec::new() });
                    }
                }
                What::Hit { fault, key, owner } => {
                    let open = |span: &&mut Span| span.fault.name == fault && span.to == u64::MAX;
                    if let Some(span) = spans.iter_mut().rev().find(open) {
                        span.hits.push((key.clone(), owner.clone()));
                    }
                }
                What::Healed { fault, on, stamp, .. } => {
                    let open = |span: &&mut Span| span.fault.name == fault && span.on == *on && span.to == u64::MAX;
                    if let Some(span) = spans.iter_mut().find(open) {
                        (span.to, span.stamp) = (line.at, *stamp);
                    }
                }
                What::Stall { ms } => stalls.push((line.who.clone(), line.at.saturating_sub(ms * MS), line.at)),
                _ => {}
            }
        }
        // Who is frozen on purpose is not kept waiting by the machine.
        let is_frozen = |(who, from, to): &(String, u64, u64)| {
            spans.iter().any(|span| {
                span.fault.freezes && span.is_on(who) && span.from <= *to && span.to.saturating_add(MS * 500) >= *from
            })
        };
        stalls.retain(|stall| stall.0 == MACHINE || !is_frozen(stall));
        Self { spans, stalls, promotions: Promotions::of(lines) }
    }

    /// Whether this worker's lease may have come to an end.
    pub(crate) fn excuse(&self, worker: &str, from: u64, to: u64, born: Option<u64>) -> bool {
        let concerns = |span: &&Span| span.is_on(worker) && span.lasts(from, to, born);
        let faults: Vec<_> = self.spans.iter().filter(concerns).map(|span| span.fault).collect();
        let silence = faults.iter().map(|fault| fault.silence).sum::<f64>() + self.unmeant(from, to);
        let silence = silence + self.stalled(worker, from.saturating_sub(AFTERMATH), to) as f64 / TTL as f64;
        if born.is_some_and(|born| self.promotions.forgot_number(born, from)) {
            return true;
        }
        // Who is kept from connecting while it has to connect again is cut off.
        let closes =
            faults.iter().any(|fault| fault.cuts || fault.name.starts_with("client_kill") || fault.name == "reset");
        silence >= 0.6 || closes && silence > 0.0 || faults.iter().any(|fault| fault.kills())
    }

    /// Whether what this is about may have been taken away at the server.
    pub(crate) fn breaks(&self, from: u64, to: u64, about: &About<'_>) -> bool {
        let concerns = |span: &Span| {
            let is_on_all = span.hits.is_empty() && !span.fault.single;
            is_on_all || span.hits(about.lock) || about.workers.iter().any(|worker| span.is_on(worker))
        };
        self.spans.iter().any(|span| span.fault.breaks && span.lasts(from, to, about.born) && concerns(span))
    }

    /// Whether places in this lock's queue, or its holder's, may have been taken away just then.
    pub(crate) fn takes_away(&self, from: u64, to: u64, lock: &str) -> bool {
        let about = |span: &Span| span.hits.is_empty() && !span.fault.single || span.hits(lock);
        self.spans.iter().any(|span| span.fault.breaks && span.from <= to && span.to >= from && about(span))
            || self.brings_back(from, to)
    }

    /// Whether keys of any kind may have been taken away in this time.
    pub(crate) fn took_keys(&self, from: u64, to: u64) -> bool {
        self.spans.iter().any(|span| span.fault.breaks && span.from <= to && span.to >= from)
    }

    /// Whether what was gone may be there again.
    pub(crate) fn brings_back(&self, from: u64, to: u64) -> bool {
        let names = ["swap_db", "server_restart_with_data", "server_restart_stale", "clock_forward", "clock_back"];
        self.spans.iter().any(|span| names.contains(&span.fault.name) && span.lasts(from, to, None))
    }

    /// Whether what was gone may live again, since who took over did not know that it was gone.
    pub(crate) fn revives(&self, from: u64, to: u64) -> bool {
        self.brings_back(from, to) || self.promotions.forgot(from, to)
    }

    /// For how many ttls servers may have been silent that took over although no fault was meant to bring that about.
    fn unmeant(&self, from: u64, to: u64) -> f64 {
        let is_meant = |at: u64| self.spans.iter().any(|span| span.fault.elects && (span.from..=span.to).contains(&at));
        let recent = self.promotions.iter().filter(|of| of.since <= to && of.ends().saturating_add(AFTERMATH) >= from);
        if recent.into_iter().any(|of| !is_meant(of.at)) { 2.0 } else { 0.0 }
    }

    /// Whether a server may have forgotten by then what its clock does not bring back.
    pub(crate) fn may_have_forgotten(&self, at: u64) -> bool {
        let clocks = || self.spans.iter().filter(|span| span.fault.clock);
        let by_clock = |loss: &Span| {
            let overlaps = |clock: &Span| clock.from <= loss.to && clock.to >= loss.from;
            let leapt = |clock: &Span| {
                clock.fault.name == "clock_forward"
                    && clock.from <= loss.from
                    && clock.to.saturating_add(STEP) > loss.from
            };
            clocks().any(|clock| overlaps(clock) || leapt(clock))
        };
        let recent = |loss: &&Span| loss.forgets() && loss.from <= at && loss.from.saturating_add(2 * STEP) >= at;
        self.spans.iter().filter(recent).any(by_clock)
    }

    /// The faults that were on this worker or on all.
    pub(crate) fn spans_on<'a>(&'a self, worker: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |span| !span.fault.single || span.on.iter().any(|on| on == worker))
    }

    /// When the machine kept this worker waiting, or all.
    pub(crate) fn stalls<'a>(&'a self, worker: &'a str) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.stalls.iter().filter(move |(who, ..)| who == worker || who == MACHINE).map(|(_, from, to)| (*from, *to))
    }

    fn stalled(&self, worker: &str, from: u64, to: u64) -> u64 {
        covered(self.stalls(worker).collect(), from, to)
    }

    /// For how long, from then to then, a fault or the machine may have kept all from going on.
    pub(crate) fn disturbed(&self, from: u64, to: u64) -> u64 {
        let disturbs = |fault: &Fault| fault.silence > 0.0 || fault.breaks || fault.cuts || fault.kills();
        let spans = self.spans.iter().filter(|span| disturbs(span.fault));
        let spans = spans.map(|span| (span.from, span.to.saturating_add(AFTERMATH)));
        let spans = spans.chain(self.promotions.iter().map(|of| (of.since, of.ends().saturating_add(AFTERMATH))));
        covered(spans.chain(self.stalls.iter().map(|(_, from, to)| (*from, *to))).collect(), from, to)
    }
}

/// How much of the time from then to then these spans cover together.
fn covered(mut spans: Vec<(u64, u64)>, from: u64, to: u64) -> u64 {
    spans.sort_unstable();
    let (mut sum, mut until) = (0, from);
    for (begins, ends) in spans {
        let (begins, ends) = (begins.max(until), ends.min(to));
        sum += ends.saturating_sub(begins);
        until = until.max(ends);
    }
    sum
}
