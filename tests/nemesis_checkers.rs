//! The checkers of the nemesis, each by a history that is fine and by one that is not: who judges is judged too.

#[path = "nemesis/checkers.rs"]
mod checkers;
#[path = "nemesis/faults.rs"]
mod faults;
#[expect(dead_code, reason = "only its lines are used here")]
#[path = "nemesis/history.rs"]
mod history;
#[path = "nemesis/plan.rs"]
mod plan;

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
    What::Order { revision, locks: vec![Standing { lock: "lock".into(), token, holder, waiters }] }
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
    // Come and gone before it had to be known.
    let mut gone = watchers();
    gone.extend([line(5 * S, "w0", joined("w2.guest", 1)), line(5 * S + 9 * MS, "w0", left("w2.guest", 1, "left"))]);
    good(&gone);
}

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

#[test]
fn nothing_remains_and_nothing_grows() {
    let orphans =
        |keys: &[&str]| [line(1, "nemesis", What::Orphans { keys: keys.iter().map(|key| (*key).into()).collect() })];
    good(&orphans(&[]));
    bad("nothing without an owner", &orphans(&["locks/a"]));
    let after = |fault_name: &str, healed_at: u64, key: &str| {
        let what = What::Orphans { keys: [key.into()].into() };
        [fault(healed_at, fault_name, &[]), healed(healed_at, fault_name, &[]), line(50 * S, "nemesis", what)]
    };
    good(&after("evict_volatile_ttl", 37 * S, "owned/s1"));
    bad("nothing without an owner", &after("evict_volatile_ttl", 45 * S, "locks/a"));
    bad("nothing without an owner", &after("evict_volatile_ttl", 36 * S, "owned/s1"));
    bad("nothing without an owner", &after("client_pause", 45 * S, "owned/s1"));
    let connections = |open: u64| [line(1, "nemesis", What::Connections { open, most: 9, of: "at the server".into() })];
    good(&connections(9));
    bad("nothing leaks", &connections(10));
}

/// One view in each of so many quiet windows, with tasks and memory as they were seen.
fn windows(seen: &[(u64, u64)]) -> Vec<Line> {
    let window = |(at, (tasks, memory_kb)): (u64, &(u64, u64))| {
        let view = What::View {
            request: at,
            members: BTreeMap::new(),
            state: "connected".into(),
            memory_kb: *memory_kb,
            tasks: *tasks,
            fds: 9,
            threads: 9,
        };
        [
            line(at * S, "nemesis", What::Quiet { begins: true }),
            line(at * S + 1, "nemesis", What::Converged { after_ms: 1 }),
            line(at * S + 2, "w0", view),
            line(at * S + 3, "nemesis", What::Quiet { begins: false }),
        ]
    };
    (1..).zip(seen).flat_map(window).collect()
}

#[test]
fn tasks_do_not_grow() {
    let of = |tasks: &[u64]| windows(&tasks.iter().map(|tasks| (*tasks, 1)).collect::<Vec<_>>());
    good(&of(&[9, 12, 15, 15, 15, 15]));
    good(&of(&[9, 12, 16, 16, 15, 16]));
    bad("nothing leaks", &of(&[9, 12, 16, 16, 16, 17]));
    // Another process.
    good(&[of(&[9, 12, 16, 16, 16]), vec![line(4 * S, "w0", What::Started)]].concat());
}

