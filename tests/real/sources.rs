//! Where hints come from: each source by itself, what takes the place of one that fails, and the way back.

use std::time::Duration;

use group_redis::testing::{FaultProxy, Flow, Line};
use group_redis::{EventSource, GroupConnector, GroupConnectorBuilder, LeaveCause, Notifications};

use super::support::{Fixture, Recorder, TTL, eventually};

async fn ask(fixture: &Fixture, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async::<redis::Value>(&mut fixture.connection().await).await.unwrap();
}

/// A user with all rights but these.
pub(crate) async fn connect_without(
    fixture: &Fixture,
    rights: &[&str],
    settings: impl FnOnce(GroupConnectorBuilder) -> GroupConnectorBuilder,
) -> GroupConnector {
    let mut rule = vec!["ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "&*", "+@all"];
    rule.extend(rights);
    ask(fixture, &rule).await;
    let url = fixture.redis.url().replace("redis://", "redis://app:secret@");
    let builder = GroupConnector::builder(url).group(&fixture.group).ttl(TTL).poll(Duration::from_millis(60));
    settings(builder).connect().await.unwrap()
}

async fn served_by(group: &GroupConnector, source: EventSource) {
    eventually(&format!("{source}, instead of {:?}", group.status()), async || {
        let status = group.status();
        status.source == source
            && status.source_since.is_some()
            && status.notifications_arrive == (source != EventSource::Poll)
    })
    .await;
}

/// Members, values, locks and leaders, as seen by a watcher whose source this is.
async fn everything_works(fixture: &Fixture, watcher: &GroupConnector) {
    let seen = Recorder::new(watcher);
    let other = fixture.connect().await;
    let me = other.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    me.update_text("new").await.unwrap();
    seen.wait_until("the update", |record| record.members["a"].text() == Some("new")).await;
    me.leave().await.unwrap();
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("a")), Some(LeaveCause::Left));

    let mut values = watcher.ephemeral().watch("").unwrap();
    other.ephemeral().set("x/y", "1").await.unwrap();
    let mut heard = Vec::new();
    while !heard.iter().any(|line: &String| line.contains("x/y")) {
        let event = tokio::time::timeout(super::support::PATIENCE, values.next()).await;
        heard.push(format!("{:?}", event.unwrap_or_else(|_| panic!("no value came: {heard:?}"))));
    }

    // Handed on to one who may not be told, it is found all the same.
    let held = other.lock("l").acquire().await.unwrap();
    let waiter = watcher.clone();
    let waiting = tokio::spawn(async move { waiter.lock("l").acquire().await.unwrap().token() });
    let mut server = fixture.connection().await;
    let queue = fixture.key("queues/l");
    eventually("the queue", async || {
        redis::cmd("ZCARD").arg(&queue).query_async::<u32>(&mut server).await.unwrap() == 1
    })
    .await;
    let first = held.token();
    assert!(held.release().await);
    let second = tokio::time::timeout(super::support::PATIENCE, waiting).await.expect("the grant").unwrap();
    assert!(second > first);

    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let dying = GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(TTL).connect().await.unwrap();
    dying.join("b").await.unwrap();
    seen.wait_for_names(&["b"]).await;
    proxy.set_both(Line::Any, Flow::new().blackhole());
    seen.wait_until("the crash", |record| record.left("b") == Some(LeaveCause::Expired)).await;
    other.close().await.unwrap();
}

/// It needs no setting of the server.
#[tokio::test]
async fn tracking_hears_of_a_flush() {
    let fixture = Fixture::new().await;
    let watcher = connect_without(&fixture, &["-config"], |builder| builder.event_source(EventSource::Tracking)).await;
    served_by(&watcher, EventSource::Tracking).await;
    assert_eq!(watcher.status().source_reason, None);
    everything_works(&fixture, &watcher).await;

    // A member that another program keeps is heard of too.
    let seen = Recorder::new(&watcher);
    let mut server = fixture.connection().await;
    let key = fixture.key("members/foreign");
    redis::cmd("SET").arg(&key).arg("hi").arg("PX").arg(5000).query_async::<()>(&mut server).await.unwrap();
    seen.wait_for_names(&["foreign"]).await;
    let before = watcher.status().reconnects;
    ask(&fixture, &["FLUSHALL"]).await;
    seen.wait_for_names(&[]).await;
    assert_eq!(watcher.status().reconnects, before);
    watcher.close().await.unwrap();
}

#[tokio::test]
async fn keyevent_notifications_serve_as_well() {
    let fixture = Fixture::new().await;
    let watcher = connect_without(&fixture, &[], |builder| builder.event_source(EventSource::Keyevent)).await;
    served_by(&watcher, EventSource::Keyevent).await;
    everything_works(&fixture, &watcher).await;
    watcher.close().await.unwrap();
}

/// Connectors that set the flags at the same time take none from each other.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_flag_writers_lose_none() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.connection().await;
    let mut config = redis::cmd("CONFIG");
    config.arg("GET").arg("notify-keyspace-events");
    for round in 0..50 {
        ask(&fixture, &["CONFIG", "SET", "notify-keyspace-events", ""]).await;
        let sources = [EventSource::Keyspace, EventSource::Keyevent, EventSource::Keyspace, EventSource::Keyevent];
        let connecting = sources.map(|source| fixture.builder().event_source(source).connect());
        let groups = futures_util::future::try_join_all(connecting).await.unwrap();
        let flags: Vec<String> = config.query_async(&mut connection).await.unwrap();
        let has_all = "KE$gxe".chars().all(|flag| flags[1].contains(flag));
        assert!(has_all, "in round {round}: {flags:?}");
        futures_util::future::try_join_all(groups.iter().map(GroupConnector::close)).await.unwrap();
    }
}

