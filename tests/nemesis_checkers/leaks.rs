//! What remains, what grows, and who ends by itself.

use std::collections::BTreeMap;

use crate::history::{Line, What};
use crate::{S, bad, fault, good, healed, line};

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
fn nobody_panics_or_ends_by_itself() {
    bad("no panic", &[line(1, "w0", What::Panicked { message: "at the disco".into() })]);
    bad("no panic", &[line(1, "w0", What::Died { status: "exit status: 0".into() })]);
    good(&[line(1, "w0", What::Killed)]);
}
