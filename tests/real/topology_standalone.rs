//! Servers without sentinels: replicas, and several servers of which one is the primary.

use group_redis::testing::{Backend, TestRedis};
use group_redis::{ErrorKind, GroupConnector};

use super::support::{Fixture, eventually, replicated};

async fn replica_of(port: u16, more: &[&str]) -> TestRedis {
    let port = port.to_string();
    let args = [&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"], more].concat();
    // In a container, 127.0.0.1 is another host.
    let replica = TestRedis::builder().args(args).backend(Backend::Process).start().await.unwrap();
    let mut connection = replica.connection().await.unwrap();
    eventually("the replica follows", async || {
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap();
        info.contains("master_link_status:up")
    })
    .await;
    replica
}

fn address(redis: &TestRedis) -> String {
    format!("127.0.0.1:{}", redis.port())
}

/// A replica that may be written to would have locks of its own.
#[tokio::test]
async fn replica_is_refused_and_names_its_primary() {
    let fixture = Fixture::new().await;
    for more in [&[][..], &["--replica-read-only", "no"]] {
        let replica = replica_of(fixture.redis.port(), more).await;
        let error = GroupConnector::builder(replica.url()).connect().await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Server, false), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("replica of {}", address(&fixture.redis))), "{text}");
        assert!(text.contains(&address(&replica)) && text.contains("follow_replica"), "{text}");
    }
}

#[tokio::test]
async fn replica_is_followed_to_its_primary() {
    let fixture = Fixture::new().await;
    let replica = replica_of(fixture.redis.port(), &[]).await;
    let next = replica_of(replica.port(), &[]).await;
    let group = GroupConnector::builder(next.url()).group(&fixture.group).follow_replica().connect().await.unwrap();
    group.join("a").await.unwrap();
    let other = fixture.connect().await;
    eventually("the primary has it", async || other.members().contains("a")).await;
}

#[tokio::test]
async fn primary_is_found_among_the_hosts() {
    let fixture = Fixture::new().await;
    let replica = replica_of(fixture.redis.port(), &[]).await;
    let nobody = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let url = format!("redis://{nobody},{},{}/", address(&replica), address(&fixture.redis));
    let group = GroupConnector::builder(&url).group(&fixture.group).connect().await.unwrap();
    let me = group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();

    replicated(&fixture.redis, 1).await;
    // The replica is made the primary by hand: the connections are closed, and found again there.
    let mut promoting = replica.connection().await.unwrap();
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async::<()>(&mut promoting).await.unwrap();
    fixture.redis.stop().await.unwrap();
    assert!(guard.held().await, "it lives on the replica");
    assert!(me.held().await.is_some());
    let error = GroupConnector::builder(format!("redis://{nobody},{}/", address(&fixture.redis))).connect().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Connection);
}

/// A primary that became a replica, and may still be written to, is given up.
#[tokio::test]
async fn demoted_primary_is_given_up() {
    let fixture = Fixture::new().await;
    let other = Fixture::new().await;
    let url = format!("redis://{},{}/", address(&fixture.redis), address(&other.redis));
    let group = GroupConnector::builder(&url).group(&fixture.group).connect().await.unwrap();
    let me = group.join("a").await.unwrap();
    let before = me.incarnation().unwrap();
    let mut connection = fixture.connection().await;
    let words: &[&[&str]] =
        &[&["CONFIG", "SET", "replica-read-only", "no"], &["REPLICAOF", "127.0.0.1", &other.redis.port().to_string()]];
    for words in words {
        redis::cmd(words[0]).arg(&words[1..]).query_async::<()>(&mut connection).await.unwrap();
    }
    eventually("it joins at the other", async || me.incarnation().is_some_and(|now| now > before)).await;
    let watcher = GroupConnector::builder(other.redis.url()).group(&fixture.group).connect().await.unwrap();
    eventually("the other has it", async || watcher.members().contains("a")).await;
}

/// A guard says no where its server has become a replica that may be written to, though heartbeats are answered there.
#[tokio::test]
async fn guard_at_a_demoted_primary_says_no() {
    let (fixture, other) = (Fixture::new().await, Fixture::new().await);
    let group = fixture.connect().await;
    let guard = group.lock("l").acquire().await.unwrap();
    let mut connection = fixture.connection().await;
    let away = other.redis.port().to_string();
    // It may be written to, and its link to the primary never stands.
    for words in [["CONFIG", "SET", "replica-read-only", "no"], ["CONFIG", "SET", "masterauth", "wrong"]] {
        redis::cmd(words[0]).arg(&words[1..]).query_async::<()>(&mut connection).await.unwrap();
    }
    redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "secret"])
        .exec_async(&mut other.connection().await)
        .await
        .unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(&away).query_async::<()>(&mut connection).await.unwrap();
    eventually("it says no", async || !guard.is_held()).await;
    let told = async || group.status().error.is_some_and(|error| error.to_string().contains("is a replica"));
    eventually("the reason is said", told).await;
    assert!(!guard.is_held());
}
