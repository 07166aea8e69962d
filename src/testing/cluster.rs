//! A cluster of three primaries, each with a replica.

use std::fmt;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Value, from_redis_value_ref};

use super::migration::{Ends, Migration};
use super::process::HOST;
use super::{TestRedis, TestRedisError, launch, probe};

const PRIMARIES: usize = 3;
const NODES: usize = 2 * PRIMARIES;
const SLOTS: usize = 16384;
/// How many keys are moved at once.
const BATCH: usize = 100;
/// How long the cluster may take to come up, to fail over, or to learn that a slot has moved.
const PATIENCE: Duration = Duration::from_secs(30);

/// Three primaries and three replicas in a Redis Cluster. Dropped, all are gone.
///
/// A primary is taken for dead when it has not answered for a second.
///
/// # Examples
/// ```no_run
/// use group_redis::{GroupConnector, testing::TestCluster};
///
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = TestCluster::start().await?;
/// let group = GroupConnector::builder(cluster.url()).group("my-test").connect().await?;
/// group.join("me").await?;
/// let owner = cluster.owner("{my-test}").await?;
/// cluster.move_slot("{my-test}", (owner + 1) % 3).await?;
/// group.join("me too").await?;
/// # Ok(())
/// # }
/// ```
pub struct TestCluster {
    url: String,
    nodes: Vec<TestRedis>,
    /// Their names in the cluster.
    ids: Vec<String>,
}

impl TestCluster {
    /// Starts all nodes, gives the slots to the first three, and waits until every node knows it.
    ///
    /// # Errors
    /// [`TestRedisError::NoServer`] and what else a [`TestRedis`] says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves no server behind.
    pub async fn start() -> Result<Self, TestRedisError> {
        let backend = launch::backend_of_several().await?;
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
        let nodes = (0..NODES).map(|_| TestRedis::builder().args(args).beside_others(backend).start());
        let nodes = try_join_all(nodes).await?;
        let hosts: Vec<_> = nodes.iter().map(|node| format!("{HOST}:{}", node.port())).collect();
        let url = format!("redis+cluster://{}/", hosts.join(","));
        let mut cluster = Self { url, nodes, ids: Vec::new() };
        cluster.form().await?;
        Ok(cluster)
    }

    async fn form(&mut self) -> Result<(), TestRedisError> {
        for node in 0..NODES {
            self.say(node, &["SET-CONFIG-EPOCH", &(node + 1).to_string()]).await?;
            let id = self.ask(node, &["MYID"]).await?;
            self.ids.push(id);
        }
        for primary in 0..PRIMARIES {
            let slots = (SLOTS * primary / PRIMARIES..SLOTS * (primary + 1) / PRIMARIES).map(|slot| slot.to_string());
            let words: Vec<_> = std::iter::once("ADDSLOTS".to_owned()).chain(slots).collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            self.say(primary, &words).await?;
        }
        for node in 1..NODES {
            self.say(0, &["MEET", HOST, &self.nodes[node].port().to_string()]).await?;
        }
        self.until("all nodes know each other", async || self.all_say("cluster_known_nodes:6").await).await?;
        for replica in PRIMARIES..NODES {
            let primary = &self.ids[replica - PRIMARIES];
            let follows = async || self.say(replica, &["REPLICATE", primary]).await.is_ok();
            self.until("a node becomes a replica", follows).await?;
        }
        self.until("the cluster is up", async || self.all_say("cluster_state:ok").await).await?;
        let follow = async || {
            for replica in PRIMARIES..NODES {
                if !self.info(replica, "replication").await.contains("master_link_status:up") {
                    return false;
                }
            }
            true
        };
        self.until("all replicas follow", follow).await
    }

    /// A URL with all nodes.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The nodes: those that were primaries at the start come first, then the replica of each, in the same order.
    #[must_use]
    pub fn nodes(&self) -> &[TestRedis] {
        &self.nodes
    }

