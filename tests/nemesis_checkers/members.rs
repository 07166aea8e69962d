//! What watchers are told of members, and what they know of them.

use crate::history::{Line, What};
use crate::{MS, S, bad, fault, good, healed, joined, left, line, members, snapshot, stream, updated};

#[test]
fn a_stream_folds() {
    let first = snapshot(&[("a", 1)]);
    good(&stream(&[first.clone(), updated("a", 1), left("a", 1, "left"), joined("a", 2), left("a", 2, "left")]));
    good(&stream(&[joined("a", 1), What::Started, joined("a", 1)]));
    good(&stream(&[joined("a", 1), snapshot(&[]), joined("a", 2)]));
    bad("fold", &stream(&[first.clone(), joined("a", 2)]));
    bad("fold", &stream(&[first.clone(), updated("a", 2)]));
    bad("fold", &stream(&[first.clone(), left("a", 2, "left")]));
    bad("fold", &stream(&[first, snapshot(&[]), left("a", 1, "left")]));
}

#[test]
fn nobody_leaves_whose_heartbeats_got_through() {
    let told = |by: &str, cause: &str| vec![line(0, by, snapshot(&[("w1", 1)])), line(9 * S, by, left("w1", 1, cause))];
    let with = |by: &str, fault_name: &str, on: &[&str], from: u64, to: u64| {
        [told(by, "expired"), vec![fault(from, fault_name, on), healed(to, fault_name, on)]].concat()
    };
    good(&told("w0", "left"));
    good(&told("w0.dozing", "expired"));
    bad("false leave", &told("w0", "expired"));
    good(&with("w0", "stop_long", &["w1"], 6 * S, 8 * S));
    bad("false leave", &with("w0", "stop_short", &["w1"], 6 * S, 8 * S));
    bad("false leave", &with("w0", "stop_long", &["w2"], 6 * S, 8 * S));
    bad("false leave", &with("w0", "stop_long", &["w1"], S, 2 * S));
    good(&with("w0", "flush_all", &[], 8 * S, 8 * S));
    bad("false leave", &with("w0", "client_kill_normal", &[], 8 * S, 8 * S));
    // Whoever has left is not said to be gone too soon by who hears of it late, when its session has ended too.
    let late = |cause: &str| {
        let first = [line(0, "w2", snapshot(&[("w1", 1)])), line(S, "w2", left("w1", 1, cause))];
        let blocked = vec![fault(S, "blocked_runtime", &["w0"]), healed(9 * S, "blocked_runtime", &["w0"])];
        [first.to_vec(), told("w0", "expired"), blocked].concat()
    };
    good(&late("left"));
    bad("false leave", &late("expired"));
}

#[test]
fn in_quiet_windows_everybody_knows_what_there_is() {
    let window = |of_w1: &[(&str, u64)]| {
        let views = [("w0".into(), members(&[("a", 1)])), ("w1".into(), members(of_w1))].into();
        [line(1, "nemesis", What::NotConverged { truth: members(&[("a", 1)]), views })]
    };
    bad("convergence", &window(&[]));
    bad("convergence", &window(&[("a", 1), ("b", 1)]));
    bad("convergence", &window(&[("a", 2)]));
    // One whose membership was not given back.
    bad("convergence", &window(&[("a", 1)]));
    good(&[line(1, "nemesis", What::Converged { after_ms: 9000 })]);
}

