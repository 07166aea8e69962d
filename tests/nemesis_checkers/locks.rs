//! Who holds a lock, who waits for it, and in which order they come.

use crate::history::What;
use crate::{MS, S, asked, bad, checkers, fault, good, granted, healed, line, order, queue, said};

#[test]
fn who_says_that_it_holds_a_lock_is_the_last_it_was_granted_to() {
    let turns = |before: u64, held: bool| {
        vec![
            line(S, "w0", granted("a", 1)),
            line(5 * S, "w1", granted("b", 2)),
            line(6 * S, "w0", said(1, before, held)),
        ]
    };
    good(&turns(4 * S, true));
    good(&turns(6 * S, false));
    bad("one valid holder", &turns(6 * S, true));
    bad("one valid holder", &[turns(6 * S, true), vec![fault(5 * S, "stop_long", &["w0"])]].concat());
    good(&[turns(6 * S, true), vec![fault(5 * S, "flush_all", &[])]].concat());
}

#[test]
fn what_is_lost_is_lost_for_good() {
    let said =
        |token: u64, before: u64, held: bool, lost: bool| What::Said { lock: "lock".into(), token, before, held, lost };
    let says = |answers: [(bool, bool); 3]| {
        let said = (2..).zip(answers).map(|(at, (held, lost))| line(at, "w0", said(1, at, held, lost)));
        [line(1, "w0", granted("a", 1))].into_iter().chain(said).collect::<Vec<_>>()
    };
    let (held, suspended, lost) = ((true, false), (false, false), (false, true));
    good(&says([held, suspended, held]));
    good(&says([held, suspended, lost]));
    good(&says([held, lost, lost]));
    bad("once lost, always lost", &says([held, lost, held]));
    assert_eq!(checkers::held_again(&says([held, suspended, held])), 1);
    assert_eq!(checkers::held_again(&says([held, suspended, lost])), 0);
}

#[test]
fn tokens_rise() {
    let second = |asked_at: u64, token: u64| {
        vec![
            line(S, "w0", asked("a")),
            line(2 * S, "w0", granted("a", 5)),
            line(asked_at, "w1", asked("b")),
            line(3 * S, "w1", granted("b", token)),
        ]
    };
    good(&second(2 * S + 1, 6));
    good(&second(S, 4));
    bad("rising tokens", &second(2 * S + 1, 4));
    bad("rising tokens", &second(2 * S + 1, 5));
    bad("rising tokens", &[second(2 * S + 1, 4), vec![fault(S, "flush_all", &[])]].concat());
    bad("rising tokens", &[second(2 * S + 1, 4), vec![fault(S, "clock_back", &[])]].concat());
    let clock = |name: &str, ends: u64| [fault(0, name, &[]), healed(ends, name, &[]), fault(S, "flush_all", &[])];
    good(&[second(2 * S + 1, 4), clock("clock_back", 2 * S).to_vec()].concat());
    good(&[second(2 * S + 1, 4), clock("clock_forward", 1).to_vec()].concat());
    bad("rising tokens", &[second(2 * S + 1, 4), clock("clock_back", 1).to_vec()].concat());
}

#[test]
fn who_comes_first_is_served_first() {
    let turns = |first: u64, second: u64| {
        vec![
            line(S, "nemesis", queue(&[("s", "w0.a"), ("t", "w1.b")])),
            line(2 * S, "w0", granted("w0.a", first)),
            line(2 * S, "w1", granted("w1.b", second)),
        ]
    };
    good(&turns(1, 2));
    bad("first come, first served", &turns(2, 1));
    good(&[turns(2, 1), vec![fault(S, "stop_long", &["w0"])]].concat());
    bad("first come, first served", &[turns(2, 1), vec![fault(S, "stop_long", &["w1"])]].concat());
    // It has lost its session, and its place with it.
    let again = line(S + 1, "nemesis", queue(&[("t", "w1.b"), ("u", "w0.a")]));
    good(&[turns(2, 1), vec![again]].concat());
}

#[test]
fn the_fence_lets_no_update_be_lost() {
    let store = |token: u64, fenced: u64, plain: u64, accepted: bool| {
        let lock = || "lock".to_owned();
        vec![
            line(token * S, "w0", What::Store { request: token, lock: lock(), token, fenced, plain }),
            line(token * S + 1, "nemesis", What::Judged { lock: lock(), token, stored: true, accepted }),
        ]
    };
    good(&[store(1, 0, 0, true), store(2, 1, 1, true)].concat());
    good(&[store(1, 0, 0, true), store(2, 0, 0, false), store(3, 1, 1, true)].concat());
    bad("fenced register", &[store(1, 0, 0, true), store(2, 0, 0, true)].concat());
    assert_eq!(checkers::lost_updates(&[store(1, 0, 0, true), store(2, 0, 0, false)].concat()), 1);
    assert_eq!(checkers::lost_updates(&[store(1, 0, 0, true), store(2, 0, 1, false)].concat()), 0);
}

