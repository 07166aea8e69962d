//! What a lock costs that nobody else wants, and many of them at once.

use group_redis::redis::aio::MultiplexedConnection;
use group_redis::{GroupConnector, Lock};
use tokio::task::JoinSet;

use crate::base;
use crate::clock;
use crate::harness::{Goal, Scale, Subject, base as by_base, ours as by_ours, peer, row};
use crate::ours;
use crate::way::{Figures, Outcome, Way, figures};

pub(crate) fn subject(scale: Scale) -> Subject {
    let pair = || row("uncontended acquire + release", "ours", "pair");
    Subject::new("locks", scale.pick(5, 20))
        .compares([
            by_ours("ours", "locks"),
            by_base("pair of PINGs", "ping-pairs"),
            by_base("SET NX + script", "simplest-locks"),
            peer("rslock", "rslock-locks"),
            peer("etcd", "etcd-locks"),
        ])
        .rows([
            pair().against("pair of PINGs", "pair", Goal::AtMost(1.3)),
            pair().against("rslock", "pair", Goal::AtMost(0.95)),
            pair().against("SET NX + script", "pair", Goal::AtMost(1.0)),
            pair().against("etcd", "pair", Goal::None),
            pair().against_before(Goal::None),
        ])
}

pub(crate) fn many_tasks(scale: Scale) -> Subject {
    let what = format!("{TASKS} tasks on one connector, acquire + release");
    Subject::new("tasks", scale.pick(4, 10))
        .compares([by_ours("ours", "tasks"), by_base("pairs of PINGs", "ping-tasks")])
        .rows([
            row(&what, "ours", "rate").against("pairs of PINGs", "rate", Goal::AtLeast(0.8)),
            row(&what, "ours", "rate").against_before(Goal::None),
        ])
}

/// What a row counts as one: two round trips at least.
pub(crate) trait Pair: Sized + Send {
    fn begin(url: &str) -> impl Future<Output = Outcome<Self>> + Send;
    fn once(&mut self) -> impl Future<Output = Outcome<()>> + Send;
    /// The same for another task, over the same connection.
    fn for_task(&self, number: usize) -> Self;
}

pub(crate) struct Ours {
    group: GroupConnector,
    lock: Lock,
}

impl Pair for Ours {
    async fn begin(url: &str) -> Outcome<Self> {
        let group = ours::builder(url, &ours::own_group()).connect().await?;
        Ok(Self { lock: group.lock("uncontended"), group })
    }

    async fn once(&mut self) -> Outcome<()> {
        self.lock.acquire().await?.release().await;
        Ok(())
    }

    fn for_task(&self, number: usize) -> Self {
        Self { group: self.group.clone(), lock: self.group.lock(format!("task-{number}")) }
    }
}

#[derive(Clone)]
pub(crate) struct Pings(MultiplexedConnection);

impl Pair for Pings {
    async fn begin(url: &str) -> Outcome<Self> {
        Ok(Self(base::connection(url).await?))
    }

    async fn once(&mut self) -> Outcome<()> {
        base::ping(&mut self.0).await?;
        base::ping(&mut self.0).await
    }

    fn for_task(&self, _: usize) -> Self {
        self.clone()
    }
}

#[derive(Clone)]
pub(crate) struct Simplest(MultiplexedConnection);

impl Pair for Simplest {
    async fn begin(url: &str) -> Outcome<Self> {
        Ok(Self(base::connection(url).await?))
    }

    async fn once(&mut self) -> Outcome<()> {
        base::lock_and_unlock(&mut self.0).await
    }

    fn for_task(&self, _: usize) -> Self {
        self.clone()
    }
}

/// One after the other.
pub(crate) struct InTurn<P> {
    pair: P,
    times: usize,
}

impl<P: Pair> InTurn<P> {
    pub(crate) async fn begin(url: &str, scale: Scale) -> Outcome<Self> {
        Ok(Self { pair: P::begin(url).await?, times: scale.pick(100, 200) })
    }
}

impl<P: Pair> Way for InTurn<P> {
    async fn round(&mut self) -> Outcome<Figures> {
        let mut took = Vec::new();
        for _ in 0..self.times {
            let began = clock::now();
            self.pair.once().await?;
            took.push(clock::now() - began);
        }
        Ok(figures([("pair", took)]))
    }
}

const TASKS: usize = 64;
const EACH: usize = 100;

/// In so many tasks at once.
pub(crate) struct Together<P>(P);

impl<P: Pair> Together<P> {
    pub(crate) async fn begin(url: &str) -> Outcome<Self> {
        Ok(Self(P::begin(url).await?))
    }
}

impl<P: Pair + Sync + 'static> Way for Together<P> {
    async fn round(&mut self) -> Outcome<Figures> {
        let began = clock::now();
        let mut tasks = JoinSet::new();
        for number in 0..TASKS {
            let mut pair = self.0.for_task(number);
            tasks.spawn(async move {
                for _ in 0..EACH {
                    pair.once().await?;
                }
                Outcome::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let rate = (TASKS * EACH) as f64 / (clock::now() - began);
        Ok(figures([("rate", vec![rate])]))
    }
}
