//! What connectors cost the server in which nothing happens.

use std::time::Duration;

use group_redis::redis::aio::MultiplexedConnection;
use group_redis::{GroupConnector, GroupConnectorBuilder};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::base;
use crate::clock;
use crate::harness::{Goal, Scale, Subject, base as by_base, ours as by_ours, row};
use crate::ours;
use crate::way::{Figures, Outcome, Way, figures};

const TTL: Duration = Duration::from_secs(10);
/// The default for this ttl.
const HEARTBEAT: Duration = Duration::from_millis(3333);

pub(crate) fn subject(scale: Scale) -> Subject {
    let count = scale.pick(100, 1000);
    let what = format!("{count} idle connectors with a member each, server CPU");
    let pings = format!("{count} connections with a PING a heartbeat");
    Subject::new("idle", scale.pick(2, 6))
        .on_servers_of_their_own()
        .all_at_once()
        .compares([
            by_ours("ours", &format!("idle:{count}")),
            by_ours("watchers", &format!("idle-watchers:{count}")),
            by_base(&pings, &format!("idle-pings:{count}")),
        ])
        .rows([
            row(&what, "ours", "share").against(&pings, "share", Goal::AtMost(1.5)),
            row(&what, "ours", "share").against_before(Goal::AtMost(0.5)),
            row(format!("{count} idle watchers, server CPU"), "watchers", "share").against(&pings, "share", Goal::None),
        ])
}

/// The server that has only them.
struct IdleServer {
    connection: MultiplexedConnection,
    /// What joining has stirred up comes to rest; the safety ttl is renewed for the first time after two ttls.
    rest: Duration,
    window: Duration,
}

impl IdleServer {
    async fn of(url: &str, scale: Scale) -> Outcome<Self> {
        let (rest, window) = (scale.pick(TTL / 2, TTL * 2), scale.pick(HEARTBEAT, HEARTBEAT * 3));
        Ok(Self { connection: base::connection(url).await?, rest, window })
    }

    /// The share of a core that it uses for so long; before the first time it rests.
    async fn share(&mut self) -> Outcome<Figures> {
        sleep(std::mem::take(&mut self.rest)).await;
        let (before, began) = (base::used_by_server(&mut self.connection).await?, clock::now());
        sleep(self.window).await;
        let used = base::used_by_server(&mut self.connection).await? - before;
        Ok(figures([("share", vec![used / (clock::now() - began)])]))
    }
}

/// For so many that all read each join, and all in one process, that joining takes its time.
fn patient(url: &str, group: &str) -> GroupConnectorBuilder {
    ours::builder(url, group).ttl(TTL).command_timeout(TTL)
}

pub(crate) struct Ours {
    groups: Vec<GroupConnector>,
    server: IdleServer,
}

impl Ours {
    pub(crate) async fn members(url: &str, scale: Scale, count: usize) -> Outcome<Self> {
        let ours = Self::watchers(url, scale, count).await?;
        for (number, group) in ours.groups.iter().enumerate() {
            group.timeout(ours::PATIENCE).join(format!("m{number}")).await?;
        }
        Ok(ours)
    }

    pub(crate) async fn watchers(url: &str, scale: Scale, count: usize) -> Outcome<Self> {
        let name = ours::own_group();
        let groups = ours::connect_many(count, || patient(url, &name)).await?;
        Ok(Self { groups, server: IdleServer::of(url, scale).await? })
    }
}

impl Way for Ours {
    async fn round(&mut self) -> Outcome<Figures> {
        self.server.share().await
    }
}

/// What no heartbeat can cost less than.
pub(crate) struct Pings {
    _pinging: JoinSet<()>,
    server: IdleServer,
}

impl Pings {
    pub(crate) async fn begin(url: &str, scale: Scale, count: usize) -> Outcome<Self> {
        let mut pinging = JoinSet::new();
        for number in 0..count {
            let mut connection = base::connection(url).await?;
            pinging.spawn(async move {
                sleep(HEARTBEAT.mul_f64(number as f64 / count as f64)).await;
                let mut beats = interval(HEARTBEAT);
                while base::ping(&mut connection).await.is_ok() {
                    beats.tick().await;
                }
            });
        }
        Ok(Self { _pinging: pinging, server: IdleServer::of(url, scale).await? })
    }
}

impl Way for Pings {
    async fn round(&mut self) -> Outcome<Figures> {
        self.server.share().await
    }
}
