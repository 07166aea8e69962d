//! ZooKeeper, one server, with the settings of its documentation, but its data in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Acls, AddWatchMode, Client, Connector, CreateMode, EventType, PersistentWatcher};

use crate::clock;
use crate::server::{Server, folder, free_port};
use crate::watch::{Tally, Watcher};
use crate::way::{Figures, Outcome, Way, figures, say};

const GROUP: &str = "/bench";
/// Where Debian's package has it.
const JAR: &str = "/usr/share/java/zookeeper.jar";
/// The least that it grants: two ticks.
const SHORT: Duration = Duration::from_secs(4);
const SESSIONS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn version() -> Option<String> {
    let jar = fs::canonicalize(JAR).ok()?;
    let beside = fs::read_dir(jar.parent()?).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = |name: String| {
        let version = name.strip_prefix("zookeeper-")?.strip_suffix(".jar")?.to_owned();
        version.starts_with(|first: char| first.is_ascii_digit()).then_some(version)
    };
    beside.into_iter().find_map(version)
}

async fn server() -> Outcome<Server> {
    if !Path::new(JAR).exists() {
        return Err(format!("there is no {JAR}").into());
    }
    let (folder, port) = (folder()?, free_port()?);
    let settings = folder.path().join("zoo.cfg");
    let data = folder.path().display();
    // One server keeps no other from starting: the port for administration would be the same for all.
    fs::write(
        &settings,
        format!(
            "tickTime=2000\ndataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        ),
    )?;
    let mut java = Command::new("java");
    java.args(["-cp", JAR, "org.apache.zookeeper.server.quorum.QuorumPeerMain"]).arg(settings);
    Server::start(java, folder, port).await
}

/// It may listen before it serves.
async fn connect(connector: impl Fn() -> Connector, address: &str) -> Outcome<Client> {
    let connecting = async {
        loop {
            match connector().connect(address).await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    Ok(timeout(PATIENCE, connecting).await?)
}

async fn watched(client: &Client, path: &str) -> Outcome<PersistentWatcher> {
    Ok(client.watch(path, AddWatchMode::PersistentRecursive).await?)
}

async fn create(client: &Client, path: &str, mode: CreateMode) -> Outcome<()> {
    client.create(path, b"value", &mode.with_acls(Acls::anyone_all())).await?;
    Ok(())
}

/// A process that watches.
pub(crate) async fn watch(address: &str, path: &str, mut tally: Tally) -> Outcome<()> {
    let client = connect(Client::connector, address).await?;
    let mut watcher = watched(&client, path).await?;
    say("ready")?;
    loop {
        match watcher.changed().await.event_type {
            EventType::NodeCreated => tally.count("joined")?,
            EventType::NodeDeleted => tally.count("left")?,
            _ => {}
        }
    }
}

pub(crate) struct Members {
    client: Client,
    watcher: Watcher,
    times: usize,
    _server: Server,
}

impl Members {
    pub(crate) async fn begin(times: usize) -> Outcome<Self> {
        let server = server().await?;
        let client = connect(Client::connector, &server.address()).await?;
        create(&client, GROUP, CreateMode::Persistent).await?;
        let watcher = Watcher::start("zookeeper", &server.address(), GROUP, 1).await?;
        Ok(Self { client, watcher, times, _server: server })
    }
}

impl Way for Members {
    async fn round(&mut self) -> Outcome<Figures> {
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        let path = format!("{GROUP}/m");
        for _ in 0..self.times {
            let began = clock::now();
            create(&self.client, &path, CreateMode::Ephemeral).await?;
            joined.push(self.watcher.saw("joined").await? - began);
            let began = clock::now();
            self.client.delete(&path, None).await?;
            left.push(self.watcher.saw("left").await? - began);
        }
        Ok(figures([("join", joined), ("leave", left)]))
    }
}

/// A process that has crashed is a session that nobody keeps alive: its deadline counts from its last request.
pub(crate) struct Crash {
    _client: Client,
    watcher: PersistentWatcher,
    server: Server,
}

impl Crash {
    pub(crate) async fn begin() -> Outcome<Self> {
        let server = server().await?;
        let client = connect(Client::connector, &server.address()).await?;
        create(&client, GROUP, CreateMode::Persistent).await?;
        Ok(Self { watcher: watched(&client, GROUP).await?, _client: client, server })
    }
}

impl Way for Crash {
    async fn round(&mut self) -> Outcome<Figures> {
        let (mut deadlines, mut past) = (BTreeMap::new(), Vec::new());
        for number in 0..SESSIONS {
            let connector = || Client::connector().with_session_timeout(SHORT).with_detached();
            let client = connect(connector, &self.server.address()).await?;
            let path = format!("{GROUP}/{number}");
            create(&client, &path, CreateMode::Ephemeral).await?;
            deadlines.insert(path, clock::now() + client.session_timeout().as_secs_f64());
        }
        while past.len() < SESSIONS {
            let event = timeout(PATIENCE, self.watcher.changed()).await?;
            if event.event_type == EventType::NodeDeleted {
                past.extend(deadlines.get(&event.path).map(|deadline| clock::now() - deadline));
            }
        }
        Ok(figures([("past", past)]))
    }
}
