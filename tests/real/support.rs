//! What the tests share: a server of their own, and a recorder that folds the events and waits for conditions.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use group_redis::testing::TestRedis;
use group_redis::{Event, GroupConnector, GroupConnectorBuilder, LeaveCause, Member};
use tokio::sync::watch;

/// How long anything that is waited for may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The ttl of most tests: short, and long enough for a machine that is busy with others.
pub(crate) const TTL: Duration = Duration::from_secs(1);

/// A server for one test.
pub(crate) struct Fixture {
    pub(crate) redis: TestRedis,
    pub(crate) group: String,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with_args(&[]).await
    }

    pub(crate) async fn with_args(args: &[&str]) -> Self {
        static LOG: std::sync::Once = std::sync::Once::new();
        LOG.call_once(|| {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
        });
        let redis = TestRedis::builder().args(args.iter().copied()).start().await.expect("a Redis server");
        // A shared server may hold the groups of other tests.
        let group = format!("test-{}-{:?}", std::process::id(), Instant::now()).replace(' ', "");
        Self { redis, group }
    }

    pub(crate) fn builder(&self) -> GroupConnectorBuilder {
        GroupConnector::builder(self.redis.url()).group(&self.group).ttl(TTL)
    }

    pub(crate) async fn connect(&self) -> GroupConnector {
        self.builder().connect().await.expect("connect")
    }

    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        self.redis.connection().await.expect("a connection")
    }

    /// The name of a key of the group, as PROTOCOL.md says.
    pub(crate) fn key(&self, path: &str) -> String {
        let encoded: String = self
            .group
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'~' | b'-' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        format!("{{{encoded}}}/{path}")
    }
}

/// One thing a watcher was told, and when.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Snapshot(Vec<String>),
    Joined(Arc<Member>),
    Updated(Arc<Member>),
    Left(Arc<Member>, LeaveCause),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(names) => write!(f, "snapshot {names:?}"),
            Self::Joined(member) => write!(f, "joined {} {}", member.id(), member.incarnation()),
            Self::Updated(member) => write!(f, "updated {} {}", member.id(), member.revision()),
            Self::Left(member, cause) => write!(f, "left {} {} {cause}", member.id(), member.incarnation()),
        }
    }
}

/// Everything a watcher has been told, and what it folds to.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) told: Vec<(Instant, Told)>,
    pub(crate) members: BTreeMap<String, Arc<Member>>,
    pub(crate) snapshots: usize,
    pub(crate) joins: usize,
    pub(crate) leaves: usize,
}

impl Record {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.members.keys().map(String::as_str).collect()
    }

    pub(crate) fn left(&self, name: &str) -> Option<LeaveCause> {
        self.told.iter().rev().find_map(|(_, told)| match told {
            Told::Left(member, cause) if member.id() == name => Some(*cause),
            _ => None,
        })
    }

    /// Each member joins, is updated and leaves, in turn, whatever the test is about.
    fn take(&mut self, event: Event) {
        let told = match event {
            Event::Snapshot(view) => {
                self.snapshots += 1;
                self.members = view.iter().map(|member| (member.id().to_string(), member.clone())).collect();
                Told::Snapshot(self.members.keys().cloned().collect())
            }
            Event::Joined(member) => {
                let before = self.members.insert(member.id().to_string(), member.clone());
                assert!(before.is_none(), "joined while there: {before:?}");
                self.joins += 1;
                Told::Joined(member)
            }
            Event::Updated { old, new } => {
                assert_eq!(old.incarnation(), new.incarnation());
                let before = self.members.insert(new.id().to_string(), new.clone());
                assert_eq!(before, Some(old), "updated from something else");
                Told::Updated(new)
            }
            Event::Left { member, cause } => {
                let before = self.members.remove(member.id().as_str());
                assert_eq!(before.as_ref(), Some(&member), "left, but was not there");
                self.leaves += 1;
                Told::Left(member, cause)
            }
            other => panic!("an event the tests do not know: {other:?}"),
        };
        self.told.push((Instant::now(), told));
    }
}

/// Follows the events of a connector in a task of its own.
pub(crate) struct Recorder {
    record: Arc<Mutex<Record>>,
    changed: watch::Receiver<usize>,
}

impl Recorder {
    pub(crate) fn new(group: &GroupConnector) -> Self {
        let mut events = group.events();
        let record = Arc::new(Mutex::new(Record::default()));
        let (sender, changed) = watch::channel(0);
        let writing = record.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                writing.lock().expect("a fold that failed").take(event);
                sender.send_modify(|count| *count += 1);
            }
        });
        Self { record, changed }
    }

    /// Waits until what was told is as wanted; fails with the history if it is not in time.
    pub(crate) async fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&Record) -> Option<T>) -> T {
        let mut changed = self.changed.clone();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = wanted(&self.record.lock().expect("a fold that failed")) {
                    return Some(found);
                }
                changed.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some(found)) => found,
            _ => panic!("{what}: it did not happen. {}", self.history()),
        }
    }

    pub(crate) async fn wait_until(&self, what: &str, mut wanted: impl FnMut(&Record) -> bool) {
        self.wait(what, |record| wanted(record).then_some(())).await;
    }

    pub(crate) async fn wait_for_names(&self, names: &[&str]) {
        self.wait_until(&format!("the members {names:?}"), |record| record.names() == names).await;
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.record.lock().expect("a fold that failed"))
    }

    pub(crate) fn history(&self) -> String {
        let record = self.record.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = record.told.first().map(|(at, _)| *at);
        let line = |(at, told): &(Instant, Told)| {
            format!("{:>10.3?} {told}", first.map_or(Duration::ZERO, |first| *at - first))
        };
        format!("History:\n{}", record.told.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// Says what a test could not show with this server, past the capture of the test harness.
pub(crate) fn not_shown(why: &dyn std::fmt::Display) {
    let _ = std::io::stderr().write_all(format!("not shown here: {why}\n").as_bytes());
}

/// How often a command was called. Before Redis 7.0 all subcommands of one command are counted together.
pub(crate) async fn calls(connection: &mut redis::aio::MultiplexedConnection, name: &str) -> u64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await.unwrap();
    let command = name.split('|').next().expect("a name");
    let count = |name: &str| {
        let rest = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")))?;
        Some(rest.split(',').next()?.parse().expect("a number"))
    };
    count(name).or_else(|| count(command)).unwrap_or(0)
}

/// Waits until this many replicas know all that was written before. `WAIT` speaks for what its own connection has written.
pub(crate) async fn replicated(redis: &TestRedis, replicas: usize) {
    let mut connection = redis.connection().await.unwrap();
    let mut info =
        async || redis::cmd("INFO").arg("replication").query_async::<String>(&mut connection).await.expect("INFO");
    let number = |line: &str, name: &str| line.split_once(name)?.1.split([',', '\r']).next()?.parse::<u64>().ok();
    let offset = |info: &str| info.lines().find_map(|line| number(line, "master_repl_offset:"));
    let written = offset(&info().await).expect("the offset of a primary");
    let know = async || {
        let info = info().await;
        let replicas_know = info.lines().filter(|line| line.starts_with("slave"));
        replicas_know.filter(|line| number(line, ",offset=").is_some_and(|known| known >= written)).count() >= replicas
    };
    eventually("replicas know what was written", know).await;
}

/// Waits until something that can only be asked for is so, asking every few milliseconds.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: it did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
