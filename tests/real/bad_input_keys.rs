//! Keys of the group that another program has written.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use group_redis::{ErrorKind, State};
use tokio::time::timeout;

use crate::bad_input::{ask, assert_kind, names, set};
use crate::support::{Fixture, PATIENCE, Recorder, eventually};

#[tokio::test]
async fn member_key_of_another_type_is_refused() {
    let fixture = Fixture::new().await;
    let (hash, list) = (fixture.key("members/hash"), fixture.key("members/list"));
    ask::<()>(&fixture, &["HSET", &hash, "field", "value"]).await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    group.join("good").await.unwrap();
    ask::<()>(&fixture, &["RPUSH", &list, "value"]).await;
    for name in ["hash", "list"] {
        let error = assert_kind(group.join(name).await, ErrorKind::ForeignValue, "");
        assert!(error.is_unapplied() && !error.is_retryable());
        assert!(!group.leave(name).await.unwrap());
    }
    assert_eq!(ask::<String>(&fixture, &["HGET", &hash, "field"]).await, "value");
    assert_eq!(ask::<Vec<String>>(&fixture, &["LRANGE", &list, "0", "-1"]).await, ["value"]);
    assert_eq!(ask::<i64>(&fixture, &["TTL", &hash]).await, -1);
    group.join("later").await.unwrap();
    seen.wait_for_names(&["good", "later"]).await;
    assert_eq!(names(&fixture.connect().await), set(&["good", "later"]));

    // A member's own key becomes one: that member is gone for all, the others are not, and it can come back.
    let me = group.join("own").await.unwrap();
    seen.wait_for_names(&["good", "later", "own"]).await;
    let own = fixture.key("members/own");
    redis::pipe().atomic().del(&own).rpush(&own, 1).exec_async(&mut fixture.connection().await).await.unwrap();
    seen.wait_for_names(&["good", "later"]).await;
    assert!(me.update_text("x").await.is_err());
    assert_eq!(ask::<Vec<String>>(&fixture, &["LRANGE", &own, "0", "-1"]).await, ["1"]);
    ask::<()>(&fixture, &["DEL", &own, &hash]).await;
    group.join("hash").await.unwrap();
    seen.wait_for_names(&["good", "hash", "later", "own"]).await;
    assert_eq!(seen.read(|record| record.snapshots), 1, "no link was broken: {}", seen.history());
}

#[tokio::test]
async fn unreadable_records_are_skipped() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    group.join("good").await.unwrap();
    let newer = r#"{"v":2,"incarnation":1,"session":"s","revision":1,"joined":1,"tags":[]}"#;
    let mistyped = r#"{"v":1,"incarnation":5,"session":"s","nonce":1,"revision":"x","joined":1,"tags":7}"#;
    for (n, value) in [newer, "{\"v\":1,", mistyped, "{\"v\":\"1\"}", "{\"v\":"].into_iter().enumerate() {
        let name = format!("bad-{n}");
        ask::<()>(&fixture, &["SET", &fixture.key(&format!("members/{name}")), value, "PX", "60000"]).await;
        // A newer version of this crate would list it too.
        ask::<()>(&fixture, &["ZADD", &fixture.key("members"), &format!("{}", n + 1), &name]).await;
    }
    ask::<()>(&fixture, &["SET", &fixture.key("members/kept"), "text without a ttl"]).await;
    for stray in ["members/a b", "members/%41", "members/", "members/%", "members/a/b", "members/*"] {
        ask::<()>(&fixture, &["SET", &fixture.key(stray), "text", "PX", "60000"]).await;
    }
    let long = "x".repeat(513);
    for entry in ["a b", "%41", "", &long] {
        ask::<()>(&fixture, &["ZADD", &fixture.key("members"), "7", entry]).await;
    }
    for (score, entry) in [("-5", "minus"), ("inf", "inf"), ("-inf", "-inf"), ("1.5", "half")] {
        ask::<()>(&fixture, &["ZADD", &fixture.key("members"), score, entry]).await;
    }
    ask::<()>(&fixture, &["ZADD", &fixture.key("leases"), "1", "nobody", "-inf", "", "1", "~", "inf", "~%"]).await;
    group.join("later").await.unwrap();
    seen.wait_for_names(&["good", "later"]).await;
    for connector in [&watcher, &group, &fixture.connect().await] {
        let view = connector.sync().await.unwrap();
        let names: BTreeSet<_> = view.iter().map(|member| member.id().to_string()).collect();
        assert_eq!(names, set(&["good", "later"]));
        assert_eq!(connector.state().get(), State::Connected);
    }
    assert_eq!(seen.read(|record| (record.snapshots, record.leaves)), (1, 0), "{}", seen.history());
    assert_eq!(ask::<String>(&fixture, &["GET", &fixture.key("members/bad-0")]).await, newer, "it is not ours");

    // Text that is not even UTF-8 is a member like any other program's.
    let mut connection = fixture.connection().await;
    let mut command = redis::cmd("SET");
    command.arg(fixture.key("members/bytes")).arg(&b"\xff\xfe\0"[..]).arg("PX").arg(60_000);
    command.query_async::<()>(&mut connection).await.unwrap();
    seen.wait_for_names(&["bytes", "good", "later"]).await;
}

