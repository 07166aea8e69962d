//! How long past its deadline a process is reported that has stopped without closing its connections.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use group_redis::redis::aio::{MultiplexedConnection, PubSub};
use group_redis::redis::cmd;
use group_redis::{Event, Events, GroupConnector};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, stdin};
use tokio::time::{sleep, timeout};

use crate::base;
use crate::clock;
use crate::harness::{Goal, Scale, Subject, base as by_base, ours as by_ours, peer, row};
use crate::ours;
use crate::process::Process;
use crate::way::{Figures, Outcome, Way, figures, say};

/// How many connectors crash at once, each with one member.
const SESSIONS: usize = 50;
const SHORT: Duration = Duration::from_secs(1);
/// The server comes upon a key that has run out by chance, and among many others after minutes: one that it has not told of by
/// then is counted as told.
const GIVEN_UP: Duration = Duration::from_secs(3);
/// Enough for so many to join within.
const LONG: Duration = Duration::from_secs(4);

pub(crate) fn subject(scale: Scale, foreign: usize) -> Subject {
    let what = format!("crash past the ttl, {foreign} other TTL keys");
    let of = |label: &str, percent| row(&what, label, "past").percentile(percent);
    let listening = format!("listening only (at most {GIVEN_UP:?})");
    let subject = Subject::new(format!("crash-{foreign}"), scale.pick(1, 4))
        .compares([by_ours("ours", &format!("crash:{foreign}")), by_base(&listening, &format!("bare-crash:{foreign}"))])
        .rows([
            of("ours", 50).absolute(Goal::AtMost(0.003)),
            of("ours", 99).absolute(Goal::AtMost(0.010)),
            of("ours", 50).against_before(Goal::None),
            of(&listening, 50).absolute(Goal::None),
            of(&listening, 99).absolute(Goal::None),
        ]);
    if foreign > 0 {
        return subject;
    }
    // What else stands in a Redis is nothing to them.
    let peers = ["etcd", "ZooKeeper"];
    subject
        .compares(peers.map(|label| peer(label, &format!("{}-crash", label.to_lowercase()))))
        .rows(peers.iter().flat_map(|label| [50, 99].map(|percent| of(label, percent).absolute(Goal::None))))
}

pub(crate) fn all_at_once(scale: Scale) -> Subject {
    let members = scale.pick(2_000, 10_000);
    let what = format!("{members} die at once, the last Left past the deadline");
    Subject::new("die", scale.pick(1, 3)).compares([by_ours("ours", &format!("die:{members}"))]).rows([
        row(&what, "ours", "last").percentile(50).absolute(Goal::AtMost(0.100)),
        row(&what, "ours", "last").against_before(Goal::None),
    ])
}

/// Keys of others that run out as well, though not now.
async fn fill(connection: &mut MultiplexedConnection, keys: usize) -> Outcome<()> {
    const AT_ONCE: usize = 50_000;
    let script = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'foreign:' .. i, i, 'PX', 3600000 + i) end";
    for first in (1..=keys).step_by(AT_ONCE) {
        let last = keys.min(first + AT_ONCE - 1);
        cmd("EVAL").arg(script).arg(0).arg(first).arg(last).query_async::<()>(connection).await?;
    }
    Ok(())
}

/// What to add to the server's time, in seconds, for ours.
async fn offset(connection: &mut MultiplexedConnection) -> Outcome<f64> {
    let asked = clock::now();
    let (seconds, micros): (f64, f64) = cmd("TIME").query_async(connection).await?;
    Ok(f64::midpoint(asked, clock::now()) - seconds - micros / 1e6)
}

