//! A primary, its replicas, and the sentinels that choose another primary.

use std::ffi::OsString;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Client, FromRedisValue, RedisError};

use super::backend::Backend;
use super::container::Container;
use super::launch::Server;

use super::process::{self, Process};
use super::{TestRedis, TestRedisError, launch, probe};
use crate::wire::encode;

const SENTINELS: usize = 3;
const REPLICAS: usize = 2;
/// How many sentinels have to agree.
const QUORUM: usize = 2;
/// How often another program may have taken the port that was free.
const ATTEMPTS: usize = 8;
/// How long a failover may take.
const PATIENCE: Duration = Duration::from_secs(30);
const QUESTION: Duration = Duration::from_secs(2);

/// One primary, two replicas and three sentinels that watch them. Dropped, all are gone.
///
/// They take a primary for dead when it has not answered for a second.
///
/// # Examples
/// ```no_run
/// use group_redis::{GroupConnector, testing::TestSentinel};
///
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// let mut servers = TestSentinel::start().await?;
/// let group = GroupConnector::builder(servers.url()).group("my-test").connect().await?;
/// group.join("me").await?;
/// servers.kill_primary().await?;
/// group.wait_for(std::time::Duration::from_secs(10), |view| view.contains("me")).await?;
/// # Ok(())
/// # }
/// ```
pub struct TestSentinel {
    url: String,
    /// The servers, whatever they are at the moment.
    nodes: Vec<TestRedis>,
    sentinels: Vec<Sentinel>,
}

/// How they are started.
struct Setup {
    backend: Backend,
    /// That of the servers, and that of the sentinels.
    passwords: Option<(String, String)>,
}

struct Sentinel {
    client: Client,
    port: u16,
    /// What runs it. `None`: it was killed.
    server: Option<Server>,
}

impl TestSentinel {
    /// The name by which the sentinels know the primary.
    pub const MASTER: &str = "mymaster";

    /// Starts all of them, and waits until the replicas follow and the sentinels know each other.
    ///
    /// # Errors
    /// [`TestRedisError::NoServer`] and what else a [`TestRedis`] says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves no server behind.
    pub async fn start() -> Result<Self, TestRedisError> {
        Self::start_as(Setup { backend: launch::backend_of_several().await?, passwords: None }).await
    }

    /// The same, where servers and sentinels want a password each. The [`url`](Self::url) has both.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    ///
    /// # Cancel safety
    /// As for [`start`](Self::start).
    pub async fn start_with_passwords(
        password: impl Into<String>,
        sentinel_password: impl Into<String>,
    ) -> Result<Self, TestRedisError> {
        let passwords = Some((password.into(), sentinel_password.into()));
        Self::start_as(Setup { backend: launch::backend_of_several().await?, passwords }).await
    }

    async fn start_as(setup: Setup) -> Result<Self, TestRedisError> {
        let primary = setup.node(None).await?;
        let port = primary.port();
        let replicas = try_join_all((0..REPLICAS).map(|_| setup.node(Some(port)))).await?;
        // A sentinel that finds fewer at its start asks again after ten seconds.
        has_replicas(&primary).await?;
        let sentinels = try_join_all((0..SENTINELS).map(|_| Sentinel::start(&setup, port))).await?;
        let nodes: Vec<_> = std::iter::once(primary).chain(replicas).collect();
        let hosts: Vec<_> = sentinels.iter().map(|sentinel| format!("{}:{}", process::HOST, sentinel.port)).collect();
        let url = setup.url(&hosts.join(","));
        let servers = Self { url, nodes, sentinels };
        servers.until("the sentinels know all servers", async || servers.is_complete().await).await?;
        Ok(servers)
    }

    /// The URL of the sentinels and of the primary that they know.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The servers: the one that was the primary at the start comes first.
    #[must_use]
    pub fn nodes(&self) -> &[TestRedis] {
        &self.nodes
    }

