//! How soon a process that was killed is reported, by the end of its connections.

use std::time::Duration;

use group_redis::{Event, GroupConnector};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::harness::{Goal, Scale, Subject, ours as by_ours, row};
use crate::ours;
use crate::process::Process;
use crate::way::{Figures, Outcome, Way, figures};

/// So long that nothing here is seen by it.
const TTL: Duration = Duration::from_secs(10);
const WATCHERS: usize = 5;

pub(crate) fn subject(scale: Scale) -> Subject {
    let what = format!("killed process, ttl 10 s, to the last of {WATCHERS} watchers");
    Subject::new("kill", scale.pick(2, 6)).compares([by_ours("ours", "kill")]).rows([
        row(&what, "ours", "left").percentile(50).absolute(Goal::AtMost(0.150)),
        row(&what, "ours", "left").percentile(99).absolute(Goal::AtMost(0.300)),
        row(&what, "ours", "left").against_before(Goal::None),
    ])
}

/// When a watcher has seen it, and whether it was a join.
type Seen = (f64, bool);

pub(crate) struct Ours {
    url: String,
    group: String,
    watchers: Vec<GroupConnector>,
    seen: mpsc::Receiver<Seen>,
    times: usize,
}

impl Ours {
    pub(crate) async fn begin(url: &str, scale: Scale) -> Outcome<Self> {
        let (group, (sender, seen)) = (ours::own_group(), mpsc::channel(1024));
        let mut watchers = Vec::new();
        for _ in 0..WATCHERS {
            let watcher = ours::builder(url, &group).ttl(TTL).connect().await?;
            tokio::spawn(pass_on(watcher.clone(), sender.clone()));
            watchers.push(watcher);
        }
        Ok(Self { url: url.to_owned(), group, watchers, seen, times: scale.pick(4, 10) })
    }

    /// When the last of the watchers has seen the one victim that there is join or leave.
    async fn seen_by_all(&mut self, has_joined: bool) -> Outcome<f64> {
        let (mut last, mut missing) = (0.0, WATCHERS);
        while missing > 0 {
            let (at, joined) = timeout(ours::PATIENCE, self.seen.recv()).await?.ok_or("no watcher")?;
            if joined == has_joined {
                last = f64::max(last, at);
                missing -= 1;
            }
        }
        Ok(last)
    }

    /// A process that ends before a prober has seen it is reported by its lease only.
    async fn is_present(&self) -> Outcome<()> {
        let seeing = async {
            while !self.watchers.iter().any(|watcher| watcher.status().sessions_seen > 0) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        Ok(timeout(ours::PATIENCE, seeing).await?)
    }
}

async fn pass_on(watcher: GroupConnector, seen: mpsc::Sender<Seen>) {
    let mut events = watcher.events();
    while let Some(event) = events.next().await {
        let has_joined = match event {
            Event::Joined(_) => true,
            Event::Left { .. } => false,
            _ => continue,
        };
        if seen.send((clock::now(), has_joined)).await.is_err() {
            break;
        }
    }
}

impl Way for Ours {
    async fn round(&mut self) -> Outcome<Figures> {
        let ttl = TTL.as_millis().to_string();
        let mut took = Vec::new();
        for _ in 0..self.times {
            let victim = Process::start(&["--victims", &self.url, &self.group, &ttl, "1", "1"]).await?;
            self.seen_by_all(true).await?;
            self.is_present().await?;
            let killed = clock::now();
            victim.signal(Signal::KILL)?;
            took.push(self.seen_by_all(false).await? - killed);
            victim.end().await?;
        }
        Ok(figures([("left", took)]))
    }
}