/// A process with so many members of a group, which are joined when it is ready, and alive until its input ends.
pub(crate) async fn be_victims(url: &str, group: &str, ttl: &str, connectors: &str, members: &str) -> Outcome<()> {
    let (ttl, connectors, members) = (Duration::from_millis(ttl.parse()?), connectors.parse()?, members.parse()?);
    let (process, mut groups) = (std::process::id(), Vec::new());
    for connector in 0..connectors {
        let group = ours::builder(url, group).ttl(ttl).connect().await?;
        ours::join_all(&group, (0..members).map(|member: usize| format!("m-{process}-{connector}-{member}"))).await?;
        groups.push(group);
    }
    say("ready")?;
    stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

pub(crate) struct Ours {
    url: String,
    group: String,
    _watcher: GroupConnector,
    events: Events,
    connection: MultiplexedConnection,
    ttl: Duration,
    connectors: usize,
    members: usize,
}

impl Ours {
    pub(crate) async fn sessions(url: &str, foreign: usize) -> Outcome<Self> {
        let mut ours = Self::begin(url, SHORT, SESSIONS, 1).await?;
        fill(&mut ours.connection, foreign).await?;
        Ok(ours)
    }

    pub(crate) async fn members(url: &str, members: usize) -> Outcome<Self> {
        Self::begin(url, LONG, 1, members).await
    }

    async fn begin(url: &str, ttl: Duration, connectors: usize, members: usize) -> Outcome<Self> {
        let group = ours::own_group();
        let watcher = ours::watcher(url, &group).await?;
        let (events, connection) = (watcher.events(), base::connection(url).await?);
        Ok(Self { url: url.to_owned(), group, _watcher: watcher, events, connection, ttl, connectors, members })
    }

    /// When the lease of each member runs out, by our clock.
    async fn deadlines(&mut self, members: &[String]) -> Outcome<BTreeMap<String, f64>> {
        let offset = offset(&mut self.connection).await?;
        let mut leases = cmd("ZRANGE");
        leases.arg(format!("{{{}}}/leases", self.group)).arg(&["0", "-1", "WITHSCORES"]);
        let leases: Vec<(String, f64)> = leases.query_async(&mut self.connection).await?;
        let mut records = cmd("MGET");
        records.arg(members.iter().map(|name| format!("{{{}}}/members/{name}", self.group)).collect::<Vec<_>>());
        let records: Vec<Vec<u8>> = records.query_async(&mut self.connection).await?;
        let mut deadlines = BTreeMap::new();
        for (member, record) in members.iter().zip(records) {
            // However it is written, the record names the session whose lease the member lives by.
            let names = |session: &str| record.windows(session.len()).any(|part| part == session.as_bytes());
            let (_, at) = leases.iter().find(|(session, _)| names(session)).ok_or("a member without a lease")?;
            deadlines.insert(member.clone(), at / 1000.0 + offset);
        }
        Ok(deadlines)
    }
}

impl Way for Ours {
    async fn round(&mut self) -> Outcome<Figures> {
        let (connectors, members) = (self.connectors.to_string(), self.members.to_string());
        let ttl = self.ttl.as_millis().to_string();
        let victims = Process::start(&["--victims", &self.url, &self.group, &ttl, &connectors, &members]).await?;
        victims.signal(Signal::STOP)?;
        let count = self.connectors * self.members;
        let mut joined = Vec::new();
        while joined.len() < count {
            if let Some(Event::Joined(member)) = self.events.next().await {
                joined.push(member.id().to_string());
            }
        }
        let deadlines = self.deadlines(&joined).await?;
        let mut past = Vec::new();
        while past.len() < count {
            if let Some(Event::Left { member, .. }) = timeout(ours::PATIENCE, self.events.next()).await? {
                past.push(clock::now() - deadlines[member.id().as_str()]);
            }
        }
        victims.signal(Signal::KILL)?;
        victims.end().await?;
        let last = past.iter().copied().fold(f64::MIN, f64::max);
        Ok(figures([("past", past), ("last", vec![last])]))
    }
}

/// What the server tells by itself of keys that run out.
pub(crate) struct Bare {
    group: String,
    connection: MultiplexedConnection,
    subscription: PubSub,
}

impl Bare {
    pub(crate) async fn begin(url: &str, foreign: usize) -> Outcome<Self> {
        let group = ours::own_group();
        let mut connection = base::connection(url).await?;
        fill(&mut connection, foreign).await?;
        Ok(Self { subscription: base::subscription(url, &group).await?, group, connection })
    }
}

impl Way for Bare {
    async fn round(&mut self) -> Outcome<Figures> {
        let offset = offset(&mut self.connection).await?;
        let mut deadlines = BTreeMap::new();
        for number in 0..SESSIONS {
            let at = clock::now() + SHORT.as_secs_f64() - offset;
            let at = (at * 1000.0).round();
            let key = format!("{}/m-{number}", self.group);
            let mut set = cmd("SET");
            set.arg(&key).arg("value").arg("PXAT").arg(format!("{at}"));
            set.query_async::<()>(&mut self.connection).await?;
            deadlines.insert(key, at / 1000.0 + offset);
        }
        let mut past = Vec::new();
        let mut messages = self.subscription.on_message();
        let given_up = sleep(SHORT + GIVEN_UP);
        let mut given_up = pin!(given_up);
        while !deadlines.is_empty() {
            let message = tokio::select! {
                message = messages.next() => message.ok_or("the subscription has ended")?,
                () = &mut given_up => break,
            };
            let key = message.get_channel_name().split_once(':').map(|(_, key)| key.to_owned());
            if message.get_payload_bytes() == b"expired"
                && let Some(deadline) = key.and_then(|key| deadlines.remove(&key))
            {
                past.push(clock::now() - deadline);
            }
        }
        drop(messages);
        past.extend(deadlines.values().map(|_| GIVEN_UP.as_secs_f64()));
        let keys: Vec<_> = deadlines.into_keys().collect();
        if !keys.is_empty() {
            cmd("DEL").arg(keys).query_async::<()>(&mut self.connection).await?;
        }
        Ok(figures([("past", past)]))
    }
}
