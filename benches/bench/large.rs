//! A group with very many members, most of them of one process.

use std::time::Duration;

use group_redis::redis::aio::MultiplexedConnection;
use group_redis::redis::pipe;
use group_redis::{GroupConnector, Membership};
use tokio::time::sleep;

use crate::base;
use crate::clock;
use crate::harness::{Goal, Scale, Subject, base as by_base, ours as by_ours, row};
use crate::ours;
use crate::process::Process;
use crate::watch::Watcher;
use crate::way::{Figures, Outcome, Way, figures, say};

pub(crate) fn burst(scale: Scale) -> Subject {
    let joins = scale.pick(2_000, 10_000);
    let what = format!("{joins} joins of one process, seen by a watcher in another");
    Subject::new("burst", scale.pick(2, 5))
        .compares([
            by_ours("ours", &format!("burst:{joins}")),
            by_base("pipelined SETs", &format!("bare-burst:{joins}")),
        ])
        .rows([
            row(&what, "ours", "rate").against("pipelined SETs", "rate", Goal::AtLeast(0.6)),
            row(&what, "ours", "rate").against_before(Goal::None),
        ])
}

pub(crate) fn joins(scale: Scale) -> Subject {
    let members = scale.pick(10_000, 100_000);
    let of = |figure: &str| row(format!("{members} joins of one process, {figure}"), "ours", figure);
    Subject::new("joins", scale.pick(2, 2)).compares([by_ours("ours", &format!("joins:{members}"))]).rows([
        of("client CPU").against_before(Goal::AtMost(0.4)),
        of("wall").against_before(Goal::AtMost(0.5)),
        of("server CPU").against_before(Goal::None),
    ])
}

pub(crate) fn at_rest(scale: Scale) -> Subject {
    let (few, many) = (scale.pick(100, 1_000), scale.pick(10_000, 100_000));
    let update = format!("update seen among {many} members");
    let rest = format!("{many} members at rest, two watchers, server CPU");
    let among_few = format!("among {few}");
    let memory = format!("memory a member, in a fresh view of {many}");
    Subject::new("large", scale.pick(2, 4))
        .on_servers_of_their_own()
        .compares([by_ours("ours", &format!("large:{many}")), by_ours(&among_few, &format!("large:{few}"))])
        .rows([
            row(&update, "ours", "update").against(&among_few, "update", Goal::AtMost(1.2)),
            row(&update, "ours", "update").against_before(Goal::None),
            row(&rest, "ours", "share").against_before(Goal::AtMost(0.1)),
            row(&memory, "ours", "bytes").absolute(Goal::AtMost(400.0)),
            row(&memory, "ours", "bytes").against_before(Goal::None),
        ])
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("m{number}"))
}

pub(crate) struct Burst {
    group: GroupConnector,
    watcher: Watcher,
    joins: usize,
}

impl Burst {
    pub(crate) async fn begin(url: &str, joins: usize) -> Outcome<Self> {
        let name = ours::own_group();
        let watcher = Watcher::start("ours", url, &name, joins).await?;
        Ok(Self { group: ours::builder(url, &name).connect().await?, watcher, joins })
    }
}

impl Way for Burst {
    async fn round(&mut self) -> Outcome<Figures> {
        let began = clock::now();
        let members = ours::join_all(&self.group, names(self.joins)).await?;
        let took = self.watcher.saw("joined").await? - began;
        ours::leave_all(members).await?;
        self.watcher.saw("left").await?;
        Ok(figures([("rate", vec![self.joins as f64 / took])]))
    }
}

pub(crate) struct BareBurst {
    connection: MultiplexedConnection,
    watcher: Watcher,
    group: String,
    sets: usize,
}

impl BareBurst {
    pub(crate) async fn begin(url: &str, sets: usize) -> Outcome<Self> {
        let group = ours::own_group();
        let watcher = Watcher::start("bare", url, &group, sets).await?;
        Ok(Self { connection: base::connection(url).await?, watcher, group, sets })
    }
}

