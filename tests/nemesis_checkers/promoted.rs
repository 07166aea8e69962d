//! What a promotion may undo, and what it may not.

use crate::history::{Line, Was, What};
use crate::{MS, S, asked, bad, fault, good, granted, healed, joined, left, line, order, said, snapshot};

fn serves(at: u64, server: u16, known: Option<u64>, behind: u64) -> Line {
    let was = known.map_or(Was::Away, |known| Was::Replica { known, behind });
    line(at, "nemesis", What::Serves { server, was })
}

fn deposed(at: u64, server: u16) -> Line {
    line(at, "nemesis", What::Deposed { server })
}

fn named(at: u64, server: u16) -> Line {
    line(at, "nemesis", What::Named { server })
}

/// The first server is replaced by the second, which knows what was up to this number.
fn replaced(known: u64) -> Vec<Line> {
    let meant = [fault(4 * S, "primary_killed", &[]), healed(7 * S, "primary_killed", &[])];
    [vec![serves(0, 1, None, 0), deposed(5 * S, 1), serves(6 * S, 2, Some(known), 0)], meant.to_vec()].concat()
}

#[test]
fn two_hold_only_while_two_serve() {
    // The second holds until then.
    let turns_until = |granted_at: u64, before: u64, until: u64| {
        vec![
            line(S, "w0", granted("a", 1)),
            line(granted_at, "w1", granted("b", 9)),
            line(before, "w0", said(1, before, true)),
            line(until, "w1", said(9, until, true)),
        ]
    };
    let turns = |granted_at: u64, before: u64| turns_until(granted_at, before, before + MS);
    let parted = |until: Line| vec![serves(0, 1, None, 0), serves(6 * S, 2, Some(5), 0), until];
    good(&[turns(7 * S, 8 * S), parted(deposed(9 * S, 1))].concat());
    bad("one valid holder", &[turns(7 * S, 8 * S), parted(deposed(7 * S, 1))].concat());
    // Who was granted it by the server that is replaced has given it up in time: the other holds it rightly.
    good(&[turns_until(7 * S, 8 * S, 7 * S + 400 * MS), parted(deposed(7 * S, 1))].concat());
    bad("one valid holder", &[turns(5 * S, 8 * S), parted(deposed(9 * S, 1))].concat());
    // The first was dead by then.
    bad("one valid holder", &[turns(7 * S, 8 * S), replaced(5)].concat());
    // Whoever hears the sentinels knows which of the two it is.
    let told = |at: u64| [parted(deposed(20 * S, 1)), vec![named(0, 1), named(at, 2)]].concat();
    good(&[turns(7 * S, 8 * S), told(8 * S)].concat());
    bad("one valid holder", &[turns(7 * S, 8 * S), told(7 * S)].concat());
    let unheard = [fault(6 * S, "partition", &[]), healed(20 * S, "partition", &[])];
    good(&[turns(7 * S, 8 * S), told(7 * S), unheard.to_vec()].concat());
}

#[test]
fn who_comes_back_empty_serves_too_until_the_sentinels_have_told() {
    let turns = [
        line(S, "w0", granted("a", 1)),
        line(7 * S, "w1", granted("b", 9)),
        line(8 * S, "w0", said(1, 8 * S, true)),
        line(9 * S, "w1", said(9, 9 * S, true)),
    ];
    let back = |told: u64| {
        let back = [serves(6 * S + 500 * MS, 1, None, 0), named(0, 1), named(told, 2)];
        [turns.to_vec(), replaced(5), back.to_vec()].concat()
    };
    good(&back(8 * S));
    bad("one valid holder", &back(6 * S + 100 * MS));
}

#[test]
fn a_leave_that_was_not_known_is_forgotten() {
    let came_back = |left_at: u64| {
        vec![
            line(0, "w0", snapshot(&[("w1.guest", 1)])),
            line(S, "nemesis", order(4, None, &[])),
            line(3 * S, "nemesis", order(5, None, &[])),
            line(3 * S + MS, "nemesis", order(6, None, &[])),
            line(left_at, "w0", left("w1.guest", 1, "left")),
            line(7 * S, "w0", joined("w1.guest", 1)),
        ]
    };
    good(&[came_back(4 * S), replaced(5)].concat());
    bad("incarnation returns", &[came_back(2 * S), replaced(5)].concat());
    bad("incarnation returns", &came_back(4 * S));
}

#[test]
fn places_that_were_known_are_kept() {
    let samples = |first: u64| {
        let waiting = |at: u64, server: u16, revision: u64, token: u64, holder, waiters: &[(&str, &str, bool)]| {
            let What::Order { locks, .. } = order(revision, Some((token, holder)), waiters) else { unreachable!() };
            line(at, "nemesis", What::Order { server, revision, locks })
        };
        let (a, b) = (("a", "w1.a", true), ("b", "w2.b", true));
        vec![waiting(4 * S, 1, first, 1, ("h", "w0.h", true), &[a, b]), waiting(7 * S, 2, 7, 7, b, &[a])]
    };
    good(&[samples(5), replaced(5)].concat());
    bad("barging", &[samples(4), replaced(5)].concat());
}

#[test]
fn tokens_fall_back_by_no_more_than_a_clock_that_is_behind() {
    let turns = |token: u64| {
        vec![
            line(S, "w0", asked("a")),
            line(2 * S, "w0", granted("a", 900)),
            line(6 * S + 1, "w1", asked("b")),
            line(6 * S + 2, "w1", granted("b", token)),
        ]
    };
    let taken =
        |known: u64, behind: u64| vec![serves(0, 1, None, 0), deposed(6 * S, 1), serves(6 * S, 2, Some(known), behind)];
    good(&[turns(850), taken(800, 100)].concat());
    bad("rising tokens", &[turns(750), taken(800, 100)].concat());
    // It knew that one.
    bad("rising tokens", &[turns(850), taken(900, 100)].concat());
    bad("rising tokens", &[turns(850), taken(800, 0)].concat());
    // The one that fell back is the holder, and not the one that was forgotten.
    let holds = |token: u64| [turns(token), vec![line(8 * S, "w1", said(token, 8 * S, true))]].concat();
    good(&[holds(850), taken(800, 100)].concat());
    let later = vec![line(7 * S, "w2", asked("c")), line(7 * S, "w2", granted("c", 951))];
    bad("one valid holder", &[holds(850), taken(800, 100), later].concat());
}

#[test]
fn a_life_that_was_not_known_ends_and_any_other_goes_on() {
    let told = |incarnation: u64| {
        vec![line(0, "w0", snapshot(&[("w1", incarnation)])), line(6 * S, "w0", left("w1", incarnation, "expired"))]
    };
    let in_step = [fault(5 * S, "failover_in_step", &[]), healed(7 * S, "failover_in_step", &[])];
    let taken = [serves(0, 1, None, 0), deposed(6 * S, 1), serves(6 * S, 2, Some(5), 0)];
    good(&[told(6), taken.to_vec(), in_step.to_vec()].concat());
    bad("false leave", &[told(5), taken.to_vec(), in_step.to_vec()].concat());
    // One that nobody has brought about is as a server that is silent.
    good(&[told(5), taken.to_vec()].concat());
}
