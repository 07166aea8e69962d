//! What must be true of every history. Pure: lines in, violations out.

#[path = "leaks.rs"]
mod leaks;
#[path = "locks.rs"]
mod locks;
#[path = "order.rs"]
mod order;
#[path = "prompt.rs"]
mod prompt;
#[path = "streams.rs"]
mod streams;

use std::collections::HashSet;

use crate::faults::{Faults, TTL};
use crate::history::{Line, What};

/// How long the owned set of a session that is over may stay where nobody finds it: 4 x ttl for each ten members, of whom
/// there are sixteen with all guests; and one heartbeat, by which the index of leases may be lost before the session is.
const STAY: u64 = 4 * TTL * 16 / 10 + TTL / 3;

pub(crate) use locks::{held_again, lost_updates};

pub(crate) fn all(lines: &[Line]) -> Vec<String> {
    let faults = Faults::of(lines);
    let checkers: [(&str, Vec<String>); 19] = [
        ("no panic", no_panic(lines)),
        ("fold", streams::fold(lines)),
        ("cache", streams::cache(lines)),
        ("incarnation returns", streams::returns(lines, &faults)),
        ("false leave", false_leaves(lines, &faults)),
        ("convergence", convergence(lines)),
        ("promptness", prompt::prompt(lines, &faults)),
        ("one valid holder", locks::one_valid_holder(lines, &faults)),
        ("once lost, always lost", locks::lost_for_good(lines)),
        ("barging", order::barging(lines, &faults)),
        ("idle lock", order::idle(lines, &faults)),
        ("dead grant", order::dead_grant(lines, &faults)),
        ("no second life", order::revived(lines, &faults)),
        ("rising tokens", locks::rising_tokens(lines, &faults)),
        ("first come, first served", locks::first_come(lines, &faults)),
        ("fenced register", locks::fenced_register(lines)),
        ("bounded wait", locks::bounded_wait(lines, &faults)),
        ("nothing without an owner", orphans(lines, &faults)),
        ("nothing leaks", leaks::leaks(lines)),
    ];
    let named = |(name, found): (&str, Vec<String>)| {
        found.into_iter().map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
    };
    checkers.into_iter().flat_map(named).collect()
}

/// The worker a member belongs to.
fn owner(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

/// Nobody is told that a worker's member is gone by itself while its heartbeats got through.
pub(crate) fn false_leaves(lines: &[Line], faults: &Faults) -> Vec<String> {
    let is_leave = |cause: &str| !matches!(cause, "left" | "replaced");
    // Who dozes is told late, when the excuse is over.
    let awake = lines.iter().filter(|line| !line.who.contains('.'));
    let leaves = awake.filter_map(|line| match &line.what {
        What::Left { id, incarnation, cause } => Some((line, id, incarnation, cause)),
        _ => None,
    });
    let mut seen = HashSet::new();
    // Who was cut off itself is told of it late, and perhaps of its session's end instead of its leave: what counts is
    // when the first was told.
    let first = leaves.filter(|(_, id, incarnation, _)| seen.insert(((*id).clone(), **incarnation)));
    first
        .filter(|(_, _, _, cause)| is_leave(cause))
        .filter(|(line, id, incarnation, _)| !faults.excuse(owner(id), line.at, line.at, Some(**incarnation)))
        .map(|(line, id, incarnation, cause)| {
            format!("{} was told at {} that {id}@{incarnation} {cause}", line.who, line.at)
        })
        .collect()
}

/// In every quiet window each watcher comes to what the server has.
fn convergence(lines: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines {
        if let What::NotConverged { truth, views } = &line.what {
            for (who, view) in views.iter().filter(|(_, view)| *view != truth) {
                let missing: Vec<_> = truth.iter().filter(|(id, at)| view.get(*id) != Some(at)).collect();
                let surplus: Vec<_> = view.iter().filter(|(id, at)| truth.get(*id) != Some(at)).collect();
                found.push(format!("{who} at {}: does not know {missing:?}, and believes in {surplus:?}", line.at));
            }
            if views.values().all(|view| view == truth) {
                found.push(format!(
                    "only {:?} were members, and {} answered at {}",
                    truth.keys(),
                    views.len(),
                    line.at
                ));
            }
        }
    }
    found
}

/// No worker panics, or ends by itself.
fn no_panic(lines: &[Line]) -> Vec<String> {
    let of = |line: &Line| match &line.what {
        What::Panicked { message } => Some(format!("{} at {}: {message}", line.who, line.at)),
        What::Died { status } => Some(format!("{} had ended by {}: {status}", line.who, line.at)),
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

fn orphans(lines: &[Line], faults: &Faults) -> Vec<String> {
    let of = |line: &Line| {
        let What::Orphans { keys } = &line.what else { return None };
        // Where the index of leases was lost, what a session owned is found by nobody, and ends by its own ttl.
        let is_lost = faults.took_keys(line.at.saturating_sub(STAY), line.at);
        let keys: Vec<_> = keys.iter().filter(|key| !(is_lost && key.starts_with("owned/"))).collect();
        (!keys.is_empty()).then(|| format!("at {}: {keys:?}", line.at))
    };
    lines.iter().filter_map(of).collect()
}
