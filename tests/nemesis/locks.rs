//! What must be true of locks, their tokens, their queues, and of what they guard.

use std::collections::{HashMap, HashSet};

use super::owner;
use crate::faults::{About, Faults, TTL};
use crate::history::{Line, Place, Standing, What};

const MS: u64 = 1000;
/// How long a waiter may wait while others hold a lock for moments only, and nothing is broken.
const LONGEST_WAIT: u64 = 10_000 * MS;
/// How long one attempt goes on at the most.
const LONGEST: u64 = 30_000 * MS;

/// Whoever says that a guard is held, no later one of that lock had been granted by then: as its acquirer was told, or as
/// the server was seen to say.
pub(super) fn one_valid_holder<'a>(lines: &'a [Line], faults: &Faults) -> Vec<String> {
    // When each was granted, the highest token until then, and its own.
    let mut granted: HashMap<&str, Vec<(u64, u64, u64)>> = HashMap::new();
    for line in lines {
        let mut grant = |lock: &'a str, token: u64| {
            let of = granted.entry(lock).or_default();
            let highest = of.last().map_or(0, |(_, highest, _)| *highest).max(token);
            of.push((line.at, highest, token));
        };
        match &line.what {
            What::Granted { lock, token, .. } => grant(lock, *token),
            What::Order { locks, .. } => {
                let held = locks.iter().filter(|lock| lock.holder.is_some());
                held.for_each(|standing| grant(&standing.lock, standing.token));
            }
            _ => {}
        }
    }
    // When each was granted first.
    let mut first: HashMap<(&str, u64), u64> = HashMap::new();
    for (lock, of) in &granted {
        for (at, _, token) in of {
            first.entry((lock, *token)).or_insert(*at);
        }
    }
    // When each was said to be held for the last time.
    let mut last: HashMap<(&str, u64), u64> = HashMap::new();
    for line in lines {
        if let What::Said { lock, token, before, held: true, .. } = &line.what {
            last.insert((lock, *token), *before);
        }
    }
    let mut found = Vec::new();
    for line in lines {
        let What::Said { lock, token, before, held: true, .. } = &line.what else { continue };
        let (of, worker) = (&granted[lock.as_str()], line.who.as_str());
        let own = first.get(&(lock.as_str(), *token)).copied().unwrap_or(line.at);
        let about = About { workers: &[worker], lock, born: Some(*token) };
        let is_later = |(at, _, later): &&(u64, u64, u64)| {
            // Of two servers with two clocks, the one that knew less may give the lower token later.
            let came_before = || faults.promotions.may_fall_back(*later, *token, own);
            // Once one has been told that it is replaced, only what the other has granted is held.
            let by_two = || {
                faults.promotions.two_served(*at).is_some_and(|end| {
                    *before <= end || last.get(&(lock.as_str(), *later)).is_none_or(|said| *said <= end)
                })
            };
            later > token && !came_before() && !by_two() && !faults.breaks(*at, *before, &about)
        };
        let since = &of[of.partition_point(|(_, highest, _)| highest <= token)..];
        if let Some((at, _, later)) = since.iter().take_while(|(at, ..)| at < before).find(is_later) {
            found.push(format!("{worker} held {lock} under {token} at {before}, and {later} was granted at {at}"));
        }
    }
    found
}

/// What was asked for after a grant had been answered is granted under a higher token.
pub(super) fn rising_tokens(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut asked: HashMap<&str, u64> = HashMap::new();
    let mut highest: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    let mut found = Vec::new();
    for line in lines {
        match &line.what {
            What::Asked { attempt, .. } => drop(asked.insert(attempt, line.at)),
            What::Granted { lock, attempt, token } => {
                let since = asked.get(attempt.as_str()).copied().unwrap_or(line.at);
                let before = highest.entry(lock).or_default();
                let answered = before.partition_point(|(at, _)| *at < since);
                let most = before[..answered].last().map_or(0, |(_, most)| *most);
                // A server that has lost its data while its clock is behind what it was cannot know.
                let may_be_forgotten =
                    faults.may_have_forgotten(line.at) || faults.promotions.may_fall_back(most, *token, line.at);
                if most >= *token && !may_be_forgotten {
                    found.push(format!("{lock} was granted under {token} at {}, after {most}", line.at));
                }
                let most = before.last().map_or(0, |(_, most)| *most).max(*token);
                before.push((line.at, most));
            }
            _ => {}
        }
    }
    found
}

