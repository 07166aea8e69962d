//! What must be true of who holds and who waits, as the server itself showed it: scripts change it at one instant, so
//! what is seen between two of them needs next to no excuse.

use std::collections::HashMap;

use crate::faults::{About, Faults};
use crate::history::{Line, Place, Standing, What};

/// What was seen of a lock, and when.
type Sample<'a> = (u64, &'a Standing);

/// Two samples of one lock, one after the other: where they are of two servers, the second knew what the first had.
fn pairs<'a>(lines: &'a [Line], faults: &Faults) -> Vec<(Sample<'a>, Sample<'a>)> {
    let (mut last, mut found): (HashMap<&str, (u16, u64, Sample<'_>)>, Vec<_>) = Default::default();
    for line in lines {
        let What::Order { server, revision, locks } = &line.what else { continue };
        for now in locks {
            let now = (line.at, now);
            let Some((other, then, before)) = last.insert(&now.1.lock, (*server, *revision, now)) else { continue };
            if other == *server || !faults.promotions.forgot_between(then, before.0, now.0) {
                found.push((before, now));
            }
        }
    }
    found
}

fn is(one: &Place, other: &Place) -> bool {
    one.session == other.session && one.attempt == other.attempt
}

/// Nobody came to hold a lock while somebody who had been before it, and lives, still stands in the queue.
pub(super) fn barging(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut found = Vec::new();
    for ((since, before), (at, now)) in pairs(lines, faults) {
        let Some(holder) = &now.holder else { continue };
        if holder.session.is_empty() || before.token == now.token || faults.takes_away(since, at, &now.lock) {
            continue;
        }
        let place = before.waiters.iter().position(|waiter| is(waiter, holder)).unwrap_or(before.waiters.len());
        let stands = |waiter: &&Place| {
            waiter.alive && now.waiters.iter().any(|still| still.alive && is(still, waiter)) && !is(waiter, holder)
        };
        if let Some(passed) = before.waiters[..place].iter().find(stands) {
            let (lock, holder, passed) = (&now.lock, &holder.attempt, &passed.attempt);
            found.push(format!("{lock} at {at}: {holder} holds it, and {passed}, who was before it, still waits"));
        }
    }
    found
}

/// No lock is nobody's while somebody who lives waits for it.
pub(super) fn idle(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut found = Vec::new();
    for ((since, before), (at, now)) in pairs(lines, faults) {
        let waits = |sample: &Standing, of: &Place| sample.waiters.iter().any(|waiter| waiter.alive && is(waiter, of));
        let idle = before.holder.is_none() && now.holder.is_none();
        let Some(waiter) = before.waiters.iter().find(|of| waits(before, of) && waits(now, of)) else { continue };
        let about = About { workers: &[], lock: &now.lock, born: None };
        if idle && !faults.breaks(since, at, &about) && !faults.brings_back(since, at) {
            found.push(format!("{} at {at}: nobody holds it, and {} waits", now.lock, waiter.attempt));
        }
    }
    found
}

/// Nobody is made a holder who had been seen dead before.
pub(super) fn dead_grant(lines: &[Line], faults: &Faults) -> Vec<String> {
    // The revision when each session was first seen to be dead, and when that was.
    let mut dead: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut found: HashMap<(&str, u64), String> = HashMap::new();
    for line in lines {
        let What::Order { revision, locks, .. } = &line.what else { continue };
        // The key of the revision may have been taken away. Who is seen to hold was granted before, in any case.
        let revision = locks.iter().map(|sample| sample.token).fold(*revision, u64::max);
        for sample in locks {
            for place in sample.holder.iter().chain(&sample.waiters).filter(|place| !place.session.is_empty()) {
                if place.alive {
                    dead.remove(place.session.as_str());
                } else {
                    dead.entry(&place.session).or_insert((revision, line.at));
                }
            }
            let Some(holder) = sample.holder.as_ref().filter(|holder| !holder.alive) else { continue };
            let Some((then, since)) = dead.get(holder.session.as_str()) else { continue };
            if sample.token > *then && !faults.revives(*since, line.at) {
                let (lock, who) = (&sample.lock, &holder.attempt);
                let text =
                    format!("{lock} at {}: {who} holds it by {}, and was dead at {since}", line.at, sample.token);
                found.entry((lock, sample.token)).or_insert(text);
            }
        }
    }
    found.into_values().collect()
}

/// No session that was seen dead lives again: a lease that has run out is not made anew.
pub(super) fn revived(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut dead: HashMap<&str, u64> = HashMap::new();
    let mut found = Vec::new();
    for line in lines {
        let What::Order { locks, .. } = &line.what else { continue };
        let places = locks.iter().flat_map(|sample| sample.holder.iter().chain(&sample.waiters));
        for place in places.filter(|place| !place.session.is_empty()) {
            if !place.alive {
                dead.entry(&place.session).or_insert(line.at);
            } else if let Some(since) = dead.remove(place.session.as_str())
                && !faults.revives(since, line.at)
            {
                let (session, who) = (&place.session, &place.attempt);
                found.push(format!("{session} of {who} lives at {}, and was dead at {since}", line.at));
            }
        }
    }
    found
}
