//! etcd, one server, with its default settings, but its data in memory.

use std::collections::BTreeMap;
use std::path::Path;

use etcd_client::{Client, EventType, LockOptions, PutOptions, WatchOptions, WatchStream};
use tokio::process::Command;

use crate::clock;
use crate::server::{Server, folder, free_port};
use crate::watch::{Tally, Watcher};
use crate::way::{Figures, Outcome, Way, figures, say};

const PREFIX: &str = "bench/";
/// Longer than any run: no lease runs out by the way.
const LONG: i64 = 3600;
/// The shortest that it grants.
const SHORT: i64 = 2;
const SESSIONS: usize = 50;

pub(crate) async fn version() -> Option<String> {
    let said = Command::new("etcd").arg("--version").output().await.ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    Some(said.lines().next()?.rsplit(' ').next()?.to_owned())
}

async fn server() -> Outcome<Server> {
    let (folder, port) = (folder()?, free_port()?);
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()?));
    let mut etcd = Command::new("etcd");
    let data: &Path = folder.path();
    etcd.arg("--data-dir").arg(data).args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    etcd.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    etcd.args(["--initial-cluster", &format!("default={peers}"), "--log-level", "error"]);
    Server::start(etcd, folder, port).await
}

async fn client(address: &str) -> Outcome<Client> {
    Ok(Client::connect([address], None).await?)
}

async fn watched(client: &mut Client, prefix: &str) -> Outcome<WatchStream> {
    let mut stream = client.watch(prefix, Some(WatchOptions::new().with_prefix())).await?;
    // The first answer says that it watches.
    stream.message().await?.ok_or("no watch")?;
    Ok(stream)
}

/// A process that watches.
pub(crate) async fn watch(address: &str, prefix: &str, mut tally: Tally) -> Outcome<()> {
    let mut stream = watched(&mut client(address).await?, prefix).await?;
    say("ready")?;
    while let Some(answer) = stream.message().await? {
        for event in answer.events() {
            match event.event_type() {
                EventType::Put => tally.count("joined")?,
                EventType::Delete => tally.count("left")?,
            }
        }
    }
    Ok(())
}

/// A member is a key with the lease of its process.
pub(crate) struct Members {
    client: Client,
    lease: i64,
    watcher: Watcher,
    times: usize,
    _server: Server,
}

impl Members {
    pub(crate) async fn begin(times: usize) -> Outcome<Self> {
        let server = server().await?;
        let mut client = client(&server.address()).await?;
        let lease = client.lease_grant(LONG, None).await?.id();
        let watcher = Watcher::start("etcd", &server.address(), PREFIX, 1).await?;
        Ok(Self { client, lease, watcher, times, _server: server })
    }
}

impl Way for Members {
    async fn round(&mut self) -> Outcome<Figures> {
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        let key = format!("{PREFIX}m");
        for _ in 0..self.times {
            let began = clock::now();
            self.client.put(key.as_str(), "value", Some(PutOptions::new().with_lease(self.lease))).await?;
            joined.push(self.watcher.saw("joined").await? - began);
            let began = clock::now();
            self.client.delete(key.as_str(), None).await?;
            left.push(self.watcher.saw("left").await? - began);
        }
        Ok(figures([("join", joined), ("leave", left)]))
    }
}

pub(crate) struct Locks {
    client: Client,
    lease: i64,
    times: usize,
    _server: Server,
}

impl Locks {
    pub(crate) async fn begin(times: usize) -> Outcome<Self> {
        let server = server().await?;
        let mut client = client(&server.address()).await?;
        let lease = client.lease_grant(LONG, None).await?.id();
        Ok(Self { client, lease, times, _server: server })
    }
}

impl Way for Locks {
    async fn round(&mut self) -> Outcome<Figures> {
        let mut took = Vec::new();
        for _ in 0..self.times {
            let began = clock::now();
            let lock = self.client.lock("lock", Some(LockOptions::new().with_lease(self.lease))).await?;
            self.client.unlock(lock.key()).await?;
            took.push(clock::now() - began);
        }
        Ok(figures([("pair", took)]))
    }
}

/// A process that has crashed is one that keeps its lease alive no more.
pub(crate) struct Crash {
    client: Client,
    stream: WatchStream,
    _server: Server,
}

impl Crash {
    pub(crate) async fn begin() -> Outcome<Self> {
        let server = server().await?;
        let mut client = client(&server.address()).await?;
        Ok(Self { stream: watched(&mut client, PREFIX).await?, client, _server: server })
    }
}

impl Way for Crash {
    async fn round(&mut self) -> Outcome<Figures> {
        let (mut deadlines, mut past) = (BTreeMap::new(), Vec::new());
        for number in 0..SESSIONS {
            let lease = self.client.lease_grant(SHORT, None).await?;
            let key = format!("{PREFIX}{number}");
            deadlines.insert(key.clone().into_bytes(), clock::now() + lease.ttl() as f64);
            self.client.put(key, "value", Some(PutOptions::new().with_lease(lease.id()))).await?;
        }
        while past.len() < SESSIONS {
            let answer = self.stream.message().await?.ok_or("the watch has ended")?;
            let left = answer.events().iter().filter(|event| event.event_type() == EventType::Delete);
            for key in left.filter_map(|event| event.kv()) {
                past.extend(deadlines.get(key.key()).map(|deadline| clock::now() - deadline));
            }
        }
        Ok(figures([("past", past)]))
    }
}