#[tokio::test]
async fn tracking_serves_where_config_is_forbidden() {
    let fixture = Fixture::new().await;
    let watcher = connect_without(&fixture, &["-config"], |builder| builder).await;
    served_by(&watcher, EventSource::Tracking).await;
    let reason = watcher.status().source_reason.unwrap();
    assert!(reason.contains("keyspace") && reason.contains("not arrive"), "{reason}");
    everything_works(&fixture, &watcher).await;
    watcher.close().await.unwrap();
}

/// Without any right to a channel tracking serves and grants are asked for.
#[tokio::test]
async fn tracking_serves_without_channel_rights() {
    let fixture = Fixture::new().await;
    let watcher = connect_without(&fixture, &["resetchannels"], |builder| builder).await;
    served_by(&watcher, EventSource::Tracking).await;
    assert!(!watcher.status().grants_arrive);
    let reason = watcher.status().source_reason.unwrap();
    assert!(reason.contains("PSUBSCRIBE"), "{reason}");
    everything_works(&fixture, &watcher).await;
    watcher.close().await.unwrap();
}

#[tokio::test]
async fn without_pub_sub_and_tracking_polling_serves() {
    let fixture = Fixture::new().await;
    // Redis 6.2 takes no subcommand away, only a whole command.
    let rights = ["-@pubsub", "-client", "-config", "resetchannels"];
    let watcher = connect_without(&fixture, &rights, |builder| builder).await;
    served_by(&watcher, EventSource::Poll).await;
    assert!(!watcher.status().grants_arrive);
    everything_works(&fixture, &watcher).await;
    watcher.close().await.unwrap();
}

#[tokio::test]
async fn lock_is_handed_on_without_publish() {
    let fixture = Fixture::new().await;
    let holder = connect_without(&fixture, &["-publish"], |builder| builder).await;
    let waiter = fixture.builder().reconcile(Duration::from_millis(100)).connect().await.unwrap();
    let held = holder.lock("l").acquire().await.unwrap();
    let waiting = tokio::spawn(async move { waiter.lock("l").acquire().await.map(|guard| guard.token()) });
    let (mut server, queue) = (fixture.connection().await, fixture.key("queues/l"));
    eventually("the queue", async || {
        redis::cmd("ZCARD").arg(&queue).query_async::<u32>(&mut server).await.unwrap() == 1
    })
    .await;
    assert!(held.release().await);
    tokio::time::timeout(super::support::PATIENCE, waiting).await.expect("the grant").unwrap().unwrap();
}

/// Flags taken away at run time are set again or something else serves until they are back.
#[tokio::test]
async fn flags_removed_at_run_time_are_restored() {
    let fixture = Fixture::new().await;
    let (enabler, watcher) = (fixture.connect().await, {
        let builder = fixture.builder().notifications(Notifications::Never);
        builder.poll(Duration::from_millis(60)).connect().await.unwrap()
    });
    served_by(&watcher, EventSource::Keyspace).await;
    let seen = Recorder::new(&watcher);
    let me = enabler.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    enabler.close().await.unwrap();
    seen.wait_for_names(&[]).await;
    drop(me);

    // Nobody is left who would set them again.
    ask(&fixture, &["CONFIG", "SET", "notify-keyspace-events", ""]).await;
    let quiet = fixture.builder().notifications(Notifications::Never).connect().await.unwrap();
    let members = quiet.join("b").await.unwrap();
    seen.wait_for_names(&["b"]).await;
    served_by(&watcher, EventSource::Tracking).await;
    members.leave().await.unwrap();
    seen.wait_for_names(&[]).await;

    ask(&fixture, &["CONFIG", "SET", "notify-keyspace-events", "K$gx"]).await;
    served_by(&watcher, EventSource::Keyspace).await;
    quiet.join("c").await.unwrap();
    seen.wait_for_names(&["c"]).await;
    let (snapshots, reconnects) = (seen.read(|record| record.snapshots), watcher.status().reconnects);
    assert_eq!((snapshots, reconnects), (1, 0), "no gap, no new link: {}", seen.history());
    watcher.close().await.unwrap();

    // Who may set them does so, within one reconcile interval.
    let keeper = fixture.connect().await;
    served_by(&keeper, EventSource::Keyspace).await;
    let since = keeper.status().last_canary.unwrap();
    ask(&fixture, &["CONFIG", "SET", "notify-keyspace-events", "Kx"]).await;
    eventually("the next canary", async || keeper.status().last_canary.unwrap() > since + TTL).await;
    assert_eq!(keeper.status().source, EventSource::Keyspace);
    let flags: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("notify-keyspace-events")
        .query_async(&mut fixture.connection().await)
        .await
        .unwrap();
    assert!("K$gx".chars().all(|flag| flags[1].contains(flag)), "{flags:?}");
    let status = keeper.status();
    assert!(status.round_trip.is_some() && status.event_lag.is_some(), "{status:?}");
    keeper.close().await.unwrap();
}
