//! The verdicts of `benches/bench`: from rounds to a ratio and a yes or no.

#[path = "../benches/bench/harness/judge.rs"]
#[expect(dead_code, reason = "what is printed with a verdict is not asked here")]
mod judge;
#[path = "../benches/bench/harness/subject.rs"]
#[expect(dead_code, reason = "of the subjects only rows are made here")]
mod subject;
mod way {
    pub(crate) type Figures = std::collections::BTreeMap<String, Vec<f64>>;
}

use judge::{Line, judge};
use subject::{Goal, Row, row};

/// So many rounds of each contestant, which have measured one figure.
fn measured(contestants: &[(&str, &[&[f64]])]) -> Vec<(String, Result<Vec<way::Figures>, String>)> {
    let round = |samples: &&[f64]| way::Figures::from([("time".to_owned(), samples.to_vec())]);
    contestants.iter().map(|(label, rounds)| ((*label).to_owned(), Ok(rounds.iter().map(round).collect()))).collect()
}

fn line(row: &Row, contestants: &[(&str, &[&[f64]])]) -> Line {
    judge(row, &measured(contestants)).expect("a line")
}

fn against_base(goal: Goal) -> Row {
    row("what", "ours", "time").against("base", "time", goal)
}

#[test]
fn ratio_is_the_median_of_the_rounds_ratios() {
    // The machine is ten times as slow in the second round: a ratio of medians over all would say something else.
    let ours: [&[f64]; 3] = [&[2.0, 2.0, 9.0], &[20.0, 21.0, 20.0], &[3.0, 3.0, 3.0]];
    let base: [&[f64]; 3] = [&[1.0, 1.0, 7.0], &[10.0, 10.0, 10.0], &[1.0, 1.0, 1.0]];
    let line = line(&against_base(Goal::AtMost(2.0)), &[("ours", &ours), ("base", &base)]);
    let ratio = line.found.as_ref().ok().and_then(|found| found.ratio).expect("a ratio");
    assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 3.0));
    assert_eq!(line.is_met(), Some(true));
}

#[test]
fn goals_are_bounds_from_above_or_from_below() {
    let twice: [(&str, &[&[f64]]); 2] = [("ours", &[&[2.0]]), ("base", &[&[1.0]])];
    for (goal, is_met) in [
        (Goal::AtMost(1.9), Some(false)),
        (Goal::AtMost(2.0), Some(true)),
        (Goal::AtLeast(2.0), Some(true)),
        (Goal::AtLeast(2.1), Some(false)),
        (Goal::None, None),
    ] {
        assert_eq!(line(&against_base(goal), &twice).is_met(), is_met);
    }
}

#[test]
fn percentile_is_of_all_samples_where_there_is_no_base() {
    let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
    let (first, last) = samples.split_at(50);
    let rounds: [&[f64]; 2] = [first, last];
    for (percentile, value) in [(50, 50.5), (99, 99.0), (100, 100.0)] {
        let row = row("what", "ours", "time").percentile(percentile).absolute(Goal::AtMost(99.0));
        let line = line(&row, &[("ours", &rounds)]);
        assert_eq!(line.found.as_ref().map(|found| found.figure.median), Ok(value));
        assert_eq!(line.is_met(), Some(value <= 99.0));
    }
}

#[test]
fn what_was_not_asked_for_is_no_line_and_what_failed_says_why() {
    let row = against_base(Goal::AtMost(2.0));
    let mut measured = measured(&[("ours", &[&[2.0]])]);
    assert!(judge(&row, &measured).is_none());
    measured.push(("base".to_owned(), Err("it has ended".to_owned())));
    let line = judge(&row, &measured).expect("a line");
    assert_eq!(line.found.err(), Some("base: it has ended".to_owned()));
    let never: [(&str, &[&[f64]]); 2] = [("ours", &[&[2.0]]), ("base", &[])];
    assert!(self::line(&row, &never).is_met().is_none());
}
