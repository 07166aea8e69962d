//! What is known to one is known to all: no change waits for the next reconcile.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::owner;
use crate::faults::{Faults, TTL};
use crate::history::{Line, What};
use crate::plan;

const MS: u64 = 1000;
/// How long a change may take to every watcher: far less than the reconcile interval, so that one that only that
/// brings is seen.
const PROMPT: u64 = 1_000 * MS;
/// How much longer it may take who polls, where each answer comes late: it waits for a listing that is under way, the
/// next one, a read that is under way, and its own.
const POLLING: u64 = 800 * MS;
/// How long after a fault it may still have an effect on what is heard.
const AFTER: u64 = 300 * MS;
/// That a source of hints is of no use any more is found at the next reconcile, and then another is tried.
const AFTER_DEAF: u64 = 4_500 * MS;

/// What one watcher was told, in order: for each member when which incarnation was there.
#[derive(Default)]
struct Told<'a> {
    known: HashMap<&'a str, Vec<(u64, Option<u64>)>>,
    /// When something was the matter with it, as from and to.
    troubles: Vec<(u64, u64)>,
    /// When each answer to a watcher that polls came late.
    slow: Vec<(u64, u64)>,
}

impl<'a> Told<'a> {
    fn put(&mut self, id: &'a str, at: u64, incarnation: Option<u64>) {
        let told = self.known.entry(id).or_default();
        if told.last().and_then(|(_, last)| *last) != incarnation {
            told.push((at, incarnation));
        }
    }

    fn at(&self, id: &str, when: u64) -> Option<u64> {
        let told = self.known.get(id)?;
        told[..told.partition_point(|(at, _)| *at <= when)].last()?.1
    }

    /// Whether it had been told by then that this incarnation or a later one is there.
    fn has_heard_of(&self, id: &str, incarnation: u64, until: u64) -> bool {
        let mut told = self.known.get(id).into_iter().flatten().take_while(|(at, _)| *at <= until);
        told.any(|(_, known)| *known >= Some(incarnation))
    }

    /// Until when it may take to hear of what happened then.
    fn deadline(&self, since: u64) -> u64 {
        let first = self.troubles.partition_point(|(_, to)| to.saturating_add(PROMPT) < since);
        let is_slow = self.slow.iter().any(|(from, to)| (*from..=*to).contains(&since));
        let mut deadline = since.saturating_add(if is_slow { PROMPT + POLLING } else { PROMPT });
        for (_, to) in self.troubles[first..].iter().take_while(|(from, _)| *from <= since.saturating_add(PROMPT)) {
            deadline = deadline.max(to.saturating_add(PROMPT));
        }
        deadline
    }

    fn is_troubled(&self, at: u64) -> bool {
        let first = self.troubles.partition_point(|(_, to)| *to < at);
        self.troubles.get(first).is_some_and(|(from, _)| *from <= at)
    }

    fn merge_troubles(&mut self) {
        self.troubles.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in std::mem::take(&mut self.troubles) {
            match merged.last_mut() {
                Some((_, last)) if from <= last.saturating_add(PROMPT) => *last = to.max(*last),
                _ => merged.push((from, to)),
            }
        }
        self.troubles = merged;
    }
}

pub(super) fn prompt(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut watchers: BTreeMap<&str, Told> = BTreeMap::new();
    let mut dead: HashMap<&str, u64> = HashMap::new();
    let mut happened: Vec<(u64, &str, &str, u64, bool)> = Vec::new();
    for line in lines.iter().filter(|line| !line.who.contains('.')) {
        let (who, at) = (line.who.as_str(), line.at);
        let mut told = |id, incarnation| watchers.entry(who).or_default().put(id, at, incarnation);
        match &line.what {
            What::Joined { id, incarnation } => {
                told(id, Some(*incarnation));
                happened.push((at, who, id, *incarnation, true));
            }
            What::Left { id, incarnation, .. } => {
                told(id, None);
                happened.push((at, who, id, *incarnation, false));
            }
            What::Snapshot { members } => {
                let known = watchers.entry(who).or_default();
                let gone: Vec<_> = known.known.keys().copied().filter(|id| !members.contains_key(*id)).collect();
                gone.into_iter().for_each(|id| known.put(id, at, None));
                members.iter().for_each(|(id, incarnation)| known.put(id, at, Some(*incarnation)));
            }
            // Dead, or without a link, from then until it is connected.
            What::Killed | What::Died { .. } => {
                dead.entry(who).or_insert(at);
            }
            What::State { state } if state != "connected" => {
                dead.entry(who).or_insert(at);
            }
            What::Started | What::State { .. } => {
                let since = dead.remove(who).unwrap_or(at);
                watchers.entry(who).or_default().troubles.push((since, at + AFTER));
            }
            _ => {}
        }
    }
    for (who, since) in dead {
        watchers.entry(who).or_default().troubles.push((since, u64::MAX));
    }
    for (who, told) in &mut watchers {
        // A slow way is no excuse: all that goes over it comes in time.
        for span in faults.spans_on(who).filter(|span| !span.fault.is_prompt()) {
            let after = match span.fault.name {
                name if name.starts_with("flags") => AFTER_DEAF,
                "blackhole_events" => AFTER_DEAF,
                // A server tells nobody of it: only the next reconcile does.
                "flush_all" | "flush_db" | "swap_db" => TTL + AFTER,
                _ => AFTER,
            };
            told.troubles.push((span.from, span.to.saturating_add(after)));
        }
        if plan::source(who) == "poll" {
            let slow = faults.spans_on(who).filter(|span| span.fault.name == "delay_answers");
            told.slow.extend(slow.map(|span| (span.from, span.to)));
        }
        // One watcher may be at the server before still, which tells what another does not know.
        told.troubles.extend(faults.promotions.iter().map(|of| (of.since, of.ends().saturating_add(AFTER))));
        told.troubles.extend(faults.stalls(who).map(|(from, to)| (from, to + AFTER)));
        told.merge_troubles();
    }
    let end = lines.last().map_or(0, |line| line.at);
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    for (at, who, id, incarnation, joined) in happened {
        // What somebody in trouble believes, or a holder of itself, need not be what the server has.
        if who == owner(id) || watchers[who].is_troubled(at) || !seen.insert((id, incarnation, joined)) {
            continue;
        }
        for (watcher, told) in &watchers {
            let deadline = told.deadline(at);
            if deadline >= end {
                continue;
            }
            let is_late = if joined {
                let has_heard = |told: &Told| told.has_heard_of(id, incarnation, deadline);
                let knows_the_end = |told: &Told| has_heard(told) && told.at(id, deadline) != Some(incarnation);
                !has_heard(told) && !watchers.values().any(knows_the_end)
            } else {
                told.at(id, deadline) == Some(incarnation)
            };
            if is_late {
                let what = if joined { "joined" } else { "left" };
                found.push(format!(
                    "{watcher} did not know by {deadline} that {id}@{incarnation} had {what}, which {who} was told at {at}"
                ));
            }
        }
    }
    found
}
