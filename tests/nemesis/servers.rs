//! The servers that a topology is made of, and how to reach each of them.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use group_redis::testing::{Backend, FaultProxy, TestCluster, TestRedis, TestRedisError, TestSentinel};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Value};

use crate::stage::Answer;
use crate::topology::Topology;

/// As whom clients log in where sentinels and replicas are somebody else: these can be shut out alone.
pub(crate) const USER: &str = "worker";
const PASSWORD: &str = "secret";

pub(crate) struct Servers {
    kind: Kind,
    /// By how many microseconds the clock of each is ahead.
    clocks: Vec<AtomicI64>,
    /// Where each reads that.
    folder: PathBuf,
    /// The sentinels that were killed, by port: the file that each goes on with, and its guard once it runs again.
    killed: Mutex<HashMap<u16, (String, Option<Child>)>>,
}

/// Starts a sentinel, and ends it when standard input, which is a pipe from here, is closed.
const GUARD: &str = r#"exec 3<&0
"$@" </dev/null 3<&- >/dev/null 2>&1 &
sentinel=$!
while read -r _; do :; done <&3
kill -9 "$sentinel""#;

enum Kind {
    One(Box<TestRedis>),
    Sentinel(TestSentinel),
    Cluster(TestCluster),
}

/// A server that lets its clients debug and configure it.
async fn server() -> Result<TestRedis, TestRedisError> {
    let builder = || TestRedis::builder().backend(Backend::Process);
    let rights = ["--enable-debug-command", "yes", "--enable-protected-configs", "yes"];
    match builder().args(rights).start().await {
        // Redis 6.2 has no such settings, and lets everybody.
        Err(error) if error.to_string().contains("enable-debug-command") => builder().start().await,
        answer => answer,
    }
}

impl Servers {
    pub(crate) async fn start(topology: Topology, folder: PathBuf) -> Self {
        let kind = match topology {
            Topology::Standalone => Kind::One(Box::new(server().await.expect("a server"))),
            Topology::Sentinel => Kind::Sentinel(TestSentinel::start().await.expect("servers and sentinels")),
            Topology::Cluster => Kind::Cluster(TestCluster::start().await.expect("a cluster")),
        };
        let mut servers = Self { kind, clocks: Vec::new(), folder, killed: Mutex::default() };
        servers.clocks = servers.nodes().iter().map(|_| AtomicI64::default()).collect();
        for node in 0..servers.nodes().len() {
            servers.prepare(node).await;
        }
        servers
    }

    /// Gives a server that has just been started what it is not started with.
    pub(crate) async fn prepare(&self, node: usize) {
        let words: &[&str] = match self.kind {
            Kind::One(_) => return,
            Kind::Sentinel(_) => &["ACL", "SETUSER", USER, "on", ">secret", "~*", "&*", "+@all"],
            // Who has no slots left is to stay what it is.
            Kind::Cluster(_) => &["CONFIG", "SET", "cluster-allow-replica-migration", "no"],
        };
        let mut connection = self.nodes()[node].connection().await.expect("a server that has just answered");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async::<Value>(&mut connection).await.expect("a server that obeys");
    }

    pub(crate) fn nodes(&self) -> &[TestRedis] {
        match &self.kind {
            Kind::One(redis) => std::slice::from_ref(&**redis),
            Kind::Sentinel(servers) => servers.nodes(),
            Kind::Cluster(cluster) => cluster.nodes(),
        }
    }

    pub(crate) fn sentinel(&self) -> &TestSentinel {
        let Kind::Sentinel(servers) = &self.kind else { panic!("there are no sentinels") };
        servers
    }

