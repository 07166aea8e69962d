//! rslock, on the one Redis that we are measured on.

use std::time::Duration;

use rslock::LockManager;

use crate::clock;
use crate::way::{Figures, Outcome, Way, figures};

pub(crate) struct Locks {
    locks: LockManager,
    times: usize,
}

impl Locks {
    pub(crate) fn begin(url: &str, times: usize) -> Self {
        Self { locks: LockManager::new(vec![url]), times }
    }
}

impl Way for Locks {
    async fn round(&mut self) -> Outcome<Figures> {
        let mut took = Vec::new();
        for _ in 0..self.times {
            let began = clock::now();
            let lock = self.locks.lock("rslock", Duration::from_secs(30)).await?;
            self.locks.unlock(&lock).await;
            took.push(clock::now() - began);
        }
        Ok(figures([("pair", took)]))
    }
}
