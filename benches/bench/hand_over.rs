//! From the call of release in one process to the return of acquire in the next.
//!
//! A waiter has been asleep for as long as all the others held the lock, and a sleeper's first steps are slow: so it is
//! compared with the `PING`s of a process that has slept as long, sent in the same seconds.

use std::time::Duration;

use group_redis::redis::aio::MultiplexedConnection;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::base;
use crate::clock;
use crate::harness::{Goal, Scale, Subject, ours as by_ours, row};
use crate::ours;
use crate::process::Process;
use crate::way::{Figures, Outcome, Way, figures, say};

/// How long each holder holds: long enough for the last one to stand in the queue again.
const HOLD: Duration = Duration::from_millis(2);

pub(crate) fn subject(scale: Scale, waiters: usize) -> Subject {
    let what = format!("hand-over with {waiters} waiters");
    Subject::new(format!("hand-over-{waiters}"), scale.pick(3, 10))
        .compares([by_ours("ours", &format!("hand-over:{waiters}"))])
        .rows([
            row(&what, "ours", "hand-over")
                .against("ours", "ping", Goal::AtMost(2.0))
                .base_is("PING of a process that slept as long"),
            row(&what, "ours", "hand-over").against_before(Goal::None),
        ])
}

pub(crate) struct Ours {
    connection: MultiplexedConnection,
    workers: Vec<Process>,
    turns: usize,
}

impl Ours {
    pub(crate) async fn begin(url: &str, scale: Scale, waiters: usize) -> Outcome<Self> {
        let (group, processes) = (ours::own_group(), waiters + 1);
        let mut workers = Vec::new();
        for _ in 0..processes {
            workers.push(Process::start(&["--worker", url, &group]).await?);
        }
        let turns = (scale.pick(90, 600) / processes).max(5);
        Ok(Self { connection: base::connection(url).await?, workers, turns })
    }
}

impl Way for Ours {
    async fn round(&mut self) -> Outcome<Figures> {
        let processes = self.workers.len();
        let over = CancellationToken::new();
        let asleep = HOLD * u32::try_from(processes)?;
        let pinging = tokio::spawn(pings(self.connection.clone(), asleep, over.clone()));
        for worker in &mut self.workers {
            worker.tell(&self.turns.to_string()).await?;
        }
        let mut holds = Vec::new();
        for worker in &mut self.workers {
            for _ in 0..self.turns {
                holds.push(Hold::parse(&worker.line().await?)?);
            }
        }
        over.cancel();
        holds.sort_unstable_by_key(|hold| hold.token);
        // Without those at the end, when no full queue waits any more.
        let full = &holds[processes.min(holds.len())..holds.len().saturating_sub(processes)];
        let took = full.windows(2).map(|pair| pair[1].held - pair[0].released).collect();
        Ok(figures([("hand-over", took), ("ping", pinging.await??)]))
    }
}

async fn pings(mut connection: MultiplexedConnection, asleep: Duration, over: CancellationToken) -> Outcome<Vec<f64>> {
    let mut took = Vec::new();
    while over.run_until_cancelled(sleep(asleep)).await.is_some() {
        let began = clock::now();
        base::ping(&mut connection).await?;
        took.push(clock::now() - began);
    }
    Ok(took)
}

struct Hold {
    token: u64,
    held: f64,
    released: f64,
}

impl Hold {
    fn parse(line: &str) -> Outcome<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or_else(|| format!("no hold: {line}"));
        Ok(Self { token: word()?.parse()?, held: word()?.parse()?, released: word()?.parse()? })
    }
}

/// A process that holds the lock again and again, as often as it is told, and then says when it did.
pub(crate) async fn work(url: &str, group: &str) -> Outcome<()> {
    let group = ours::builder(url, group).connect().await?;
    let lock = group.lock("handed-on");
    say("ready")?;
    let mut asked = BufReader::new(stdin()).lines();
    while let Some(turns) = asked.next_line().await? {
        let mut said = Vec::new();
        for _ in 0..turns.parse()? {
            let guard = lock.acquire().await?;
            let (held, token) = (clock::now(), guard.token());
            sleep(HOLD).await;
            let released = clock::now();
            guard.release().await;
            said.push(format!("{token} {held} {released}"));
            // What it does next is not to be measured with the hand-over, on a machine of few cores.
            sleep(HOLD / 2).await;
        }
        say(&said.join("\n"))?;
    }
    Ok(())
}