    pub(crate) fn cluster(&self) -> &TestCluster {
        let Kind::Cluster(cluster) = &self.kind else { panic!("there is no cluster") };
        cluster
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster(_))
    }

    /// The ports of the sentinels.
    pub(crate) fn sentinels(&self) -> Vec<u16> {
        let url = self.sentinel().url();
        let hosts = url.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        hosts.split(',').filter_map(|host| host.rsplit(':').next()?.parse().ok()).collect()
    }

    /// The sentinel on this port has been killed, and has written what it knew to this file.
    pub(crate) fn remember(&self, port: u16, file: &str) {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).insert(port, (file.to_owned(), None));
    }

    /// Starts a sentinel that was killed.
    pub(crate) fn start_sentinel(&self, port: u16) {
        let mut killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((file, guard)) = killed.get_mut(&port) else { return };
        let server = std::env::var("GROUP_REDIS_TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh", &server, &*file, "--sentinel"]).stdin(Stdio::piped());
        *guard = Some(command.spawn().expect("a sentinel"));
    }

    /// The proxies of one worker and the URL that it gets: before the one server, or before each sentinel. The nodes of
    /// a cluster tell their own addresses, so nothing stands before them.
    pub(crate) async fn way_in(&self) -> (Vec<FaultProxy>, String) {
        let ports = match &self.kind {
            Kind::One(redis) => vec![redis.port()],
            Kind::Sentinel(_) => self.sentinels(),
            Kind::Cluster(cluster) => return (Vec::new(), cluster.url().to_owned()),
        };
        let mut proxies = Vec::new();
        for port in ports {
            proxies.push(FaultProxy::start(&format!("redis://127.0.0.1:{port}/")).await.expect("a proxy"));
        }
        let hosts: Vec<_> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        let url = match &self.kind {
            Kind::Sentinel(_) => {
                format!("redis+sentinel://{USER}:{PASSWORD}@{}/{}", hosts.join(","), TestSentinel::MASTER)
            }
            Kind::One(_) | Kind::Cluster(_) => proxies[0].url().to_owned(),
        };
        (proxies, url)
    }

    /// A connection as a client has it, past all proxies.
    pub(crate) async fn connection(&self, node: usize) -> Answer<MultiplexedConnection> {
        let node = &self.nodes()[node];
        if !matches!(self.kind, Kind::Sentinel(_)) {
            return node.connection().await;
        }
        let client = Client::open(format!("redis://{USER}:{PASSWORD}@127.0.0.1:{}/", node.port()))?;
        let limits = (Duration::from_secs(5), Duration::from_secs(10));
        let settings = AsyncConnectionConfig::new().set_connection_timeout(Some(limits.0));
        client.get_multiplexed_async_connection_with_config(&settings.set_response_timeout(Some(limits.1))).await
    }

    /// Whether that line of `CLIENT LIST` is of a client, and not of a server or a sentinel.
    pub(crate) fn is_client(&self, line: &str) -> bool {
        let is = |word: &str| line.split(' ').any(|found| found == word);
        // A node that has sent keys stays connected for a while.
        let is_node = is("flags=S") || is("flags=M") || is("cmd=restore-asking");
        if self.is_cluster() { !is_node } else { is(&format!("user={USER}")) }
    }

    /// A command to this server.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, node: usize, words: &[&str]) -> Answer<T> {
        let mut connection = self.connection(node).await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    /// A connection to the sentinel on this port.
    pub(crate) async fn sentinel_connection(port: u16) -> Answer<MultiplexedConnection> {
        let client = Client::open(("127.0.0.1", port))?;
        let limit = Some(Duration::from_secs(2));
        let settings = AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
        client.get_multiplexed_async_connection_with_config(&settings).await
    }

    /// A command to the sentinel on this port.
    pub(crate) async fn ask_sentinel<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> Answer<T> {
        let mut connection = Self::sentinel_connection(port).await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    /// Sets the clock of a server ahead by so much, by way of a file that its preloaded shim reads.
    pub(crate) fn set_clock(&self, node: usize, us: i64) -> bool {
        self.clocks[node].store(us, Ordering::Relaxed);
        // In place: the server has the file in its memory, and a file cut short would end it.
        let file = OpenOptions::new().write(true).open(self.folder.join(self.nodes()[node].port().to_string()));
        file.and_then(|mut file| file.write_all(&us.to_ne_bytes())).is_ok()
    }

    /// By how much the clock of one is behind that of the other.
    pub(crate) fn behind(&self, node: usize, other: usize) -> u64 {
        let of = |node: usize| self.clocks[node].load(Ordering::Relaxed);
        u64::try_from(of(other) - of(node)).unwrap_or_default()
    }
}
