//! How soon a join and a leave are seen by a watcher in another process.

use group_redis::GroupConnector;
use group_redis::redis::aio::MultiplexedConnection;

use crate::base;
use crate::clock;
use crate::harness::{Goal, Scale, Subject, base as by_base, ours as by_ours, peer, row};
use crate::ours;
use crate::watch::Watcher;
use crate::way::{Figures, Outcome, Way, figures};

pub(crate) fn subject(scale: Scale) -> Subject {
    let seen = |what: &str, figure: &str| row(what, "ours", figure);
    Subject::new("membership", scale.pick(4, 12))
        .compares([
            by_ours("ours", "membership"),
            by_base("bare SET and DEL", "bare-membership"),
            by_base("PING", "pings"),
            peer("etcd", "etcd-membership"),
            peer("ZooKeeper", "zookeeper-membership"),
        ])
        .rows([
            seen("join -> Joined in another process", "join").against_before(Goal::AtMost(0.45)),
            seen("join -> Joined in another process", "join").against("ZooKeeper", "join", Goal::AtMost(0.6)),
            seen("join -> Joined in another process", "join").against("etcd", "join", Goal::AtMost(0.4)),
            seen("join -> Joined in another process", "join").against("bare SET and DEL", "join", Goal::AtMost(2.0)),
            seen("leave -> Left in another process", "leave").against_before(Goal::AtMost(0.45)),
            seen("leave -> Left in another process", "leave").against("bare SET and DEL", "leave", Goal::AtMost(2.0)),
            seen("leave -> Left in another process", "leave").against("ZooKeeper", "leave", Goal::None),
            seen("leave -> Left in another process", "leave").against("etcd", "leave", Goal::None),
            seen("join, answered", "join answered").against("PING", "ping", Goal::None),
            seen("leave, answered", "leave answered").against("PING", "ping", Goal::None),
            seen("sync, nothing changed", "sync").against("PING", "ping", Goal::None),
        ])
}

/// How often in a round.
pub(crate) fn times(scale: Scale) -> usize {
    scale.pick(50, 150)
}

pub(crate) struct Ours {
    group: GroupConnector,
    watcher: Watcher,
    times: usize,
}

impl Ours {
    pub(crate) async fn begin(url: &str, scale: Scale) -> Outcome<Self> {
        let name = ours::own_group();
        let mut watcher = Watcher::start("ours", url, &name, 1).await?;
        let group = ours::builder(url, &name).connect().await?;
        // Keeps the session, so that each join in turn is a join and not the opening of one.
        group.join("anchor").await?;
        watcher.saw("joined").await?;
        Ok(Self { group, watcher, times: times(scale) })
    }
}

impl Way for Ours {
    async fn round(&mut self) -> Outcome<Figures> {
        let [mut joined, mut join, mut left, mut leave, mut sync] = [const { Vec::new() }; 5];
        for _ in 0..self.times {
            let began = clock::now();
            let member = self.group.join("m").await?;
            join.push(clock::now() - began);
            joined.push(self.watcher.saw("joined").await? - began);
            let began = clock::now();
            member.leave().await?;
            leave.push(clock::now() - began);
            left.push(self.watcher.saw("left").await? - began);
            let began = clock::now();
            self.group.sync().await?;
            sync.push(clock::now() - began);
        }
        Ok(figures([
            ("join", joined),
            ("join answered", join),
            ("leave", left),
            ("leave answered", leave),
            ("sync", sync),
        ]))
    }
}

pub(crate) struct Bare {
    connection: MultiplexedConnection,
    key: String,
    watcher: Watcher,
    times: usize,
}

impl Bare {
    pub(crate) async fn begin(url: &str, scale: Scale) -> Outcome<Self> {
        let group = ours::own_group();
        let watcher = Watcher::start("bare", url, &group, 1).await?;
        let connection = base::connection(url).await?;
        Ok(Self { connection, key: format!("{group}/m"), watcher, times: times(scale) })
    }
}

impl Way for Bare {
    async fn round(&mut self) -> Outcome<Figures> {
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for _ in 0..self.times {
            let began = clock::now();
            base::set(&mut self.connection, &self.key).await?;
            joined.push(self.watcher.saw("joined").await? - began);
            let began = clock::now();
            base::del(&mut self.connection, &self.key).await?;
            left.push(self.watcher.saw("left").await? - began);
        }
        Ok(figures([("join", joined), ("leave", left)]))
    }
}
