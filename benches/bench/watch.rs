//! A watcher in another process: what it says, and how it is heard.

use std::collections::BTreeMap;

use crate::clock;
use crate::process::Process;
use crate::way::{Outcome, say};

/// The watcher's side: it says when it has seen so many of a kind, and again after as many more.
pub(crate) struct Tally {
    every: usize,
    seen: BTreeMap<&'static str, usize>,
}

impl Tally {
    pub(crate) fn new(every: usize) -> Self {
        Self { every, seen: BTreeMap::new() }
    }

    pub(crate) fn count(&mut self, kind: &'static str) -> Outcome<()> {
        let at = clock::now();
        let seen = self.seen.entry(kind).or_default();
        *seen += 1;
        if seen.is_multiple_of(self.every) { say(&format!("{kind} {at}")) } else { Ok(()) }
    }
}

pub(crate) struct Watcher(Process);

impl Watcher {
    /// A process that watches the group by these means.
    pub(crate) async fn start(means: &str, url: &str, group: &str, every: usize) -> Outcome<Self> {
        Ok(Self(Process::start(&["--watch", means, url, group, &every.to_string()]).await?))
    }

    /// When it has next seen that.
    pub(crate) async fn saw(&mut self, kind: &str) -> Outcome<f64> {
        loop {
            let line = self.0.line().await?;
            if let Some(at) = line.strip_prefix(kind) {
                return Ok(at.trim().parse()?);
            }
        }
    }
}
