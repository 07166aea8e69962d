//! What came of a run, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::checkers;
use crate::faults::Faults;
use crate::history::{self, Line, What};
use crate::topology::Topology;

#[derive(Default)]
struct Told {
    fired: u64,
    effective: u64,
    /// How long after its beginning it was noticed, in ms.
    detection: Vec<f64>,
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a list of that length")]
    let at = (last as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

fn spread(values: &mut [f64]) -> serde_json::Value {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return serde_json::Value::Null;
    }
    json!({"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "max": percentile(values, 1.0)})
}

/// How long after its beginning each fault was noticed: by the others, who are told that the member of the worker that
/// it is on has left; by a worker itself, when its link or lease is in doubt. In ms.
fn detections(lines: &[Line]) -> BTreeMap<&str, Vec<f64>> {
    let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut active: Vec<(&str, &[String], u64, BTreeSet<&str>)> = Vec::new();
    for line in lines.iter().filter(|line| !line.who.contains('.')) {
        let (about, by) = match &line.what {
            What::Fault { fault, on } => {
                active.push((fault, on, line.at, BTreeSet::new()));
                continue;
            }
            What::Healed { fault, on, .. } => {
                active.retain(|(of, hit, ..)| of != fault || hit != on);
                continue;
            }
            What::Left { id, cause, .. } if cause != "left" && *id != line.who => (id.as_str(), line.who.as_str()),
            What::State { state } if state != "connected" => (line.who.as_str(), line.who.as_str()),
            _ => continue,
        };
        for (fault, on, since, noticed) in &mut active {
            let is_hit = on.is_empty() && about == by || on.iter().any(|worker| worker == about);
            if is_hit && noticed.insert(by) {
                found.entry(fault).or_default().push((line.at - *since) as f64 / 1000.0);
            }
        }
    }
    found
}

/// From a release to the next grant of a lock that was waited for.
fn hand_overs(lines: &[Line]) -> Vec<f64> {
    let mut released: BTreeMap<&str, u64> = BTreeMap::new();
    let mut found = Vec::new();
    for line in lines {
        match &line.what {
            What::Judged { lock, stored: true, .. } => drop(released.insert(lock, line.at)),
            What::Granted { lock, .. } => {
                found.extend(released.remove(lock.as_str()).map(|at| (line.at - at) as f64 / 1000.0));
            }
            _ => {}
        }
    }
    found
}

/// What the servers were.
fn topology(lines: &[Line]) -> Topology {
    let named = lines.iter().find_map(|line| match &line.what {
        What::Topology { topology } => Topology::by_name(topology),
        _ => None,
    });
    named.unwrap_or(Topology::Standalone)
}

/// Judges a history, tells it, and keeps it where it failed.
#[expect(clippy::print_stdout, reason = "what came of a run is what this program writes")]
pub(crate) fn judge(lines: &[Line], seed: u64, time: Duration, json: bool) -> ExitCode {
    let mut violations = checkers::all(lines);
    let mut faults: BTreeMap<&str, Told> = BTreeMap::new();
    for line in lines {
        match &line.what {
            What::Fault { fault, .. } => faults.entry(fault).or_default().fired += 1,
            What::Healed { fault, effective, .. } => {
                faults.entry(fault).or_default().effective += u64::from(*effective);
            }
            _ => {}
        }
    }
    for (fault, times) in detections(lines) {
        faults.entry(fault).or_default().detection = times;
    }
    let count = |is: fn(&What) -> bool| lines.iter().filter(|line| is(&line.what)).count() as u64;
    let grants = count(|what| matches!(what, What::Granted { .. }));
    let changes = count(|what| matches!(what, What::Joined { .. } | What::Left { .. }));
    let windows = count(|what| matches!(what, What::Converged { .. }));
    let (lost, held_again) = (checkers::lost_updates(lines), checkers::held_again(lines));
    let seconds = time.as_secs();
    let without: Vec<_> =
        faults.iter().filter(|(_, told)| told.fired > 0 && told.effective == 0).map(|(name, _)| *name).collect();
    let seldom: Vec<_> = faults
        .iter()
        .filter(|(_, told)| told.fired >= 2 && told.effective * 2 < told.fired)
        .map(|(name, _)| *name)
        .collect();
    let overran = lines.iter().any(|line| matches!(line.what, What::Overran));
    let is_long = seconds >= 900;
    let topology = topology(lines);
    let never: Vec<_> = topology
        .faults()
        .into_iter()
        .filter(|fault| !faults.contains_key(fault.name))
        .map(|fault| fault.name)
        .collect();
    let is_void = grants < seconds * 10
        || changes < seconds * 5
        || windows == 0
        || !without.is_empty()
        || !seldom.is_empty()
        || overran
        || is_long && (!never.is_empty() || lost == 0 || held_again == 0);
    let false_leaves = checkers::false_leaves(lines, &Faults::of(lines)).len();
    let converged: Vec<f64> = lines
        .iter()
        .filter_map(|line| match line.what {
            What::Converged { after_ms } => Some(after_ms as f64),
            _ => None,
        })
        .collect();
    let told: serde_json::Map<String, serde_json::Value> = faults
        .iter_mut()
        .filter(|(_, told)| told.fired > 0)
        .map(|(name, told)| {
            let detection = spread(&mut told.detection);
            ((*name).to_owned(), json!({"fired": told.fired, "effective": told.effective, "detection_ms": detection}))
        })
        .collect();
    if !violations.is_empty() || is_void {
        let path = format!("nemesis-{seed}.history.ndjson");
        match history::save(lines, Path::new(&path)) {
            Ok(()) => eprintln!("the history is in {path}; judge it again with: nemesis --check {path}"),
            Err(error) => eprintln!("the history could not be kept: {error}"),
        }
    }
    let summary = json!({
        "summary": true, "violations": violations.len(), "void": is_void, "seed": seed, "minutes": time.as_secs_f64() / 60.0,
        "topology": topology.to_string(),
        "faults": told, "false_leaves": false_leaves, "grants": grants, "membership_changes": changes,
        "handover_ms": spread(&mut hand_overs(lines)), "convergence_ms": spread(&mut converged.clone()),
        "quiet_windows": windows, "guards_held_again": held_again, "unfenced_updates_lost": lost, "without_effect": without, "seldom_effective": seldom,
        "overran": overran,
    });
    let caught: BTreeSet<&str> = violations.iter().filter_map(|line| line.split(": ").next()).collect();
    if let (false, Some(first)) = (caught.is_empty(), lines.first()) {
        let after = lines.last().map_or(0, |last| last.at - first.at) / 1_000_000;
        eprintln!("caught within {after} s by: {}", caught.into_iter().collect::<Vec<_>>().join(", "));
    }
    violations.sort();
    for line in violations.iter().take(40) {
        if json {
            println!("{}", json!({"violation": line}));
        } else {
            println!("VIOLATION {line}");
        }
    }
    println!("{summary}");
    if violations.is_empty() && !is_void { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