#[test]
fn nobody_waits_without_an_end() {
    let waited = |time: u64| vec![line(S, "w0", asked("a")), line(S + time, "w0", granted("a", 1))];
    good(&waited(9 * S));
    bad("bounded wait", &waited(11 * S));
    bad("bounded wait", &[line(S, "w0", asked("a")), line(20 * S, "w1", What::Started)]);
    good(&[line(S, "w0", asked("a")), line(2 * S, "w0", What::Killed), line(20 * S, "w1", What::Started)]);
    good(&[waited(11 * S), vec![fault(2 * S, "kill", &["w1"])]].concat());
    // Only for as long as it disturbs.
    let killed = [fault(2 * S, "kill", &["w1"]), healed(3 * S, "kill", &["w1"])];
    good(&[waited(13 * S), killed.to_vec()].concat());
    bad("bounded wait", &[waited(15 * S), killed.to_vec()].concat());
    bad("bounded wait", &[waited(11 * S), vec![fault(2 * S, "foreign_writes", &[])]].concat());
    // Each turn that was found by asking costs the time until then.
    let lost = [fault(0, "grants_lost", &[]), healed(15 * S, "grants_lost", &[])];
    let turns = [line(3 * S, "w1", granted("b", 1)), line(5 * S, "w1", granted("c", 2))];
    let after = vec![line(S, "w0", asked("a")), line(14 * S, "w0", granted("a", 3))];
    good(&[after.clone(), lost.to_vec(), turns.to_vec()].concat());
    bad("bounded wait", &[after.clone(), lost.to_vec()].concat());
    bad("bounded wait", &[after, turns.to_vec()].concat());
    let gave_up = What::GaveUp { lock: "lock".into(), attempt: "a".into() };
    good(&[line(S, "w0", asked("a")), line(2 * S, "w0", gave_up), line(20 * S, "w1", What::Started)]);
}

const A: (&str, &str, bool) = ("s", "w0.a", true);
const B: (&str, &str, bool) = ("t", "w1.b", true);
const C: (&str, &str, bool) = ("u", "w2.c", true);

fn dead(of: (&'static str, &'static str, bool)) -> (&'static str, &'static str, bool) {
    (of.0, of.1, false)
}

#[test]
fn nobody_barges_in() {
    let looks = |first: What, second: What| vec![line(S, "nemesis", first), line(S + 25 * MS, "nemesis", second)];
    let before = |of: &[(&str, &str, bool)]| order(1, Some((1, A)), of);
    good(&looks(before(&[B, C]), order(2, Some((2, B)), &[C])));
    bad("barging", &looks(before(&[B, C]), order(2, Some((2, C)), &[B])));
    // Who did not even stand in the queue.
    bad("barging", &looks(before(&[B]), order(2, Some((2, C)), &[B])));
    good(&looks(before(&[dead(B), C]), order(2, Some((2, C)), &[dead(B)])));
    let barged = || looks(before(&[B, C]), order(2, Some((2, C)), &[B]));
    good(&[barged(), vec![fault(S, "flush_all", &[]), healed(S, "flush_all", &[])]].concat());
    bad("barging", &[barged(), vec![fault(S, "stop_long", &["w1"])]].concat());
}

#[test]
fn no_lock_is_idle_while_somebody_waits() {
    let looks =
        |first: What, second: What| vec![line(9 * S, "nemesis", first), line(9 * S + 25 * MS, "nemesis", second)];
    good(&looks(order(1, None, &[A]), order(2, Some((2, A)), &[])));
    good(&looks(order(1, None, &[dead(A)]), order(1, None, &[dead(A)])));
    let idle = || looks(order(1, None, &[A]), order(1, None, &[A]));
    bad("idle lock", &idle());
    bad("idle lock", &[idle(), vec![fault(8 * S, "kill", &["w1"])]].concat());
    good(&[idle(), vec![fault(8 * S, "evict_volatile_ttl", &[])]].concat());
}

#[test]
fn nobody_dead_is_made_a_holder() {
    let looks = |alive_again: bool| {
        let mut looks = vec![line(S, "nemesis", order(5, Some((5, A)), &[dead(B)]))];
        if alive_again {
            looks.push(line(2 * S, "nemesis", order(5, Some((5, A)), &[B])));
        }
        looks.push(line(3 * S, "nemesis", order(6, Some((6, dead(B))), &[])));
        looks
    };
    bad("dead grant", &looks(false));
    bad("no second life", &looks(true));
    good(&[looks(true), vec![fault(2 * S, "server_restart_stale", &[])]].concat());
    good(&[looks(false), vec![fault(2 * S, "swap_db", &[])]].concat());
    // It died after it was granted.
    let died =
        [line(S, "nemesis", order(5, Some((5, A)), &[])), line(2 * S, "nemesis", order(5, Some((5, dead(A))), &[]))];
    good(&died);
    // The key of the revision is gone.
    good(&[line(S, "nemesis", order(0, Some((5, dead(A))), &[]))]);
    let granted = |token| vec![line(2 * S, "nemesis", order(token, Some((token, dead(B))), &[]))];
    let seen = vec![line(S, "nemesis", order(0, Some((5, A)), &[dead(B)]))];
    bad("dead grant", &[seen, granted(6)].concat());
}
