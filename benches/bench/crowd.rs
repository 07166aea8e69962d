//! What joins cost that a crowd of watchers sees, and how soon the last of them has seen it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use group_redis::redis::aio::{MultiplexedConnection, PubSub};
use group_redis::{Event, Events, GroupConnector};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::base;
use crate::clock;
use crate::harness::{Goal, Scale, Subject, base as by_base, ours as by_ours, row};
use crate::ours;
use crate::way::{Figures, Outcome, Way, figures};

pub(crate) fn subject(scale: Scale, watchers: usize) -> Subject {
    let joins = JOINS;
    let cpu = |figure: &str| row(format!("{joins} joins seen by {watchers} watchers, {figure}"), "ours", figure);
    let last = || row(format!("one join to the last of {watchers} watchers"), "ours", "last");
    let bare = format!("bare SETs to {watchers} subscribers");
    Subject::new(format!("crowd-{watchers}"), scale.pick(2, 3))
        .on_servers_of_their_own()
        .compares([by_ours("ours", &format!("crowd:{watchers}")), by_base(&bare, &format!("bare-crowd:{watchers}"))])
        .rows([
            cpu("server CPU").against(&bare, "server CPU", Goal::AtMost(1.3)),
            cpu("client CPU").against(&bare, "client CPU", Goal::AtMost(2.0)),
            cpu("server CPU").against_before(Goal::AtMost(0.3)),
            cpu("client CPU").against_before(Goal::AtMost(0.3)),
            last().against(&bare, "last", Goal::AtMost(1.5)),
            last().against_before(Goal::None),
        ])
}

const JOINS: usize = 100;

/// Says when the last of a crowd has seen what all see once.
struct Crowd {
    size: usize,
    seen: AtomicUsize,
    by_all: Semaphore,
}

impl Crowd {
    fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, seen: AtomicUsize::new(0), by_all: Semaphore::new(0) })
    }

    fn one_has_seen(&self) {
        if (self.seen.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(self.size) {
            self.by_all.add_permits(1);
        }
    }

    async fn all_have_seen(&self) -> Outcome<f64> {
        timeout(ours::PATIENCE, self.by_all.acquire()).await??.forget();
        Ok(clock::now())
    }
}

/// What is measured is the same for all: a hundred changes, one after the other, each seen by all.
async fn measure<C: Future<Output = Outcome<()>>>(
    server: &mut MultiplexedConnection,
    crowd: &Crowd,
    mut change: impl FnMut(usize) -> C,
) -> Outcome<Figures> {
    let before = (base::used_by_server(server).await?, clock::used_by_this_process());
    let mut last = Vec::new();
    for number in 0..JOINS {
        let began = clock::now();
        change(number).await?;
        last.push(crowd.all_have_seen().await? - began);
    }
    let client = clock::used_by_this_process() - before.1;
    let server = base::used_by_server(server).await? - before.0;
    Ok(figures([("last", last), ("server CPU", vec![server]), ("client CPU", vec![client])]))
}

pub(crate) struct Ours {
    group: GroupConnector,
    _watchers: Vec<GroupConnector>,
    crowd: Arc<Crowd>,
    server: MultiplexedConnection,
}

impl Ours {
    pub(crate) async fn begin(url: &str, size: usize) -> Outcome<Self> {
        let (name, crowd) = (ours::own_group(), Crowd::new(size));
        let watchers = ours::connect_many(size, || ours::builder(url, &name)).await?;
        for watcher in &watchers {
            tokio::spawn(look_on(watcher.events(), crowd.clone()));
        }
        let group = ours::builder(url, &name).connect().await?;
        group.join("anchor").await?;
        crowd.all_have_seen().await?;
        Ok(Self { group, _watchers: watchers, crowd, server: base::connection(url).await? })
    }
}

async fn look_on(mut events: Events, crowd: Arc<Crowd>) {
    while let Some(event) = events.next().await {
        if matches!(event, Event::Joined(_) | Event::Left { .. }) {
            crowd.one_has_seen();
        }
    }
}

impl Way for Ours {
    async fn round(&mut self) -> Outcome<Figures> {
        let group = &self.group;
        let join = |number| async move {
            group.join(format!("m{number}")).await?;
            Ok(())
        };
        let figures = measure(&mut self.server, &self.crowd, join).await?;
        for number in 0..JOINS {
            self.group.leave(format!("m{number}")).await?;
            self.crowd.all_have_seen().await?;
        }
        Ok(figures)
    }
}

pub(crate) struct Bare {
    group: String,
    connection: MultiplexedConnection,
    crowd: Arc<Crowd>,
    server: MultiplexedConnection,
    _subscribers: JoinSet<()>,
}

impl Bare {
    pub(crate) async fn begin(url: &str, size: usize) -> Outcome<Self> {
        let (group, crowd) = (ours::own_group(), Crowd::new(size));
        let mut subscribers = JoinSet::new();
        for _ in 0..size {
            subscribers.spawn(listen(base::subscription(url, &group).await?, crowd.clone()));
        }
        let (connection, server) = (base::connection(url).await?, base::connection(url).await?);
        Ok(Self { group, connection, crowd, server, _subscribers: subscribers })
    }
}

async fn listen(mut subscription: PubSub, crowd: Arc<Crowd>) {
    let mut messages = subscription.on_message();
    while messages.next().await.is_some() {
        crowd.one_has_seen();
    }
}

impl Way for Bare {
    async fn round(&mut self) -> Outcome<Figures> {
        let (group, connection) = (&self.group, &self.connection);
        let set = |number| {
            let mut connection = connection.clone();
            async move { base::set(&mut connection, &format!("{group}/m{number}")).await }
        };
        let figures = measure(&mut self.server, &self.crowd, set).await?;
        for number in 0..JOINS {
            base::del(&mut self.connection, &format!("{}/m{number}", self.group)).await?;
            self.crowd.all_have_seen().await?;
        }
        Ok(figures)
    }
}