    /// Which of the [`nodes`](Self::nodes) serves the slot of this key, as the first of them that answers says.
    ///
    /// # Errors
    /// [`TestRedisError::Timeout`] where nobody serves it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn owner(&self, key: &str) -> Result<usize, TestRedisError> {
        let mut owner = None;
        let known = async || {
            for node in 0..NODES {
                owner = self.owner_by(node, key).await;
                if owner.is_some() {
                    break;
                }
            }
            owner.is_some()
        };
        self.until("an owner of the slot", known).await?;
        owner.ok_or_else(|| TestRedisError::refused("looking for the owner", "nobody serves the slot"))
    }

    /// Moves the slot of this key to another node, key by key, as `redis-cli --cluster reshard` does, and waits until
    /// every node knows it.
    ///
    /// # Errors
    /// [`TestRedisError::Redis`], [`TestRedisError::Timeout`].
    ///
    /// # Cancel safety
    /// Dropped, it leaves the slot between two nodes.
    pub async fn move_slot(&self, key: &str, to: usize) -> Result<(), TestRedisError> {
        let from = self.owner(key).await?;
        if from == to {
            return Ok(());
        }
        let slot = self.ask::<u16>(from, &["KEYSLOT", key]).await?.to_string();
        self.say(to, &["SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await?;
        self.say(from, &["SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await?;
        loop {
            let keys: Vec<String> = self.ask(from, &["GETKEYSINSLOT", &slot, &BATCH.to_string()]).await?;
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg(HOST).arg(self.nodes[to].port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
            let mut connection = self.connection(from).await?;
            migrate.query_async::<()>(&mut connection).await.map_err(|error| failed("MIGRATE", error))?;
        }
        let given = ["SETSLOT", &slot, "NODE", &self.ids[to]];
        self.say(to, &given).await?;
        let told = self.say(from, &given).await;
        // A node that has given away its last slot may be a replica by now, and cannot be told any more.
        if told.is_err() && self.owner_by(from, key).await != Some(to) {
            return told;
        }
        self.until("every node knows the new owner", async || self.all_name(key, to).await).await
    }

    /// Moves the slot of this key to another node in one piece: clients see it at one node or at the other, and the node
    /// before tells of no key that goes. Waits until every node knows it.
    ///
    /// # Errors
    /// [`TestRedisError::Lacking`] before anything is done, where the server cannot: Valkey 9.0 and Redis 8.4 can.
    /// [`TestRedisError::Redis`], [`TestRedisError::Timeout`], and [`TestRedisError::Refused`] where the move has failed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the move to the cluster.
    pub async fn move_slot_atomically(&self, key: &str, to: usize) -> Result<(), TestRedisError> {
        let from = self.owner(key).await?;
        let mut owner = self.connection(from).await?;
        let way = Migration::of(&mut owner).await?;
        if from == to {
            return Ok(());
        }
        let slot = self.ask(from, &["KEYSLOT", key]).await?;
        let ends = Ends { from: owner, to: self.connection(to).await?, id: self.ids[to].clone() };
        let mut begun = way.begin(slot, ends).await?;
        let mut outcome = Ok(false);
        let ended = async || {
            outcome = begun.has_ended().await;
            !matches!(outcome, Ok(false))
        };
        self.until("the end of the migration", ended).await?;
        outcome?;
        self.until("every node knows the new owner", async || self.all_name(key, to).await).await
    }

    /// Makes a replica the owner of the slot of this key while the owner runs, and waits until every node knows it.
    /// Answers which of the nodes it is.
    ///
    /// # Errors
    /// [`TestRedisError::Redis`], [`TestRedisError::Timeout`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the failover to the cluster.
    pub async fn failover(&self, key: &str) -> Result<usize, TestRedisError> {
        let owner = self.owner(key).await?;
        let replica = self.replica_of(owner).await?;
        self.say(replica, &["FAILOVER"]).await?;
        self.until("every node knows of the failover", async || self.all_name(key, replica).await).await?;
        let follows = async || self.info(owner, "replication").await.contains("master_link_status:up");
        self.until("the node before becomes its replica", follows).await?;
        Ok(replica)
    }

    /// Kills the owner of the slot of this key by SIGKILL, and waits until its replica serves it. Answers which of the
    /// nodes that is.
    ///
    /// # Errors
    /// [`TestRedisError::Timeout`] and what [`TestRedis::stop`] says.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the failover to the cluster.
    pub async fn kill_owner(&self, key: &str) -> Result<usize, TestRedisError> {
        let owner = self.owner(key).await?;
        let replica = self.replica_of(owner).await?;
        self.nodes[owner].stop().await?;
        self.until("the replica takes over", async || self.owner_by(replica, key).await == Some(replica)).await?;
        Ok(replica)
    }

    /// A replica of this node, as soon as the node knows of one: after a failover it is told a little later.
    async fn replica_of(&self, primary: usize) -> Result<usize, TestRedisError> {
        let mut found = None;
        let known = async || {
            let lines: Vec<String> = self.ask(primary, &["REPLICAS", &self.ids[primary]]).await.unwrap_or_default();
            found = self.ids.iter().position(|id| lines.iter().any(|line| line.starts_with(id)));
            found.is_some()
        };
        self.until("a replica of the node", known).await?;
        found.ok_or_else(|| TestRedisError::refused("looking for a replica", "the node has none"))
    }

    /// Who has the slot, as this node says.
    async fn owner_by(&self, node: usize, key: &str) -> Option<usize> {
        let slot: i64 = self.ask(node, &["KEYSLOT", key]).await.ok()?;
        let ranges: Vec<Vec<Value>> = self.ask(node, &["SLOTS"]).await.ok()?;
        ranges.iter().find_map(|range| {
            let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &**range else { return None };
            let id: String = from_redis_value_ref(primary.get(2)?).ok()?;
            (*first..=*last).contains(&slot).then(|| self.ids.iter().position(|known| *known == id))?
        })
    }

    /// Whether all nodes that run say that this one is the owner.
    async fn all_name(&self, key: &str, owner: usize) -> bool {
        for node in 0..NODES {
            let runs = self.ask::<String>(node, &["MYID"]).await.is_ok();
            if runs && self.owner_by(node, key).await != Some(owner) {
                return false;
            }
        }
        true
    }

    async fn all_say(&self, what: &str) -> bool {
        for node in 0..NODES {
            if !self.ask::<String>(node, &["INFO"]).await.is_ok_and(|info| info.contains(what)) {
                return false;
            }
        }
        true
    }

    async fn info(&self, node: usize, section: &str) -> String {
        let Ok(mut connection) = self.nodes[node].connection().await else { return String::new() };
        redis::cmd("INFO").arg(section).query_async(&mut connection).await.unwrap_or_default()
    }

    async fn say(&self, node: usize, words: &[&str]) -> Result<(), TestRedisError> {
        self.ask(node, words).await
    }

    async fn ask<T: FromRedisValue>(&self, node: usize, words: &[&str]) -> Result<T, TestRedisError> {
        let mut connection = self.connection(node).await?;
        redis::cmd("CLUSTER").arg(words).query_async(&mut connection).await.map_err(|error| failed("CLUSTER", error))
    }

    async fn connection(&self, node: usize) -> Result<MultiplexedConnection, TestRedisError> {
        self.nodes[node].connection().await.map_err(|error| failed("connecting", error))
    }

    async fn until(&self, what: &'static str, come: impl AsyncFnMut() -> bool) -> Result<(), TestRedisError> {
        let nodes = async || self.ask(0, &["NODES"]).await.unwrap_or_else(|error| error.to_string());
        probe::until(what, PATIENCE, come, nodes).await
    }
}

fn failed(what: &'static str, error: RedisError) -> TestRedisError {
    TestRedisError::Redis(what, error)
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCluster").field("url", &self.url).finish_non_exhaustive()
    }
}