    /// Which of the [`nodes`](Self::nodes) is the primary, as most of the sentinels say.
    ///
    /// # Errors
    /// [`TestRedisError::Timeout`] where they do not agree.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn primary(&self) -> Result<usize, TestRedisError> {
        let mut agreed = None;
        let agree = async || {
            agreed = self.named().await.into_iter().position(|times| times >= QUORUM);
            agreed.is_some()
        };
        self.until("agreement of the sentinels", agree).await?;
        agreed.ok_or_else(|| TestRedisError::refused("looking for the primary", "the sentinels do not agree"))
    }

    /// Lets the sentinels make another server the primary while the present one runs, and waits until they say so.
    /// Answers which of the nodes it is.
    ///
    /// # Errors
    /// [`TestRedisError::Redis`], [`TestRedisError::Timeout`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the failover to the sentinels.
    pub async fn failover(&self) -> Result<usize, TestRedisError> {
        let before = self.primary().await?;
        let asked = async || self.sentinels[0].ask::<String>(&["FAILOVER", Self::MASTER]).await.is_ok();
        self.until("the sentinels begin a failover", asked).await?;
        self.elected_after(before).await
    }

    /// Kills the primary by SIGKILL, and waits until the sentinels have made another one. Answers which of the nodes
    /// it is.
    ///
    /// # Errors
    /// [`TestRedisError::Timeout`] and what [`TestRedis::stop`] says.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the failover to the sentinels.
    pub async fn kill_primary(&mut self) -> Result<usize, TestRedisError> {
        let before = self.primary().await?;
        self.nodes[before].stop().await?;
        self.elected_after(before).await
    }

    /// Kills all sentinels. The servers run on.
    pub fn kill_sentinels(&mut self) {
        for sentinel in &mut self.sentinels {
            sentinel.server = None;
        }
    }

    async fn elected_after(&self, before: usize) -> Result<usize, TestRedisError> {
        let elected = async || self.primary().await.is_ok_and(|node| node != before);
        self.until("the election of another primary", elected).await?;
        self.primary().await
    }

    async fn is_complete(&self) -> bool {
        for sentinel in &self.sentinels {
            let master: Result<std::collections::HashMap<String, String>, _> =
                sentinel.ask(&["MASTER", Self::MASTER]).await;
            let count = |field: &str| master.as_ref().ok()?.get(field)?.parse::<usize>().ok();
            if (count("num-slaves"), count("num-other-sentinels")) != (Some(REPLICAS), Some(SENTINELS - 1)) {
                return false;
            }
        }
        true
    }

    async fn until(&self, what: &'static str, come: impl AsyncFnMut() -> bool) -> Result<(), TestRedisError> {
        let named = async || format!("the nodes are named {:?} times", self.named().await);
        probe::until(what, PATIENCE, come, named).await
    }

    /// How many sentinels take each node for the primary.
    async fn named(&self) -> Vec<usize> {
        let mut named = vec![0; self.nodes.len()];
        for sentinel in &self.sentinels {
            let port = sentinel.primary().await;
            if let Some(node) = self.nodes.iter().position(|node| Some(node.port()) == port) {
                named[node] += 1;
            }
        }
        named
    }
}

impl Setup {
    /// A server; a replica of the one on this port, if there is one.
    async fn node(&self, of: Option<u16>) -> Result<TestRedis, TestRedisError> {
        let of = of.map(|port| ["--replicaof".to_owned(), process::HOST.to_owned(), port.to_string()]);
        // A replica that waits for others before it is synchronised would be no replica for five seconds.
        let args = ["--repl-diskless-sync-delay", "0"].map(str::to_owned);
        let args = args.into_iter().chain(of.into_iter().flatten());
        let builder = TestRedis::builder().args(args).beside_others(self.backend);
        match &self.passwords {
            // Each may be a replica one day.
            Some((password, _)) => builder.arg("--masterauth").arg(password).password(password).start().await,
            None => builder.start().await,
        }
    }

