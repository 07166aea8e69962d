//! Nothing leaks: connections, tasks, files, threads and memory of who lives long stay what they were.

use std::collections::HashMap;

use crate::history::{Line, What};

/// How many more tasks, files or threads there may be than at the beginning, with what comes and goes.
const MORE: u64 = 3;
/// For so many windows in a row.
const IN_A_ROW: usize = 3;
/// Memory that rises over so many windows, by more than so much, and by a third of that without its largest step, goes on
/// rising. One step alone is what a burst has needed: who listens by `Keyevent` hears of a million foreign keys in seconds.
const RISING: usize = 6;
const RISEN_KB: u64 = 8 * 1024;

/// The least of a process in each quiet window: tasks, files, threads and memory.
type Least = [u64; 4];
const NAMES: [&str; 4] = ["tasks", "files", "threads", "kB"];

pub(super) fn leaks(lines: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    let mut windows: HashMap<&str, Vec<Least>> = HashMap::new();
    let mut now: HashMap<&str, Least> = HashMap::new();
    let mut is_quiet = false;
    for line in lines {
        match &line.what {
            What::Connections { open, most, of } if open > most => {
                found.push(format!("{open} connections {of} at {}, and there should be {most}", line.at));
            }
            What::Started => drop((windows.remove(line.who.as_str()), now.remove(line.who.as_str()))),
            What::Converged { .. } => is_quiet = true,
            What::Quiet { .. } => {
                is_quiet = false;
                for (who, least) in now.drain() {
                    let of = windows.entry(who).or_default();
                    of.push(least);
                    found.extend(grown(of).map(|what| format!("{who} by {}: {what}", line.at)));
                }
            }
            What::View { memory_kb, tasks, fds, threads, .. } if is_quiet => {
                let seen = [*tasks, *fds, *threads, *memory_kb];
                let least = now.entry(&line.who).or_insert(seen);
                for (least, seen) in least.iter_mut().zip(seen) {
                    *least = (*least).min(seen);
                }
            }
            _ => {}
        }
    }
    found
}

/// What has grown, as the last of these windows shows and the one before did not yet.
fn grown(windows: &[Least]) -> impl Iterator<Item = String> {
    (0..NAMES.len()).filter_map(move |at| {
        let of: Vec<u64> = windows.iter().map(|least| least[at]).collect();
        let is_new = has_grown(at, &of) && !has_grown(at, &of[..of.len() - 1]);
        is_new.then(|| format!("{of:?} {}", NAMES[at]))
    })
}

fn has_grown(at: usize, of: &[u64]) -> bool {
    if NAMES[at] == "kB" {
        let rising = |run: &[u64]| {
            let steps = run.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
            let (rise, largest) = (run[RISING - 1].saturating_sub(run[0]), steps.max().unwrap_or_default());
            run.is_sorted_by(|one, next| one < next) && rise > RISEN_KB && rise - largest > RISEN_KB / 3
        };
        return of.windows(RISING).any(rising);
    }
    let Some((first, later)) = of.split_at_checked(2) else { return false };
    let most = first[0].max(first[1]) + MORE;
    later.windows(IN_A_ROW).any(|run| run.iter().all(|count| *count > most))
}