#[test]
fn memory_does_not_rise_and_rise() {
    let of = |memory: &[u64]| windows(&memory.iter().map(|memory| (9, *memory)).collect::<Vec<_>>());
    good(&of(&[1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000]));
    good(&of(&[1_000, 20_000, 20_000, 20_000, 20_000, 20_000, 20_000]));
    bad("nothing leaks", &of(&[1_000, 3_000, 5_000, 7_000, 9_000, 11_000, 13_000]));
    good(&of(&[16_432, 16_552, 16_616, 16_624, 24_640, 24_800]));
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
fn nobody_panics_or_ends_by_itself() {
    bad("no panic", &[line(1, "w0", What::Panicked { message: "at the disco".into() })]);
    bad("no panic", &[line(1, "w0", What::Died { status: "exit status: 0".into() })]);
    good(&[line(1, "w0", What::Killed)]);
}

#[test]
fn what_the_machine_kept_waiting_is_no_violation() {
    let stall = |at: u64, who: &str, ms: u64| line(at, who, What::Stall { ms });
    let told = || vec![line(0, "w0", snapshot(&[("w1", 1)])), line(9 * S, "w0", left("w1", 1, "expired"))];
    good(&[told(), vec![stall(8 * S, "w1", 1300)]].concat());
    good(&[told(), vec![stall(8 * S, "nemesis", 1300)]].concat());
    bad("false leave", &[told(), vec![stall(8 * S, "w1", 900)]].concat());
    bad("false leave", &[told(), vec![stall(8 * S, "w2", 1300)]].concat());
    // Who is frozen on purpose is not kept waiting by the machine, too.
    let frozen = [fault(7 * S, "stop_short", &["w1"]), healed(8 * S, "stop_short", &["w1"])];
    bad("false leave", &[told(), frozen.to_vec(), vec![stall(8 * S, "w1", 1300)]].concat());

    let waited = |time: u64| vec![line(S, "w0", asked("a")), line(S + time, "w0", granted("a", 1))];
    good(&[waited(12 * S), vec![stall(8 * S, "w4", 2100)]].concat());
    bad("bounded wait", &[waited(12 * S), vec![stall(8 * S, "w4", 1900)]].concat());

    let heard = |late: u64| {
        let joined = |at: u64, who: &str| line(at, who, joined("w2.guest", 1));
        let ends = [line(0, "w0", What::Started), line(0, "w1", What::Started), line(60 * S, "w0", What::Started)];
        [ends.to_vec(), vec![joined(5 * S, "w0"), joined(5 * S + late, "w1")]].concat()
    };
    good(&[heard(2 * S), vec![stall(5 * S + 900 * MS, "w1", 500)]].concat());
    bad("promptness", &[heard(2 * S), vec![stall(5 * S + 900 * MS, "w3", 500)]].concat());
}

#[test]
fn what_was_born_after_a_fault_was_not_hurt_by_it() {
    let healed = |at: u64, name: &str, on: &[&str], stamp: u64| {
        let on = on.iter().map(|on| (*on).into()).collect();
        line(at, "nemesis", What::Healed { fault: name.into(), on, effective: true, stamp: Some(stamp) })
    };
    let told = |stamp: u64| {
        let stopped = [fault(6 * S, "stop_long", &["w1"]), healed(8 * S, "stop_long", &["w1"], stamp)];
        [vec![line(0, "w0", snapshot(&[("w1", 5)])), line(9 * S, "w0", left("w1", 5, "expired"))], stopped.to_vec()]
            .concat()
    };
    good(&told(5));
    bad("false leave", &told(4));
    // One that joined by a session which the fault had cut off.
    let cut = |born: u64| {
        let cut = [fault(6 * S, "password", &[]), healed(8 * S, "password", &[], S)];
        [vec![line(0, "w0", snapshot(&[("w1", born)])), line(9 * S, "w0", left("w1", born, "expired"))], cut.to_vec()]
            .concat()
    };
    good(&cut(S + 700 * MS));
    bad("false leave", &cut(S + 800 * MS));
    let turns = |stamp: u64| {
        vec![
            fault(S, "flush_all", &[]),
            healed(2 * S, "flush_all", &[], stamp),
            line(2 * S, "w0", granted("a", 5)),
            line(3 * S, "w1", granted("b", 6)),
            line(4 * S, "w0", said(5, 4 * S, true)),
        ]
    };
    good(&turns(5));
    bad("one valid holder", &turns(4));
}

#[test]
fn a_key_that_was_hit_excuses_what_it_was_of() {
    let hit = |key: &str, owner: Option<&str>| {
        let (fault_name, key) = ("key_deleted".to_owned(), key.to_owned());
        let hit = What::Hit { fault: fault_name, key, owner: owner.map(str::to_owned) };
        let turns = [
            line(S, "w0", granted("a", 1)),
            line(5 * S, "w1", granted("b", 2)),
            line(6 * S, "w0", said(1, 6 * S, true)),
        ];
        [vec![fault(4 * S, "key_deleted", &[]), line(4 * S, "nemesis", hit)], turns.to_vec()].concat()
    };
    good(&hit("locks/lock", Some("w5")));
    good(&hit("leases/s", Some("w0")));
    good(&hit("leases/s", None));
    bad("one valid holder", &hit("leases/s", Some("w5")));
    bad("one valid holder", &hit("locks/other", Some("w5")));
}

const A: (&str, &str, bool) = ("s", "w0.a", true);
const B: (&str, &str, bool) = ("t", "w1.b", true);
const C: (&str, &str, bool) = ("u", "w2.c", true);

fn dead(of: (&'static str, &'static str, bool)) -> (&'static str, &'static str, bool) {
    (of.0, of.1, false)
}

#[test]
fn nobody_barges_in() {
    let samples = |first: What, second: What| vec![line(S, "nemesis", first), line(S + 25 * MS, "nemesis", second)];
    let before = |of: &[(&str, &str, bool)]| order(1, Some((1, A)), of);
    good(&samples(before(&[B, C]), order(2, Some((2, B)), &[C])));
    bad("barging", &samples(before(&[B, C]), order(2, Some((2, C)), &[B])));
    // Who did not even stand in the queue.
    bad("barging", &samples(before(&[B]), order(2, Some((2, C)), &[B])));
    good(&samples(before(&[dead(B), C]), order(2, Some((2, C)), &[dead(B)])));
    let barged = || samples(before(&[B, C]), order(2, Some((2, C)), &[B]));
    good(&[barged(), vec![fault(S, "flush_all", &[]), healed(S, "flush_all", &[])]].concat());
    bad("barging", &[barged(), vec![fault(S, "stop_long", &["w1"])]].concat());
}

#[test]
fn no_lock_is_idle_while_somebody_waits() {
    let samples =
        |first: What, second: What| vec![line(9 * S, "nemesis", first), line(9 * S + 25 * MS, "nemesis", second)];
    good(&samples(order(1, None, &[A]), order(2, Some((2, A)), &[])));
    good(&samples(order(1, None, &[dead(A)]), order(1, None, &[dead(A)])));
    let idle = || samples(order(1, None, &[A]), order(1, None, &[A]));
    bad("idle lock", &idle());
    bad("idle lock", &[idle(), vec![fault(8 * S, "kill", &["w1"])]].concat());
    good(&[idle(), vec![fault(8 * S, "evict_volatile_ttl", &[])]].concat());
}

#[test]
fn nobody_dead_is_made_a_holder() {
    let samples = |alive_again: bool| {
        let mut samples = vec![line(S, "nemesis", order(5, Some((5, A)), &[dead(B)]))];
        if alive_again {
            samples.push(line(2 * S, "nemesis", order(5, Some((5, A)), &[B])));
        }
        samples.push(line(3 * S, "nemesis", order(6, Some((6, dead(B))), &[])));
        samples
    };
    bad("dead grant", &samples(false));
    bad("no second life", &samples(true));
    good(&[samples(true), vec![fault(2 * S, "server_restart_stale", &[])]].concat());
    good(&[samples(false), vec![fault(2 * S, "swap_db", &[])]].concat());
    // It died after it was granted.
    let died =
        [line(S, "nemesis", order(5, Some((5, A)), &[])), line(2 * S, "nemesis", order(5, Some((5, dead(A))), &[]))];
    good(&died);
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
