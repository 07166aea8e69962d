//! What must be true of every history. Pure: lines in, violations out.

#[path = "prompt.rs"]
mod prompt;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Line, What};
use crate::plan::{self, Fault};

const MS: u64 = 1000;
/// The ttl of the workers, in microseconds.
const TTL: u64 = 2_000 * MS;
/// How long after a fault its consequences may still come.
const AFTERMATH: u64 = TTL + 1_000 * MS;
/// How long a waiter may wait while others hold a lock for moments only, and nothing is broken.
const LONGEST_WAIT: u64 = 10_000 * MS;
/// By how much the server's clock is stepped, and a little more.
const STEP: u64 = 75_000 * MS;
/// How long one attempt goes on at the most.
const LONGEST: u64 = 30_000 * MS;

pub(crate) fn all(lines: &[Line]) -> Vec<String> {
    let faults = Faults::of(lines);
    let checkers: [(&str, Vec<String>); 11] = [
        ("fold", fold(lines)),
        ("false leave", false_leaves(lines, &faults)),
        ("convergence", convergence(lines)),
        ("promptness", prompt::prompt(lines, &faults)),
        ("one valid holder", one_valid_holder(lines, &faults)),
        ("rising tokens", rising_tokens(lines, &faults)),
        ("first come, first served", first_come(lines, &faults)),
        ("fenced register", fenced_register(lines)),
        ("bounded wait", bounded_wait(lines, &faults)),
        ("nothing without an owner", orphans(lines)),
        ("nothing leaks", leaks(lines)),
    ];
    let named = |(name, found): (&str, Vec<String>)| {
        found.into_iter().map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
    };
    checkers.into_iter().flat_map(named).collect()
}

/// When each fault was active, and on whom.
pub(crate) struct Faults(Vec<Span>);

struct Span {
    fault: &'static Fault,
    on: Vec<String>,
    from: u64,
    to: u64,
}

impl Faults {
    pub(crate) fn of(lines: &[Line]) -> Self {
        let mut spans: Vec<Span> = Vec::new();
        for line in lines {
            match &line.what {
                What::Fault { fault, on } => {
                    if let Some(fault) = plan::by_name(fault) {
                        spans.push(Span { fault, on: on.clone(), from: line.at, to: u64::MAX });
                    }
                }
                What::Healed { fault, on, .. } => {
                    let open = |span: &&mut Span| span.fault.name == fault && span.on == *on && span.to == u64::MAX;
                    if let Some(span) = spans.iter_mut().find(open) {
                        span.to = line.at;
                    }
                }
                _ => {}
            }
        }
        Self(spans)
    }

    /// What was active on this worker from then to then, or had been shortly before.
    fn on<'a>(&'a self, worker: &'a str, from: u64, to: u64) -> impl Iterator<Item = &'a Fault> {
        let concerns = move |span: &&Span| {
            span.from <= to
                && span.to.saturating_add(AFTERMATH) >= from
                && (!span.fault.single || span.on.iter().any(|on| on == worker))
        };
        self.0.iter().filter(concerns).map(|span| span.fault)
    }

    /// Whether this worker's lease may have come to an end.
    fn excuse(&self, worker: &str, from: u64, to: u64) -> bool {
        let faults: Vec<_> = self.on(worker, from, to).collect();
        let silence: f64 = faults.iter().map(|fault| fault.silence).sum();
        // Who is kept from connecting while it has to connect again is cut off.
        let closes =
            faults.iter().any(|fault| fault.cuts || fault.name.starts_with("client_kill") || fault.name == "reset");
        silence >= 0.6 || closes && silence > 0.0 || faults.iter().any(|fault| fault.name == "kill")
    }

    /// The faults that were on this worker or on all, each with when it began and ended.
    pub(crate) fn spans_on<'a>(&'a self, worker: &'a str) -> impl Iterator<Item = (&'a Fault, u64, u64)> {
        let concerns = move |span: &&Span| !span.fault.single || span.on.iter().any(|on| on == worker);
        self.0.iter().filter(concerns).map(|span| (span.fault, span.from, span.to))
    }

    fn any(&self, from: u64, to: u64, is: impl Fn(&Fault) -> bool) -> bool {
        self.0.iter().any(|span| span.from <= to && span.to.saturating_add(AFTERMATH) >= from && is(span.fault))
    }
}

