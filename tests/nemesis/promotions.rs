//! When another server took over, and what that may have undone: what was written after the last that it knew, and
//! nothing else.

use crate::faults::AFTERMATH;
use crate::history::{Line, Was, What};

const MS: u64 = 1000;
/// How much later than it was so the nemesis sees who serves, and a client tells what it was answered.
const SEEN: u64 = 100 * MS;
/// How long after a server has been deposed its clients may still believe what it said: by then their connections have
/// been closed for half of the grace.
const SETTLE: u64 = 500 * MS;

/// A replica that began to serve.
#[derive(Debug)]
pub(crate) struct Promotion {
    server: u16,
    pub(crate) at: u64,
    /// Until when clients may have been at another server that served, too.
    until: u64,
    /// The last time when it was seen to know everything.
    pub(crate) since: u64,
    /// How far the order of incarnations and tokens had come at it.
    known: u64,
    /// By how much its clock is behind.
    behind: u64,
}

impl Promotion {
    /// From when on only one server serves.
    pub(crate) fn ends(&self) -> u64 {
        self.until
    }
}

pub(crate) struct Promotions(Vec<Promotion>);

impl Promotions {
    pub(crate) fn of(lines: &[Line]) -> Self {
        let (mut found, mut serving, mut seen): (Vec<Promotion>, Vec<u16>, Vec<(u64, u64)>) = Default::default();
        // Who is the primary by the word of the sentinels, and whether clients cannot hear them.
        let (mut named, mut is_unheard) = (None, false);
        for line in lines {
            match &line.what {
                What::Order { revision, .. } => seen.push((line.at, *revision)),
                What::Fault { fault, .. } => is_unheard |= fault == "partition",
                What::Healed { fault, .. } => is_unheard &= fault != "partition",
                What::Serves { server, was } => {
                    serving.push(*server);
                    if let Was::Replica { known, behind } = was {
                        let (server, at, known, behind) = (*server, line.at, *known, *behind);
                        let complete = seen.iter().rev().find(|(_, revision)| *revision <= known);
                        let since = complete.map_or(0, |(at, _)| *at);
                        found.push(Promotion { server, at, until: u64::MAX, since, known, behind });
                    }
                }
                What::Deposed { server } => serving.retain(|other| other != server),
                What::Named { server } => named = Some(*server),
                _ => continue,
            }
            let told = found.iter().rposition(|of| Some(of.server) == named).map_or(0, |told| told + 1);
            // The sentinels tell of it later: who comes back before that is taken for the primary still. In a cluster the
            // servers tell each other, and a slot moves with all that is in it.
            if matches!(&line.what, What::Serves { was: Was::Away, .. }) && named.is_some() {
                found.iter_mut().skip(told).for_each(|of| of.until = u64::MAX);
            }
            let told = if is_unheard { 0 } else { told };
            let is_over = |at: usize| at < told || serving.len() < 2;
            for (at, of) in found.iter_mut().enumerate().filter(|(_, of)| of.until == u64::MAX) {
                if is_over(at) {
                    of.until = line.at;
                }
            }
        }
        Self(found)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Promotion> {
        self.0.iter()
    }

    /// Until when two servers served that both did so then: what one grants, the other does not know.
    pub(crate) fn two_served(&self, then: u64) -> Option<u64> {
        let ends = self.0.iter().filter(|of| of.at <= then + SEEN).map(|of| of.until.saturating_add(SETTLE));
        ends.filter(|end| then <= *end).max()
    }

    /// Whether what happened then may not have happened for who took over by that time.
    pub(crate) fn forgot(&self, then: u64, by: u64) -> bool {
        let undoes = |of: &&Promotion| of.at <= by + SEEN && then <= of.ends().saturating_add(SETTLE);
        // A clock that is behind lets live for longer.
        self.0.iter().filter(undoes).any(|of| then + of.behind >= of.since)
    }

    /// Whether a life or a grant of this number may have been forgotten by then.
    pub(crate) fn forgot_number(&self, number: u64, by: u64) -> bool {
        self.0.iter().any(|of| number > of.known && of.since <= by && by <= of.ends().saturating_add(AFTERMATH))
    }

    /// Whether what was seen at this revision at one server need not be so at the one that was asked next.
    pub(crate) fn forgot_between(&self, revision: u64, from: u64, to: u64) -> bool {
        self.0.iter().any(|of| from <= of.at + SEEN && of.at <= to + SEEN && revision >= of.known)
    }

    /// Whether a server that had forgotten this token may give the other one, since its clock is behind by so much.
    pub(crate) fn may_fall_back(&self, token: u64, to: u64, at: u64) -> bool {
        let behind = |of: &&Promotion| of.behind > 0 && token > of.known && token - to.min(token) <= of.behind;
        self.0.iter().filter(behind).any(|of| of.at <= at + SEEN && at <= of.ends().saturating_add(of.behind + SETTLE))
    }
}
