//! The checkers of the nemesis, each by a history that is fine and by one that is not: who judges is judged too.

#[path = "../nemesis/checkers.rs"]
mod checkers;
#[path = "../nemesis/faults.rs"]
mod faults;
#[expect(dead_code, reason = "only its lines are used here")]
#[path = "../nemesis/history.rs"]
mod history;
#[path = "../nemesis/plan.rs"]
mod plan;
#[path = "../nemesis/promotions.rs"]
mod promotions;

mod excuses;
mod leaks;
mod locks;
mod members;
mod promoted;

use std::collections::BTreeMap;

use history::{Line, Place, Standing, What};

const S: u64 = 1_000_000;
const MS: u64 = 1000;

fn line(at: u64, who: &str, what: What) -> Line {
    Line { at, who: who.into(), what }
}

fn members(members: &[(&str, u64)]) -> BTreeMap<String, u64> {
    members.iter().map(|(id, incarnation)| ((*id).to_owned(), *incarnation)).collect()
}

fn snapshot(of: &[(&str, u64)]) -> What {
    What::Snapshot { members: members(of) }
}

fn joined(id: &str, incarnation: u64) -> What {
    What::Joined { id: id.into(), incarnation }
}

fn updated(id: &str, incarnation: u64) -> What {
    What::Updated { id: id.into(), incarnation }
}

fn left(id: &str, incarnation: u64, cause: &str) -> What {
    What::Left { id: id.into(), incarnation, cause: cause.into() }
}

fn asked(attempt: &str) -> What {
    What::Asked { lock: "lock".into(), attempt: attempt.into() }
}

fn granted(attempt: &str, token: u64) -> What {
    What::Granted { lock: "lock".into(), attempt: attempt.into(), token }
}

fn said(token: u64, before: u64, held: bool) -> What {
    What::Said { lock: "lock".into(), token, before, held, lost: false }
}

fn place((session, attempt, alive): (&str, &str, bool)) -> Place {
    Place { session: session.into(), attempt: attempt.into(), alive }
}

/// How a lock stood: the revision, the token and the holder, and who waited.
fn order(revision: u64, held: Option<(u64, (&str, &str, bool))>, waiters: &[(&str, &str, bool)]) -> What {
    let (token, holder) = held.map_or((0, None), |(token, holder)| (token, Some(place(holder))));
    let waiters = waiters.iter().copied().map(place).collect();
    What::Order { server: 1, revision, locks: vec![Standing { lock: "lock".into(), token, holder, waiters }] }
}

fn queue(waiters: &[(&str, &str)]) -> What {
    let waiters: Vec<_> = waiters.iter().map(|(session, attempt)| (*session, *attempt, true)).collect();
    order(1, Some((1, ("x", "x", true))), &waiters)
}

fn fault(at: u64, fault: &str, on: &[&str]) -> Line {
    line(at, "nemesis", What::Fault { fault: fault.into(), on: on.iter().map(|on| (*on).into()).collect() })
}

fn healed(at: u64, fault: &str, on: &[&str]) -> Line {
    let on = on.iter().map(|on| (*on).into()).collect();
    line(at, "nemesis", What::Healed { fault: fault.into(), on, effective: true, stamp: None })
}

/// Which checkers found something, and how often.
fn found(lines: &[Line]) -> BTreeMap<String, usize> {
    let mut lines = lines.to_vec();
    lines.sort_by_key(|line| line.at);
    let mut found = BTreeMap::new();
    for violation in checkers::all(&lines) {
        *found.entry(violation.split(": ").next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    found
}

#[track_caller]
fn good(lines: &[Line]) {
    assert_eq!(found(lines), BTreeMap::new());
}

#[track_caller]
fn bad(checker: &str, lines: &[Line]) {
    assert_eq!(found(lines).into_iter().collect::<Vec<_>>(), [(checker.to_owned(), 1)]);
}

fn stream(whats: &[What]) -> Vec<Line> {
    (1..).zip(whats).map(|(at, what)| line(at, "w0", what.clone())).collect()
}