impl Way for BareBurst {
    async fn round(&mut self) -> Outcome<Figures> {
        let began = clock::now();
        let (mut sets, mut dels) = (pipe(), pipe());
        for name in names(self.sets) {
            let key = format!("{}/{name}", self.group);
            sets.set(&key, "value").ignore();
            dels.del(key).ignore();
        }
        sets.query_async::<()>(&mut self.connection).await?;
        let took = self.watcher.saw("joined").await? - began;
        dels.query_async::<()>(&mut self.connection).await?;
        self.watcher.saw("left").await?;
        Ok(figures([("rate", vec![self.sets as f64 / took])]))
    }
}

/// All of them join anew in each round.
pub(crate) struct Joins {
    url: String,
    server: MultiplexedConnection,
    members: usize,
}

impl Joins {
    pub(crate) async fn begin(url: &str, members: usize) -> Outcome<Self> {
        Ok(Self { url: url.to_owned(), server: base::connection(url).await?, members })
    }
}

impl Way for Joins {
    async fn round(&mut self) -> Outcome<Figures> {
        let group = ours::builder(&self.url, &ours::own_group()).connect().await?;
        let before = (base::used_by_server(&mut self.server).await?, clock::used_by_this_process());
        let began = clock::now();
        let members = ours::join_all(&group, names(self.members)).await?;
        group.wait_for(ours::PATIENCE, |view| view.len() == self.members).await?;
        let wall = clock::now() - began;
        let client = clock::used_by_this_process() - before.1;
        let server = base::used_by_server(&mut self.server).await? - before.0;
        drop(members);
        group.timeout(ours::PATIENCE).close().await?;
        Ok(figures([("wall", vec![wall]), ("client CPU", vec![client]), ("server CPU", vec![server])]))
    }
}

/// What this process has in memory, in bytes; 0 where the system does not say it so.
fn memory() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).unwrap_or("0");
    Ok(kilobytes.parse::<f64>()? * 1024.0)
}

/// A process that says how much its memory has grown by a view, for each member.
pub(crate) async fn weigh(url: &str, group: &str, members: usize) -> Outcome<()> {
    let before = memory()?;
    let group = ours::builder(url, group).connect().await?;
    group.wait_for(ours::PATIENCE, |view| view.len() == members).await?;
    say("ready")?;
    say(&((memory()? - before) / members as f64).to_string())
}

/// Members at rest, but for one that is updated now and then, before two watchers in other processes.
pub(crate) struct Large {
    url: String,
    _group: GroupConnector,
    name: String,
    members: usize,
    _others: Vec<Membership>,
    updated: Membership,
    watcher: Watcher,
    _watcher: Watcher,
    server: MultiplexedConnection,
    window: Duration,
    updates: usize,
}

impl Large {
    pub(crate) async fn begin(url: &str, scale: Scale, members: usize) -> Outcome<Self> {
        let name = ours::own_group();
        let group = ours::builder(url, &name).connect().await?;
        let mut others = ours::join_all(&group, names(members)).await?;
        let updated = others.swap_remove(members / 2);
        let watcher = Watcher::start("ours", url, &name, 1).await?;
        let other = Watcher::start("ours", url, &name, 1).await?;
        sleep(scale.pick(Duration::from_millis(500), Duration::from_secs(5))).await;
        Ok(Self {
            url: url.to_owned(),
            _group: group,
            name,
            members,
            _others: others,
            updated,
            watcher,
            _watcher: other,
            server: base::connection(url).await?,
            window: scale.pick(Duration::from_secs(2), Duration::from_secs(8)),
            updates: scale.pick(20, 40),
        })
    }
}

impl Way for Large {
    async fn round(&mut self) -> Outcome<Figures> {
        let mut fresh = Process::start(&["--weigh", &self.url, &self.name, &self.members.to_string()]).await?;
        let bytes = fresh.line().await?.parse()?;
        fresh.end().await?;
        let (before, rested) = (base::used_by_server(&mut self.server).await?, clock::now());
        sleep(self.window).await;
        let used = base::used_by_server(&mut self.server).await? - before;
        let share = used / (clock::now() - rested);
        let mut took = Vec::new();
        for number in 0..self.updates {
            let began = clock::now();
            self.updated.update(&number).await?;
            took.push(self.watcher.saw("updated").await? - began);
        }
        Ok(figures([("bytes", vec![bytes]), ("share", vec![share]), ("update", took)]))
    }
}
