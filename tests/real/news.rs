//! News: watchers hear of changes without asking, and ask where no news can come.

use std::time::Duration;

use group_redis::testing::{FaultProxy, Flow, Line, Way};
use group_redis::{EventSource, GroupConnector, LeaveCause};

use super::sources::connect_without;
use super::support::{Fixture, Recorder, TTL, eventually};

/// Longer than a test takes: nothing is asked meanwhile but what a change asks for.
const LONG: Duration = Duration::from_secs(30);

/// A watcher that hears, and whose questions get no answer from now on.
async fn unanswered(fixture: &Fixture) -> (GroupConnector, Recorder, FaultProxy) {
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let builder = GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(LONG);
    let watcher = builder.command_timeout(LONG / 3).connect().await.unwrap();
    let seen = Recorder::new(&watcher);
    proxy.set(Line::Commands, Way::ToClient, Flow::new().blackhole());
    (watcher, seen, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_seen_though_no_question_is_answered() {
    let fixture = Fixture::new().await;
    let other = fixture.connect().await;
    let (watcher, seen, proxy) = unanswered(&fixture).await;
    let me = other.join("a").text("old").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    me.update_text("new").await.unwrap();
    seen.wait_until("the update", |record| record.members["a"].text() == Some("new")).await;
    me.leave().await.unwrap();
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("a")), Some(LeaveCause::Left));

    other.join("b").await.unwrap();
    other.join("c").await.unwrap();
    seen.wait_for_names(&["b", "c"]).await;
    other.close().await.unwrap();
    seen.wait_for_names(&[]).await;

    // A long record is not told but read: that is not answered, and so it is not seen before it is.
    let other = fixture.connect().await;
    other.join("long").text("x".repeat(5000)).await.unwrap();
    other.join("d").await.unwrap();
    seen.wait_for_names(&["d"]).await;
    proxy.heal();
    seen.wait_for_names(&["d", "long"]).await;
    assert_eq!(watcher.status().source, EventSource::Keyspace);
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_are_seen_though_no_question_is_answered() {
    let fixture = Fixture::new().await;
    let sweeper = fixture.connect().await;
    let (_watcher, seen, _proxy) = unanswered(&fixture).await;
    let way = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let dying = GroupConnector::builder(way.url()).group(&fixture.group).ttl(TTL).connect().await.unwrap();
    dying.join("a").await.unwrap();
    dying.join("b").await.unwrap();
    seen.wait_for_names(&["a", "b"]).await;
    way.set_both(Line::Any, Flow::new().blackhole());
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("a")), Some(LeaveCause::Expired));
    eventually("the sweeper has heard of it", async || sweeper.members().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_hear_news_reads() {
    let fixture = Fixture::new().await;
    let rights = ["resetchannels", "&__key*", "&*/inbox/*", "&*/presence/*"];
    let prefix = fixture.key("");
    let keys = format!("&__keyspace@0__:{prefix}members/*");
    let canary = format!("&__keyspace@0__:{prefix}canaries/*");
    let rights: Vec<_> = rights.into_iter().chain([keys.as_str(), canary.as_str()]).collect();
    let watcher = connect_without(&fixture, &rights, |builder| builder).await;
    let seen = Recorder::new(&watcher);
    let other = fixture.connect().await;
    let me = other.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    me.leave().await.unwrap();
    seen.wait_for_names(&[]).await;
    // Nor does it tell any: others read.
    let seen = Recorder::new(&other);
    watcher.join("b").await.unwrap();
    seen.wait_for_names(&["b"]).await;
    assert_eq!(watcher.status().source, EventSource::Keyspace);
}