/// A shared key of another type stops a connect with a typed error.
#[tokio::test]
async fn shared_key_of_another_type_fails_connect() {
    let fixture = Fixture::new().await;
    for path in ["members", "leases", "revision"] {
        let key = fixture.key(path);
        ask::<()>(&fixture, &["RPUSH", &key, "value"]).await;
        let begun = Instant::now();
        let result = timeout(PATIENCE, fixture.builder().connect()).await.expect("an answer");
        assert_kind(result, ErrorKind::ForeignValue, "");
        assert!(begun.elapsed() < Duration::from_secs(3), "{path}: it took {:?}", begun.elapsed());
        // Who connects in the background waits for it to be mended.
        let lazy = fixture.builder().connect_lazy().unwrap();
        let told = async || lazy.status().error.is_some_and(|error| error.kind() == ErrorKind::ForeignValue);
        eventually("the status names it", told).await;
        assert_eq!(ask::<Vec<String>>(&fixture, &["LRANGE", &key, "0", "-1"]).await, ["value"], "{path}");
        ask::<()>(&fixture, &["DEL", &key]).await;
        let connected = async { lazy.state().wait_for(|state| state == State::Connected).await };
        assert_eq!(timeout(PATIENCE, connected).await.expect(path), State::Connected);
        lazy.join("a").await.unwrap();
        lazy.close().await.unwrap();
        ask::<()>(&fixture, &["DEL", &fixture.key("revision")]).await;
    }
}

#[tokio::test]
async fn shared_key_changing_type_is_survived() {
    for path in ["members", "leases", "revision"] {
        let fixture = Fixture::new().await;
        let (watcher, group, third) = (fixture.connect().await, fixture.connect().await, fixture.connect().await);
        let seen = Recorder::new(&watcher);
        group.join("anchor").await.unwrap();
        seen.wait_for_names(&["anchor"]).await;
        let key = fixture.key(path);
        let mut connection = fixture.connection().await;
        redis::pipe().atomic().del(&key).rpush(&key, "value").exec_async(&mut connection).await.unwrap();
        // Who has a lease already does not need the index of the leases to join.
        let joiners = if path == "leases" { vec![&third] } else { vec![&group, &third] };
        for joiner in joiners {
            let result = timeout(PATIENCE, joiner.join("new")).await.expect("an answer");
            assert_kind(result, ErrorKind::ForeignValue, "");
        }
        for connector in [&watcher, &group] {
            // It may know by heart what it needs, or say that it cannot; it does not hang.
            if let Err(error) = timeout(PATIENCE, connector.sync()).await.expect("an answer") {
                let kinds = [ErrorKind::ForeignValue, ErrorKind::Timeout];
                assert!(kinds.contains(&error.kind()), "{path}: {error:?}");
            }
        }
        assert_eq!(ask::<Vec<String>>(&fixture, &["LRANGE", &key, "0", "-1"]).await, ["value"], "{path}");
        ask::<()>(&fixture, &["DEL", &key]).await;

        third.join("new").await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let connected = async { watcher.state().wait_for(|state| state == State::Connected).await };
        timeout(PATIENCE, connected).await.expect("the watcher is connected");
        // Where its index is gone, the anchor has to join it again.
        for connector in [&watcher, &group] {
            let both = async || connector.sync().await.is_ok_and(|view| view.len() == 2);
            eventually(&format!("{path}: both are there for good"), both).await;
        }
        eventually("a late watcher sees both", async || fixture.connect().await.members().len() == 2).await;
    }
}

#[tokio::test]
async fn join_refused_as_foreign_writes_nothing() {
    let fixture = Fixture::new().await;
    let group = fixture.builder().without_sweep().reconcile(Duration::from_secs(3600)).connect().await.unwrap();
    for path in ["members", "leases", "revision"] {
        let key = fixture.key(path);
        ask::<()>(&fixture, &["DEL", &fixture.key("members"), &fixture.key("leases"), &fixture.key("revision")]).await;
        ask::<()>(&fixture, &["RPUSH", &key, "value"]).await;
        let error = assert_kind(group.join("new").await, ErrorKind::ForeignValue, "");
        let keys: Vec<String> = ask(&fixture, &["KEYS", &fixture.key("*")]).await;
        let of_itself = |key: &String| key.contains("/canaries/") || key.ends_with("/asks");
        let keys: Vec<_> = keys.into_iter().filter(|key| !of_itself(key)).collect();
        assert!(!error.is_unapplied() || keys == [key], "{path}: it is sure that nothing happened, but: {keys:?}");
    }
}

#[tokio::test]
async fn revision_that_is_no_number_heals() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    ask::<()>(&fixture, &["SET", &fixture.key("revision"), "abc"]).await;
    let result = timeout(PATIENCE, fixture.builder().connect()).await.expect("an answer");
    assert_kind(result, ErrorKind::ForeignValue, "remove it");
    assert_kind(group.join("a").await, ErrorKind::ForeignValue, "remove it");
    ask::<()>(&fixture, &["DEL", &fixture.key("revision")]).await;
    group.join("a").await.unwrap();
    watcher.wait_for(PATIENCE, |view| view.contains("a")).await.unwrap();
    assert_eq!(fixture.connect().await.sync().await.unwrap().len(), 1);
}
