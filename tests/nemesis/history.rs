//! What happened in a run: one line for each operation, event and fault, with the time of a clock that all processes
//! share. A run is judged from this alone, so it can be judged again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Microseconds of a clock that is the same in every process of this machine and goes on while one is frozen.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default() / 1000
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at: u64,
    pub(crate) who: String,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum What {
    /// A worker's process runs, or is no more.
    Started,
    Killed,
    /// It ended by itself.
    Died {
        status: String,
    },
    Panicked {
        message: String,
    },
    /// A thread that wanted to sleep 10 ms slept so much longer: of a worker, or of the nemesis, which is the machine.
    Stall {
        ms: u64,
    },
    /// What the servers are, in the first line.
    Topology {
        topology: String,
    },
    /// A server begins to serve the group, or does so no more, as it says itself.
    Serves {
        server: u16,
        was: Was,
    },
    Deposed {
        server: u16,
    },
    /// Most of the sentinels name this one from now on.
    Named {
        server: u16,
    },
    /// The run did not come to its end in time.
    Overran,
    /// What a watcher was told.
    Snapshot {
        members: BTreeMap<String, u64>,
    },
    Joined {
        id: String,
        incarnation: u64,
    },
    Updated {
        id: String,
        incarnation: u64,
    },
    Left {
        id: String,
        incarnation: u64,
        cause: String,
    },
    State {
        state: String,
    },
    /// A lock was asked for under a name that is used once.
    Asked {
        lock: String,
        attempt: String,
    },
    Granted {
        lock: String,
        attempt: String,
        token: u64,
    },
    GaveUp {
        lock: String,
        attempt: String,
    },
    /// What a guard said; `before` is from before it was asked. Neither held nor lost, it is suspended.
    Said {
        lock: String,
        token: u64,
        before: u64,
        held: bool,
        #[serde(default)]
        lost: bool,
    },
    Released {
        lock: String,
        token: u64,
    },
    /// What a worker asks of the resource.
    Load {
        request: u64,
        lock: String,
        token: u64,
    },
    Store {
        request: u64,
        lock: String,
        token: u64,
        fenced: u64,
        plain: u64,
    },
    /// What came of it.
    Judged {
        lock: String,
        token: u64,
        stored: bool,
        accepted: bool,
    },
    /// What a worker knows when it is asked.
    View {
        request: u64,
        members: BTreeMap<String, u64>,
        state: String,
        memory_kb: u64,
        #[serde(default)]
        tasks: u64,
        #[serde(default)]
        fds: u64,
        #[serde(default)]
        threads: u64,
    },
    /// A fault is about to begin, or over.
    Fault {
        fault: String,
        on: Vec<String>,
    },
    Healed {
        fault: String,
        on: Vec<String>,
        effective: bool,
        /// Of the order in which the server numbers incarnations and tokens: what is above was born after the heal.
        #[serde(default)]
        stamp: Option<u64>,
    },
    /// Which key a fault has hit, without the prefix, and whose it was.
    Hit {
        fault: String,
        key: String,
        owner: Option<String>,
    },
    /// No fault is active, and none begins until the next line of this kind.
    Quiet {
        begins: bool,
    },
    /// How long after the beginning of a quiet window all views were what the server had.
    Converged {
        after_ms: u64,
    },
    NotConverged {
        truth: BTreeMap<String, u64>,
        views: BTreeMap<String, BTreeMap<String, u64>>,
    },
    /// Who holds which lock and who waits for it, at one instant of the server.
    Order {
        /// Which server it was, by its port.
        #[serde(default)]
        server: u16,
        revision: u64,
        locks: Vec<Standing>,
    },
    /// Keys that belong to nobody, in a quiet window.
    Orphans {
        keys: Vec<String>,
    },
    /// Connections of clients to the server, and how many there should be at the most; of one worker, or all.
    Connections {
        open: u64,
        most: u64,
        #[serde(default)]
        of: String,
    },
}

/// What a server was before it served the group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Was {
    /// With the group's revision as far as it had come there, and by how many microseconds its clock is behind that of
    /// the primary before.
    Replica { known: u64, behind: u64 },
    /// Of other slots.
    Primary,
    /// Out of reach, or not yet there.
    Away,
}

/// How a lock stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) lock: String,
    pub(crate) token: u64,
    pub(crate) holder: Option<Place>,
    pub(crate) waiters: Vec<Place>,
}

/// Who holds or waits, and whether its session lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) session: String,
    pub(crate) attempt: String,
    pub(crate) alive: bool,
}

#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Vec<Line>>>);

impl History {
    pub(crate) fn add(&self, line: Line) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub(crate) fn note(&self, what: What) {
        self.add(Line { at: now(), who: "nemesis".into(), what });
    }

    /// What has been noted since then, nearly.
    pub(crate) fn since(&self, then: u64) -> Vec<Line> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = lines.iter().rev().take_while(|line| line.at + 1_000_000 >= then);
        recent.filter(|line| line.at >= then).cloned().collect()
    }

    /// In the order of time.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

pub(crate) fn save(lines: &[Line], path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for line in lines {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

pub(crate) fn load(path: &Path) -> std::io::Result<Vec<Line>> {
    let lines = BufReader::new(File::open(path)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