    fn url(&self, hosts: &str) -> String {
        let master = TestSentinel::MASTER;
        match &self.passwords {
            None => format!("redis+sentinel://{hosts}/{master}"),
            Some((password, sentinels)) => {
                let (password, sentinels) = (encode(password), encode(sentinels));
                format!("redis+sentinel://:{password}@{hosts}/{master}?sentinel_password={sentinels}")
            }
        }
    }

    /// What the file of a sentinel says of passwords.
    fn of_passwords(&self) -> String {
        let Some((password, sentinels)) = &self.passwords else { return String::new() };
        let name = TestSentinel::MASTER;
        format!(
            "sentinel auth-pass {name} \"{password}\"\nrequirepass \"{sentinels}\"\nsentinel sentinel-pass \"{sentinels}\"\n"
        )
    }
}

/// Waits until all replicas follow.
async fn has_replicas(primary: &TestRedis) -> Result<(), TestRedisError> {
    let said = async || {
        let mut connection = primary.connection().await.ok()?;
        redis::cmd("INFO").arg("replication").query_async::<String>(&mut connection).await.ok()
    };
    let all = format!("connected_slaves:{REPLICAS}");
    let follow = async || said().await.is_some_and(|info| info.contains(&all));
    probe::until("all replicas follow", PATIENCE, follow, async || said().await.unwrap_or_default()).await
}

impl Sentinel {
    async fn start(setup: &Setup, primary: u16) -> Result<Self, TestRedisError> {
        let mut attempt = 1;
        loop {
            let port = launch::free_port(setup.backend)?;
            match Self::on_port(setup, port, primary).await {
                Err(TestRedisError::PortTaken(_)) if attempt < ATTEMPTS => attempt += 1,
                answer => return answer,
            }
        }
    }

    async fn on_port(setup: &Setup, port: u16, primary: u16) -> Result<Self, TestRedisError> {
        let password = setup.passwords.as_ref().map(|(_, password)| format!(":{}@", encode(password)));
        let client = Client::open(format!("redis://{}{}:{port}/", password.unwrap_or_default(), process::HOST));
        let client = client.map_err(|error| TestRedisError::Redis("making a client", error))?;
        let (name, host) = (TestSentinel::MASTER, process::HOST);
        let text = format!(
            "port {port}\nbind {host}\nsentinel monitor {name} {host} {primary} {QUORUM}\n\
             sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n{}",
            setup.of_passwords()
        );
        let server = if setup.backend == Backend::Container {
            Server::Container(Box::new(Container::sentinel(&text, &client, port).await?))
        } else {
            Server::Process(Self::process(&text, &client, port).await?)
        };
        Ok(Self { client, port, server: Some(server) })
    }

    async fn process(text: &str, client: &Client, port: u16) -> Result<Process, TestRedisError> {
        let binary = process::binary().map_err(|why| TestRedisError::refused("no server program", why))?;
        let folder = Arc::new(process::folder()?);
        let file = folder.path().join("sentinel.conf");
        let text = format!("dir {}\n{text}", folder.path().display());
        fs::write(&file, text).map_err(|error| TestRedisError::refused("writing the file of a sentinel", error))?;
        let args = [file.into(), OsString::from("--sentinel")];
        Ok(Process::run(&binary, &args, client, port, folder).await?.0)
    }

    async fn primary(&self) -> Option<u16> {
        let address: (String, u16) = self.ask(&["GET-MASTER-ADDR-BY-NAME", TestSentinel::MASTER]).await.ok()?;
        Some(address.1)
    }

    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T, RedisError> {
        let mut connection = probe::connect(&self.client, QUESTION, QUESTION).await?;
        redis::cmd("SENTINEL").arg(words).query_async(&mut connection).await
    }
}

impl std::fmt::Debug for TestSentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestSentinel").field("url", &self.url).finish_non_exhaustive()
    }
}