/// Of two that were seen in one queue, the one in front was granted first, unless its place was lost.
pub(super) fn first_come(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut tokens: HashMap<&str, (u64, u64, &str)> = HashMap::new();
    let mut places: HashMap<&str, HashSet<&str>> = HashMap::new();
    // When they were first seen so, and at which revision.
    let mut pairs: HashMap<(&str, &str), (u64, u64)> = HashMap::new();
    for line in lines {
        match &line.what {
            What::Granted { attempt, token, lock } => drop(tokens.insert(attempt, (*token, line.at, lock))),
            What::Order { revision, locks, .. } => {
                for Standing { waiters, .. } in locks.iter().filter(|lock| lock.waiters.len() > 1) {
                    for Place { session, attempt, .. } in waiters {
                        places.entry(attempt).or_default().insert(session);
                    }
                    for pair in waiters.windows(2) {
                        let pair = (pair[0].attempt.as_str(), pair[1].attempt.as_str());
                        pairs.entry(pair).or_insert((line.at, *revision));
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for ((front, back), (seen, revision)) in pairs {
        let (Some((first, ..)), Some((second, at, lock))) = (tokens.get(front), tokens.get(back)) else { continue };
        let moved = [front, back].iter().any(|attempt| places[attempt].len() > 1);
        let since = at.saturating_sub(LONGEST);
        // Whose lease ends while it waits, or just after it was granted, has lost its place.
        let may_have_died = faults.excuse(owner(front), since, *at, None);
        let about = About { workers: &[owner(front), owner(back)], lock, born: None };
        let was_forgotten = faults.promotions.forgot_between(revision, seen, *at);
        if first > second && !moved && !was_forgotten && !may_have_died && !faults.breaks(since, *at, &about) {
            found.push(format!("{back} was granted under {second}, before {front} under {first}, who was in front"));
        }
    }
    found
}

/// What the fence let through are turns: no update of the fenced register is lost.
pub(super) fn fenced_register(lines: &[Line]) -> Vec<String> {
    let lost = lines.iter().filter_map(|line| match &line.what {
        What::Judged { lock, token, stored: true, accepted: true } => Some((lock, token)),
        _ => None,
    });
    let mut count: HashMap<&str, u64> = HashMap::new();
    lost.for_each(|(lock, _)| *count.entry(lock).or_default() += 1);
    let mut value: HashMap<&str, u64> = HashMap::new();
    let mut asked: HashMap<(&str, u64), u64> = HashMap::new();
    for line in lines {
        match &line.what {
            What::Store { lock, token, fenced, .. } => drop(asked.insert((lock, *token), *fenced)),
            What::Judged { lock, token, stored: true, accepted: true } => {
                if let Some(fenced) = asked.get(&(lock.as_str(), *token)) {
                    value.insert(lock, fenced + 1);
                }
            }
            _ => {}
        }
    }
    let wrong = count.iter().filter(|(lock, count)| value.get(*lock).copied().unwrap_or_default() != **count);
    wrong.map(|(lock, count)| format!("{lock}: {count} accepted writes came to {:?}", value.get(lock))).collect()
}

/// How many updates of the register without a fence were lost.
pub(crate) fn lost_updates(lines: &[Line]) -> u64 {
    let (mut count, mut value): (HashMap<&str, u64>, HashMap<&str, u64>) = Default::default();
    for line in lines {
        if let What::Store { lock, plain, .. } = &line.what {
            *count.entry(lock).or_default() += 1;
            value.insert(lock, plain + 1);
        }
    }
    count.iter().map(|(lock, count)| count.saturating_sub(value.get(lock).copied().unwrap_or_default())).sum()
}

/// Nobody waits without an end, also where no message of a grant arrives.
pub(super) fn bounded_wait(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut waiting: HashMap<&str, (&str, &str, u64)> = HashMap::new();
    let mut found = Vec::new();
    let last = lines.last().map_or(0, |line| line.at);
    // Where no message tells of a grant, the next one finds it when it asks again: at its next reconcile, a ttl later at
    // the most. A lock that nobody gets has no turns.
    let are_lost = |line: &Line| {
        let mut spans = faults.spans_on(&line.who);
        spans.any(|span| span.fault.name == "grants_lost" && (span.from..=span.to).contains(&line.at))
    };
    let turn = |line: &'_ Line| match &line.what {
        What::Granted { lock, .. } if are_lost(line) => Some((lock.clone(), line.at)),
        _ => None,
    };
    let turns: Vec<_> = lines.iter().filter_map(turn).collect();
    let mut judge = |(lock, who): (&str, &str), attempt: &str, since: u64, until: u64| {
        let waited = until - since;
        let passed = turns.iter().filter(|(of, at)| of == lock && (since..until).contains(at)).count() as u64;
        // What a holder's death costs is its lease: only undisturbed time counts.
        if waited - faults.disturbed(since, until) > LONGEST_WAIT + passed * TTL {
            found.push(format!("{who} waited {} ms for {attempt}", waited / MS));
        }
    };
    for line in lines {
        match &line.what {
            What::Asked { lock, attempt } => drop(waiting.insert(attempt, (lock, &line.who, line.at))),
            What::Granted { attempt, .. } | What::GaveUp { attempt, .. } => {
                if let Some((lock, who, since)) = waiting.remove(attempt.as_str()) {
                    judge((lock, who), attempt, since, line.at);
                }
            }
            What::Killed | What::Died { .. } => waiting.retain(|_, (_, who, _)| *who != line.who),
            _ => {}
        }
    }
    for (attempt, (lock, who, since)) in waiting {
        judge((lock, who), attempt, since, last);
    }
    found
}

/// A guard that has said that its lock is lost never says again that it is held.
pub(super) fn lost_for_good(lines: &[Line]) -> Vec<String> {
    let mut lost: HashMap<(&str, u64), u64> = HashMap::new();
    let mut found = Vec::new();
    for line in lines {
        let What::Said { lock, token, held, lost: is_lost, .. } = &line.what else { continue };
        if *is_lost && !held {
            lost.entry((lock, *token)).or_insert(line.at);
        } else if let Some(since) = lost.get(&(lock.as_str(), *token)) {
            found.push(format!("{} did not lose {lock} under {token} at {}, lost at {since}", line.who, line.at));
        }
    }
    found
}

/// How many guards were suspended and held again.
pub(crate) fn held_again(lines: &[Line]) -> u64 {
    let mut suspended: HashSet<(&str, u64)> = HashSet::new();
    let mut count = 0;
    for line in lines {
        match &line.what {
            What::Said { lock, token, held: false, lost: false, .. } => drop(suspended.insert((lock, *token))),
            What::Said { lock, token, held: true, .. } => {
                count += u64::from(suspended.remove(&(lock.as_str(), *token)));
            }
            _ => {}
        }
    }
    count
}
