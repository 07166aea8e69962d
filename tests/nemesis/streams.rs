//! What must be true of each stream of events, and of the cache beside it.

use std::collections::{BTreeMap, HashMap};

use crate::faults::Faults;
use crate::history::{Line, What};

/// How many views of a window are enough to see one at a moment when nothing is under way.
const ENOUGH: u32 = 5;

/// Each stream of events folds, from its last snapshot, and each member joins, is updated and leaves in turn.
pub(super) fn fold(lines: &[Line]) -> Vec<String> {
    let mut known: HashMap<&str, BTreeMap<&str, u64>> = HashMap::new();
    let mut found = Vec::new();
    for line in lines {
        let who = line.who.as_str();
        let (id, incarnation, fits, what) = match &line.what {
            What::Started => {
                known.remove(who);
                continue;
            }
            What::Snapshot { members } => {
                known.insert(who, members.iter().map(|(id, at)| (id.as_str(), *at)).collect());
                continue;
            }
            What::Joined { id, incarnation } => {
                let before = known.entry(who).or_default().insert(id, *incarnation);
                (id, incarnation, before.is_none(), "joined while one was there")
            }
            What::Updated { id, incarnation } => {
                let now = known.entry(who).or_default().get(id.as_str());
                (id, incarnation, now == Some(incarnation), "was updated and was not there")
            }
            What::Left { id, incarnation, .. } => {
                let before = known.entry(who).or_default().remove(id.as_str());
                (id, incarnation, before == Some(*incarnation), "left and was not there")
            }
            _ => continue,
        };
        if !fits {
            found.push(format!("{who} at {}: {id}@{incarnation} {what}", line.at));
        }
    }
    found
}

/// In a quiet window the stream of a worker, folded, is what the worker knows: at least at one of the moments when it was
/// asked, since what has just come may be in the one and not yet in the other.
pub(super) fn cache(lines: &[Line]) -> Vec<String> {
    let mut folded: HashMap<&str, BTreeMap<String, u64>> = HashMap::new();
    // How often each was asked in this window, from when on, and whether it ever fitted.
    let mut asked: BTreeMap<&str, (u32, u64, bool)> = BTreeMap::new();
    let (mut is_quiet, mut found) = (false, Vec::new());
    for line in lines {
        let who = line.who.as_str();
        match &line.what {
            What::Started => drop(folded.remove(who)),
            What::Snapshot { members } => drop(folded.insert(who, members.clone())),
            What::Joined { id, incarnation } => {
                folded.entry(who).or_default().insert(id.clone(), *incarnation);
            }
            What::Left { id, .. } => {
                folded.entry(who).or_default().remove(id);
            }
            What::Converged { .. } => is_quiet = true,
            What::Quiet { .. } => {
                let unlike = |(who, (count, at, fitted)): (&str, (u32, u64, bool))| {
                    let is_unlike = count >= ENOUGH && !fitted;
                    is_unlike.then(|| format!("{who} knew from {at} on what its stream did not come to"))
                };
                found.extend(std::mem::take(&mut asked).into_iter().filter_map(unlike));
                is_quiet = false;
            }
            What::View { members, .. } if is_quiet => {
                let (count, _, fitted) = asked.entry(who).or_insert((0, line.at, false));
                *count += 1;
                *fitted |= folded.get(who) == Some(members);
            }
            _ => {}
        }
    }
    found
}

/// Who has left does not come back as the same incarnation, unless the data of then came back.
pub(super) fn returns(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut left: HashMap<(&str, &str, u64), u64> = HashMap::new();
    let mut found = Vec::new();
    for line in lines {
        let who = line.who.as_str();
        match &line.what {
            What::Started | What::Snapshot { .. } => left.retain(|(of, ..), _| *of != who),
            What::Left { id, incarnation, .. } => {
                left.insert((who, id, *incarnation), line.at);
            }
            What::Joined { id, incarnation } => {
                if let Some(since) = left.get(&(who, id.as_str(), *incarnation))
                    && !faults.revives(*since, line.at)
                {
                    found.push(format!("{who} at {}: {id}@{incarnation} joined, and had left at {since}", line.at));
                }
            }
            _ => {}
        }
    }
    found
}
