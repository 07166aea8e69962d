//! The safety ttl is no second deadline: what lives by a lease lives as long as it, or its holder knows before it ends.

use std::time::{Duration, Instant};

use group_redis::testing::{FaultProxy, Line};
use group_redis::{GroupConnector, LeaveCause, State};

use super::sources::connect_without;
use super::support::{Fixture, PATIENCE, Recorder, eventually};

/// The safety ttl of all keys of a small group is four times as long.
const SHORT: Duration = Duration::from_millis(600);
/// Long enough that a busy machine answers each heartbeat in time.
const TTL: Duration = Duration::from_millis(1800);

/// What a session owns outlives its safety ttl while only heartbeats get through.
#[tokio::test]
async fn heartbeats_renew_safety_ttl_alone() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let watcher = fixture.builder().ttl(TTL).connect().await.unwrap();
    let group = GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(TTL).connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    group.join("a").await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    group.ephemeral().set("v", &1).await.unwrap();
    seen.wait_for_names(&["a"]).await;

    // Connections that stand go on, new ones are turned away.
    let (mut admin, mut reader) = (fixture.connection().await, fixture.connection().await);
    let mut password = async |password: &str| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("requirepass").arg(password).query_async::<()>(&mut admin).await.unwrap();
    };
    password("another").await;
    proxy.reset(Line::Commands);
    let mut state = group.state();
    tokio::time::timeout(PATIENCE, state.wait_for(|state| state != State::Connected)).await.unwrap();
    let end = Instant::now() + TTL * 4 * 2;
    while Instant::now() < end {
        assert!(guard.is_held(), "its lease was renewed all the time: {:?}", group.status());
        for key in ["locks/l", "members/a", "ephemerals/v"] {
            let mut exists = redis::cmd("EXISTS");
            assert!(exists.arg(fixture.key(key)).query_async::<bool>(&mut reader).await.unwrap(), "{key} is free");
        }
        tokio::time::sleep(TTL / 10).await;
    }
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());

    password("").await;
    tokio::time::timeout(PATIENCE, state.wait_for(|state| state == State::Connected)).await.unwrap();
    assert!(guard.is_held() && guard.release().await);
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
}

/// A holder that may not renew what it owns knows before that runs out.
#[tokio::test]
async fn unrenewed_holder_suspends_in_time() {
    let fixture = Fixture::new().await;
    // Nothing is renewed without it.
    let group = connect_without(&fixture, &["-sscan"], |builder| builder.ttl(SHORT)).await;
    let other = fixture.builder().ttl(SHORT).connect().await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    let waiting = tokio::spawn(async move {
        let second = other.lock("l").acquire().await.unwrap();
        (Instant::now(), second.token())
    });
    tokio::time::timeout(PATIENCE, guard.lost()).await.expect("the guard is lost");
    let lost = Instant::now();
    let (taken, token) = tokio::time::timeout(PATIENCE, waiting).await.expect("it is free").unwrap();
    assert!(lost < taken && token > guard.token(), "lost {:?} after it was taken", lost - taken);
    assert!(!guard.is_held());
}

/// A holder that may not show its presence any more begins a session that nobody has seen.
#[tokio::test]
async fn session_without_presence_starts_unseen() {
    let fixture = Fixture::new().await;
    let long = Duration::from_secs(10);
    // Of a user who may use every channel Redis 6.2 closes nothing, so this one has a list.
    let folders = ["members", "canaries", "ephemerals", "locks"];
    let mut rights = vec!["resetchannels".to_owned()];
    rights.extend(folders.map(|folder| format!("&__keyspace@0__:{}", fixture.key(&format!("{folder}/*")))));
    rights.extend(["inbox/*", "presence/*"].map(|own| format!("&{}", fixture.key(own))));
    let rights: Vec<_> = rights.iter().map(String::as_str).collect();
    let group = connect_without(&fixture, &rights, |builder| builder.ttl(long)).await;
    let watcher = fixture.builder().ttl(long).connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    let first = me.incarnation();
    let guard = group.lock("l").acquire().await.unwrap();
    eventually("it is seen to be present", async || watcher.status().sessions_seen == 1).await;

    // The server closes connections that listen to what they may not listen to any more.
    let mut admin = fixture.connection().await;
    let mut take = redis::cmd("ACL");
    take.arg("SETUSER").arg("app").arg("resetchannels").query_async::<()>(&mut admin).await.unwrap();
    tokio::time::timeout(PATIENCE, guard.lost()).await.expect("the guard is lost");
    let again = || seen.read(|record| record.members.get("a").map(|member| member.incarnation()));
    eventually("it has joined again", async || again() > first).await;
    assert!(!guard.is_held());
    let joined = again();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert_eq!(again(), joined, "nobody looks for whom it has not seen: {}", seen.history());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(seen.read(|record| record.left("a")), Some(LeaveCause::Left));
}