#[test]
fn a_change_does_not_wait_for_the_next_reconcile() {
    let watchers =
        || vec![line(0, "w0", What::Started), line(0, "w1", What::Started), line(60 * S, "w0", What::Started)];
    let heard = |late: u64| {
        [watchers(), vec![line(5 * S, "w0", joined("w2.guest", 1)), line(5 * S + late, "w1", joined("w2.guest", 1))]]
            .concat()
    };
    good(&heard(900 * MS));
    bad("promptness", &heard(1100 * MS));
    let after = |name: &str, on: &[&str], ends: u64| {
        [heard(1100 * MS), vec![fault(ends, name, on), healed(ends, name, on)]].concat()
    };
    good(&after("throttle", &["w1"], 5 * S));
    bad("promptness", &after("throttle", &["w1"], 4 * S));
    bad("promptness", &after("delay", &["w1"], 5 * S));
    good(&after("flags_reset", &[], 3 * S));
    bad("promptness", &after("flags_reset", &[], 400 * MS));

    // A trouble that was over excuses nothing, and keeps nobody from being excused by the next.
    let twice = |second: u64| {
        let throttled = |at: u64| vec![fault(at, "throttle", &["w1"]), healed(at, "throttle", &["w1"])];
        [heard(1500 * MS), throttled(3800 * MS), throttled(second)].concat()
    };
    good(&twice(5500 * MS));
    bad("promptness", &twice(6100 * MS));

    // Who is dead hears nothing.
    let killed = [line(4 * S, "w1", What::Killed), line(9 * S, "w1", What::Started)];
    good(&[heard(4500 * MS), killed[..].to_vec()].concat());
    bad(
        "promptness",
        &[heard(1100 * MS), killed[..1].iter().map(|of| line(of.at, "w3", of.what.clone())).collect()].concat(),
    );

    let then_left = |late: u64| {
        let left = |at: u64, who: &str| line(at, who, left("w2.guest", 1, "left"));
        [heard(MS), vec![left(10 * S, "w0"), left(10 * S + late, "w1")]].concat()
    };
    good(&then_left(900 * MS));
    bad("promptness", &then_left(1100 * MS));
    // Answers come late: who polls waits for more of them.
    let late = |who: &str, late: u64| {
        let heard = [line(5 * S, "w0", joined("w2.guest", 1)), line(5 * S + late, who, joined("w2.guest", 1))];
        let begun = [line(0, "w0", What::Started), line(0, who, What::Started), line(60 * S, "w0", What::Started)];
        let slow = [fault(4 * S, "delay_answers", &[who]), healed(7 * S, "delay_answers", &[who])];
        [&begun[..], &heard, &slow].concat()
    };
    good(&late("w4", 1700 * MS));
    bad("promptness", &late("w4", 1900 * MS));
    bad("promptness", &late("w1", 1100 * MS));
    // Come and gone before it had to be known.
    let mut gone = watchers();
    gone.extend([line(5 * S, "w0", joined("w2.guest", 1)), line(5 * S + 9 * MS, "w0", left("w2.guest", 1, "left"))]);
    good(&gone);
}

#[test]
fn a_stream_comes_to_what_is_known() {
    let view = |at: u64, of: &[(&str, u64)]| {
        let (state, members) = ("connected".into(), members(of));
        line(at, "w0", What::View { request: at, members, state, memory_kb: 0, tasks: 0, fds: 0, threads: 0 })
    };
    let window = |views: Vec<Line>| {
        let begins = [line(1, "w0", snapshot(&[("a", 1)])), line(2, "nemesis", What::Converged { after_ms: 1 })];
        [begins.to_vec(), views, vec![line(90, "nemesis", What::Quiet { begins: false })]].concat()
    };
    good(&window((3..8).map(|at| view(at, &[("a", 1)])).collect()));
    // What comes and goes is in the one before it is in the other.
    good(&window((3..8).map(|at| view(at, if at == 5 { &[("a", 1)] } else { &[("b", 1)] })).collect()));
    bad("cache", &window((3..8).map(|at| view(at, &[("a", 2)])).collect()));
    bad("cache", &window((3..8).map(|at| view(at, &[("a", 1), ("b", 1)])).collect()));
}

#[test]
fn who_has_left_does_not_return_as_it_was() {
    let back = |incarnation: u64| {
        vec![
            line(S, "w0", joined("w1", 1)),
            line(2 * S, "w0", left("w1", 1, "left")),
            line(9 * S, "w0", joined("w1", incarnation)),
        ]
    };
    good(&back(2));
    bad("incarnation returns", &back(1));
    good(&[back(1), vec![line(3 * S, "w0", snapshot(&[]))]].concat());
    good(&[back(1), vec![fault(8 * S, "server_restart_stale", &[])]].concat());
    bad("incarnation returns", &[back(1), vec![fault(8 * S, "flush_all", &[])]].concat());
}