/// The worker a member belongs to.
fn owner(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

/// Each stream of events folds, from its last snapshot, and each member joins, is updated and leaves in turn.
fn fold(lines: &[Line]) -> Vec<String> {
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

/// Nobody is told that a worker's member is gone by itself while its heartbeats got through.
pub(crate) fn false_leaves(lines: &[Line], faults: &Faults) -> Vec<String> {
    let is_leave = |cause: &str| !matches!(cause, "left" | "replaced");
    // Who dozes is told late, when the excuse is over.
    let awake = lines.iter().filter(|line| !line.who.contains('.'));
    let leaves = awake.filter_map(|line| match &line.what {
        What::Left { id, incarnation, cause } if is_leave(cause) => Some((line, id, incarnation, cause)),
        _ => None,
    });
    let mut seen = HashSet::new();
    let falsely = leaves.filter(|(line, id, ..)| !faults.excuse(owner(id), line.at.saturating_sub(TTL), line.at));
    let first = falsely.filter(|(_, id, incarnation, _)| seen.insert(((*id).clone(), **incarnation)));
    first
        .map(|(line, id, incarnation, cause)| {
            format!("{} was told at {} that {id}@{incarnation} {cause}", line.who, line.at)
        })
        .collect()
}

/// In every quiet window each watcher comes to what the server has.
fn convergence(lines: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines {
        if let What::NotConverged { truth, views } = &line.what {
            for (who, view) in views.iter().filter(|(_, view)| *view != truth) {
                let missing: Vec<_> = truth.iter().filter(|(id, at)| view.get(*id) != Some(at)).collect();
                let surplus: Vec<_> = view.iter().filter(|(id, at)| truth.get(*id) != Some(at)).collect();
                found.push(format!("{who} at {}: does not know {missing:?}, and believes in {surplus:?}", line.at));
            }
            if views.values().all(|view| view == truth) {
                found.push(format!(
                    "only {:?} were members, and {} answered at {}",
                    truth.keys(),
                    views.len(),
                    line.at
                ));
            }
        }
    }
    found
}

/// Whoever says that a guard is held, no later one of that lock had been granted by then.
fn one_valid_holder(lines: &[Line], faults: &Faults) -> Vec<String> {
    // When each was granted, and the highest token until then.
    let mut granted: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for line in lines {
        if let What::Granted { lock, token, .. } = &line.what {
            let of = granted.entry(lock).or_default();
            let highest = of.last().map_or(0, |(_, highest)| *highest).max(*token);
            of.push((line.at, highest));
        }
    }
    let mut found = Vec::new();
    for line in lines {
        let What::Said { lock, token, before, held: true } = &line.what else { continue };
        let of = &granted[lock.as_str()];
        let Some((at, later)) = of.get(of.partition_point(|(_, highest)| highest <= token)) else { continue };
        if at < before && !faults.any(at.saturating_sub(TTL), *before, |fault| fault.breaks) {
            let worker = &line.who;
            found.push(format!("{worker} held {lock} under {token} at {before}, and {later} was granted at {at}"));
        }
    }
    found
}

/// What was asked for after a grant had been answered is granted under a higher token.
fn rising_tokens(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut asked: HashMap<&str, u64> = HashMap::new();
    let mut highest: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    let mut found = Vec::new();
    for line in lines {
        match &line.what {
            What::Asked { attempt, .. } => drop(asked.insert(attempt, line.at)),
            What::Granted { lock, attempt, token } => {
                let since = asked.get(attempt.as_str()).copied().unwrap_or(line.at);
                let before = highest.entry(lock).or_default();
                let answered = before.partition_point(|(at, _)| *at < since);
                let most = before[..answered].last().map_or(0, |(_, most)| *most);
                // A server that has lost its data while its clock is behind what it was cannot know.
                let since = line.at.saturating_sub(STEP);
                let may_be_forgotten =
                    faults.any(since, line.at, |fault| fault.clock) && faults.any(since, line.at, |fault| fault.breaks);
                if most >= *token && !may_be_forgotten {
                    found.push(format!("{lock} was granted under {token} at {}, after {most}", line.at));
                }
                let most = before.last().map_or(0, |(_, most)| *most).max(*token);
                before.push((line.at, most));
            }
            _ => {}
        }
    }
    found
}

/// Of two that were seen in one queue, the one in front was granted first, unless its place was lost.
fn first_come(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut tokens: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut places: HashMap<&str, HashSet<(&str, u64)>> = HashMap::new();
    let mut pairs: HashSet<(&str, &str)> = HashSet::new();
    for line in lines {
        match &line.what {
            What::Granted { attempt, token, .. } => drop(tokens.insert(attempt, (*token, line.at))),
            What::Queue { waiters, .. } => {
                for (session, attempt) in waiters {
                    places.entry(attempt).or_default().insert((session, 0));
                }
                for pair in waiters.windows(2) {
                    pairs.insert((pair[0].1.as_str(), pair[1].1.as_str()));
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (front, back) in pairs {
        let (Some((first, _)), Some((second, at))) = (tokens.get(front), tokens.get(back)) else { continue };
        let moved = [front, back].iter().any(|attempt| places[attempt].len() > 1);
        let since = at.saturating_sub(LONGEST);
        // Whose lease ends while it waits, or just after it was granted, has lost its place.
        let may_have_died = faults.excuse(owner(front), since, *at);
        if first > second && !moved && !may_have_died && !faults.any(since, *at, |fault| fault.breaks) {
            found.push(format!("{back} was granted under {second}, before {front} under {first}, who was in front"));
        }
    }
    found
}

/// What the fence let through are turns: no update of the fenced register is lost.
fn fenced_register(lines: &[Line]) -> Vec<String> {
    let lost = lines.iter().filter_map(|line| match &line.what {
        What::Judged { lock, token, stored: true, accepted: true } => Some((lock, token)),
        _ => None,
    });
    let mut count: HashMap<&str, u64> = HashMap::new();
    lost.for_each(|(lock, _)| *count.entry(lock).or_default() += 1);
    let mut value: HashMap<&str, u64> = HashMap::new();
    let mut asked: HashMap<(&str, u64), u64> = HashMap::new();
    for line in lines {
        match &line.what {
            What::Store { lock, token, fenced, .. } => drop(asked.insert((lock, *token), *fenced)),
            What::Judged { lock, token, stored: true, accepted: true } => {
                if let Some(fenced) = asked.get(&(lock.as_str(), *token)) {
                    value.insert(lock, fenced + 1);
                }
            }
            _ => {}
        }
    }
    let wrong = count.iter().filter(|(lock, count)| value.get(*lock).copied().unwrap_or_default() != **count);
    wrong.map(|(lock, count)| format!("{lock}: {count} accepted writes came to {:?}", value.get(lock))).collect()
}

/// How many updates of the register without a fence were lost.
pub(crate) fn lost_updates(lines: &[Line]) -> u64 {
    let (mut count, mut value): (HashMap<&str, u64>, HashMap<&str, u64>) = Default::default();
    for line in lines {
        if let What::Store { lock, plain, .. } = &line.what {
            *count.entry(lock).or_default() += 1;
            value.insert(lock, plain + 1);
        }
    }
    count.iter().map(|(lock, count)| count.saturating_sub(value.get(lock).copied().unwrap_or_default())).sum()
}

/// Nobody waits without an end, also where no message of a grant arrives.
fn bounded_wait(lines: &[Line], faults: &Faults) -> Vec<String> {
    let mut waiting: HashMap<&str, (&str, u64)> = HashMap::new();
    let mut found = Vec::new();
    let last = lines.last().map_or(0, |line| line.at);
    let mut judge = |who: &str, attempt: &str, since: u64, until: u64| {
        let waited = until - since;
        let is_harmless = |fault: &Fault| fault.silence == 0.0 && !fault.breaks && !fault.cuts && fault.name != "kill";
        // What a holder's death costs is its lease: only undisturbed time counts.
        if waited > LONGEST_WAIT && !faults.any(since, until, |fault| !is_harmless(fault)) {
            found.push(format!("{who} waited {} ms for {attempt}", waited / MS));
        }
    };
    for line in lines {
        match &line.what {
            What::Asked { attempt, .. } => drop(waiting.insert(attempt, (&line.who, line.at))),
            What::Granted { attempt, .. } | What::GaveUp { attempt, .. } => {
                if let Some((who, since)) = waiting.remove(attempt.as_str()) {
                    judge(who, attempt, since, line.at);
                }
            }
            What::Killed => waiting.retain(|_, (who, _)| *who != line.who),
            _ => {}
        }
    }
    for (attempt, (who, since)) in waiting {
        judge(who, attempt, since, last);
    }
    found
}

fn orphans(lines: &[Line]) -> Vec<String> {
    let of = |line: &Line| match &line.what {
        What::Orphans { keys } if !keys.is_empty() => Some(format!("at {}: {keys:?}", line.at)),
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

/// Connections stay as many as there should be, and the memory of who lives long stays what it was.
fn leaks(lines: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    let mut memory: HashMap<&str, (u64, u64)> = HashMap::new();
    for line in lines {
        match &line.what {
            What::Connections { open, most } if open > most => {
                found.push(format!("{open} connections at {}, and there should be {most}", line.at));
            }
            What::Started => drop(memory.remove(line.who.as_str())),
            What::View { memory_kb, .. } => {
                // What is read first is still growing into its size.
                let (count, first) = memory.entry(&line.who).or_insert((0, *memory_kb));
                *count += 1;
                if *count <= 20 {
                    *first = *memory_kb.max(first);
                } else if *memory_kb > *first + *first / 2 + 8 * 1024 {
                    found.push(format!("{} has grown from {first} to {memory_kb} kB", line.who));
                    *first = *memory_kb;
                }
            }
            _ => {}
        }
    }
    found
}
