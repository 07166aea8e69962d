//! Credentials that come from a source, and change while connectors live.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use group_redis::testing::TestRedis;
use group_redis::{Credentials, ErrorKind, EventSource, GroupConnector, GroupConnectorBuilder};
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::support::{PATIENCE, Recorder, eventually};

/// What a service for tokens would be.
#[derive(Clone, Default)]
struct Vault {
    /// `None`: it fails.
    answer: Arc<Mutex<Option<Credentials>>>,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    fn with(credentials: Credentials) -> Self {
        let vault = Self::default();
        vault.set(Some(credentials));
        vault
    }

    fn set(&self, credentials: Option<Credentials>) {
        *self.answer.lock().unwrap() = credentials;
    }

    fn builder(&self, redis: &TestRedis) -> GroupConnectorBuilder {
        let vault = self.clone();
        let source = move || {
            vault.asked.fetch_add(1, Ordering::SeqCst);
            let answer = vault.answer.lock().unwrap().clone();
            async move { answer.ok_or_else(|| io::Error::other("the vault is sealed")) }
        };
        // The URL has a wrong password: it is not used.
        let url = format!("redis://nobody:wrong@{}/", redis.url().rsplit(['/', '@']).nth(1).unwrap());
        GroupConnector::builder(url).group("g").credentials(source)
    }
}

async fn set_user(admin: &mut MultiplexedConnection, name: &str, password: &str) {
    let words = ["SETUSER", name, "on", "resetpass", &format!(">{password}"), "~*", "&*", "+@all"];
    redis::cmd("ACL").arg(&words).exec_async(admin).await.unwrap();
}

/// The connector's connections, each with its user.
async fn users(admin: &mut MultiplexedConnection) -> BTreeMap<String, String> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(admin).await.unwrap();
    let field = |line: &str, name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().to_owned()
    };
    let ours = list.lines().map(|line| (field(line, "id"), field(line, "user")));
    ours.filter(|(_, user)| user != "default").collect()
}

#[tokio::test]
async fn rotated_password_costs_no_membership_and_no_lock() {
    let redis = TestRedis::start().await.unwrap();
    let mut admin = redis.connection().await.unwrap();
    set_user(&mut admin, "app", "one").await;
    let vault = Vault::with(Credentials::new("app", "one"));
    let group = vault.builder(&redis).connect().await.unwrap();
    let me = group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    let (incarnation, reconnects) = (me.incarnation().unwrap(), group.status().reconnects);

    set_user(&mut admin, "app", "two").await;
    vault.set(Some(Credentials::new("app", "two")));
    redis::cmd("CLIENT").arg(&["KILL", "USER", "app"]).exec_async(&mut admin).await.unwrap();
    eventually("it is back", async || group.status().reconnects > reconnects && group.status().error.is_none()).await;
    assert_eq!(timeout(PATIENCE, me.held()).await.unwrap(), Some(incarnation));
    assert!(timeout(PATIENCE, guard.held()).await.unwrap());
}

/// Connections that live on belong to the new user; the old one can be deleted, which ends all that are still its.
#[tokio::test]
async fn connections_log_in_anew_before_credentials_expire() {
    for source in [EventSource::Keyspace, EventSource::Tracking] {
        let redis = TestRedis::start().await.unwrap();
        let mut admin = redis.connection().await.unwrap();
        set_user(&mut admin, "old", "one").await;
        set_user(&mut admin, "new", "two").await;
        let vault = Vault::with(Credentials::new("old", "one").expires_in(Duration::from_secs(3)));
        let builder = vault.builder(&redis).event_source(source).ttl(Duration::from_millis(1500));
        let group = builder.connect_timeout(Duration::from_millis(500)).connect().await.unwrap();
        let seen = Recorder::new(&group);
        let me = group.join("a").await.unwrap();
        seen.wait_for_names(&["a"]).await;
        // For commands, events and heartbeats.
        eventually("three connections", async || users(&mut admin).await.len() == 3).await;
        let before = users(&mut admin).await;
        assert!(before.values().all(|user| user == "old"), "{before:?}");

        vault.set(Some(Credentials::new("new", "two")));
        eventually("all are new", async || users(&mut admin).await.values().all(|user| user == "new")).await;
        redis::cmd("ACL").arg(&["DELUSER", "old"]).exec_async(&mut admin).await.unwrap();
        group.join("b").await.unwrap();
        seen.wait_for_names(&["a", "b"]).await;
        assert_eq!(users(&mut admin).await.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert!(me.is_held());
        assert_eq!((group.status().reconnects, group.status().source), (0, source));
    }
}

#[tokio::test]
async fn source_that_fails_is_named_and_costs_nothing_while_the_last_credentials_hold() {
    let redis = TestRedis::start().await.unwrap();
    let mut admin = redis.connection().await.unwrap();
    set_user(&mut admin, "app", "one").await;
    let vault = Vault::default();
    let limit = Duration::from_millis(200);
    let failing = vault.builder(&redis).connect_timeout(limit).command_timeout(limit).connect().await;
    let error = failing.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Connection, true), "{error}");
    assert!(error.to_string().contains("the vault is sealed"), "{error}");

    vault.set(Some(Credentials::new("app", "one")));
    let group = vault.builder(&redis).connect().await.unwrap();
    let me = group.join("a").await.unwrap();
    let (incarnation, reconnects, asked) = (me.incarnation(), group.status().reconnects, &vault.asked);
    vault.set(None);
    let asked_before = asked.load(Ordering::SeqCst);
    redis::cmd("CLIENT").arg(&["KILL", "USER", "app"]).exec_async(&mut admin).await.unwrap();
    eventually("it is back", async || group.status().reconnects > reconnects && me.is_held()).await;
    assert_eq!(me.incarnation(), incarnation);
    assert!(asked.load(Ordering::SeqCst) > asked_before, "it was asked");
}

/// A source that does not answer is waited for in bounded time.
#[tokio::test]
async fn source_that_hangs_or_panics_ends_in_an_error() {
    let limit = Duration::from_millis(100);
    let connect = |builder: GroupConnectorBuilder| builder.connect_timeout(limit).command_timeout(limit).connect();
    let url = "redis://127.0.0.1:1/";
    let hanging = || std::future::pending::<Result<Credentials, io::Error>>();
    let error = connect(GroupConnector::builder(url).credentials(hanging)).await.unwrap_err();
    assert!(error.to_string().contains("has not answered within 100ms"), "{error}");
    let panicking = || async { panic!("no vault") as Result<Credentials, io::Error> };
    let error = connect(GroupConnector::builder(url).credentials(panicking)).await.unwrap_err();
    assert!(error.to_string().contains("the source of credentials"), "{error}");
}
