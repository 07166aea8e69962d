//! What excuses a violation, and how far.

use crate::history::What;
use crate::{MS, S, asked, bad, fault, good, granted, healed, joined, left, line, said, snapshot};

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
