//! Hostile input: names, metadata, settings, secrets, slow subscribers, flags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use group_redis::{Error, ErrorKind, Event, EventSource, GroupConnector, MAX_METADATA, Notifications};
use redis::FromRedisValue;
use tokio::time::timeout;

use crate::sources::connect_without;
use crate::support::{Fixture, PATIENCE, Recorder, Told, eventually};

/// Nobody listens there.
const NOWHERE: &str = "redis://127.0.0.1:1/";

const NAMES: [&str; 26] = [
    "*", "?", "[", "]", "\\", "{", "}", "/", ":", "%", "\0", "\r\n", " ", "\"", "'", "ü日本", "a", "a:b", "a/b",
    "a%2Fb", "a%252Fb", "~", "~a", ".", "A", "members",
];

pub(crate) async fn ask<T: FromRedisValue>(fixture: &Fixture, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query_async(&mut fixture.connection().await).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

pub(crate) fn names(group: &GroupConnector) -> BTreeSet<String> {
    group.members().iter().map(|member| member.id().to_string()).collect()
}

pub(crate) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[track_caller]
pub(crate) fn assert_kind<T>(result: Result<T, Error>, kind: ErrorKind, words: &str) -> Error {
    let Err(error) = result else { panic!("{kind:?} was expected of {words:?}, and it succeeded") };
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(words), "{words:?} is not named: {error}");
    error
}

async fn flags(fixture: &Fixture) -> String {
    ask::<Vec<String>>(fixture, &["CONFIG", "GET", "notify-keyspace-events"]).await.remove(1)
}

/// Names that are empty or too long are refused before any I/O.
#[tokio::test]
async fn bad_names_are_refused_before_any_io() {
    let fixture = Fixture::new().await;
    let long = "x".repeat(513);
    let wide = "ü".repeat(257);
    let group = fixture.connect().await;
    let me = group.join("me").await.unwrap();
    for bad in ["", &long, &wide] {
        let nowhere = || GroupConnector::builder(NOWHERE);
        assert_kind(nowhere().group(bad).connect().await, ErrorKind::InvalidName, "group");
        assert_kind(nowhere().namespace(bad).connect().await, ErrorKind::InvalidName, "namespace");
        assert_kind(nowhere().group(bad).connect_lazy(), ErrorKind::InvalidName, "group");
        let error = assert_kind(group.join(bad).await, ErrorKind::InvalidName, "name");
        assert!(error.is_unapplied() && !error.is_retryable());
        assert_kind(group.leave(bad).await, ErrorKind::InvalidName, "name");
        assert_kind(group.join("b").tag(bad).await, ErrorKind::InvalidName, "tag");
        assert_kind(me.add_tags([bad]).await, ErrorKind::InvalidName, "tag");
        assert!(group.member(bad).is_none() && !group.members().contains(bad));
    }
    assert_eq!(group.sync().await.unwrap().len(), 1);
    let keys: Vec<String> = ask(&fixture, &["KEYS", &fixture.key("members/*")]).await;
    assert_eq!(keys, [fixture.key("members/me")]);
}

#[tokio::test]
async fn shortest_and_longest_names_work() {
    let fixture = Fixture::new().await;
    for length in [1, 512] {
        let name = "*".repeat(length);
        let builder = || {
            let builder = fixture.builder().group(&name).namespace(&name);
            builder.reconcile(Duration::from_secs(3600))
        };
        let (watcher, group) = (builder().connect().await.unwrap(), builder().connect().await.unwrap());
        let seen = Recorder::new(&watcher);
        let me = group.join(&name).tag(&name).await.unwrap();
        seen.wait_for_names(&[&name]).await;
        assert!(watcher.member(&name).unwrap().has_tag(&name));
        assert!(me.leave().await.unwrap());
        seen.wait_for_names(&[]).await;
        group.close().await.unwrap();
    }
}

#[tokio::test]
async fn odd_names_are_members_apart() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    let mut present = BTreeSet::new();
    for name in NAMES {
        group.join(name).text(name).tag(name).await.unwrap();
        present.insert(name.to_owned());
    }
    seen.wait_until("all names", |record| record.names().into_iter().eq(present.iter())).await;
    for name in NAMES {
        let member = watcher.member(name).unwrap();
        assert_eq!((member.text(), member.tags().collect::<Vec<_>>()), (Some(name), vec![name]));
        assert_eq!(watcher.members().with_tag(name).count(), 1, "{name:?}");
    }
    assert_eq!(names(&fixture.connect().await), present, "a late watcher reads the same names");
    for name in NAMES {
        assert!(group.leave(name).await.unwrap(), "{name:?}");
        present.remove(name);
        assert_eq!(names(&group), present);
        seen.wait_until("the others", |record| record.names().into_iter().eq(present.iter())).await;
    }
}

#[tokio::test]
async fn odd_names_are_groups_apart() {
    let fixture = Fixture::new().await;
    let mut groups = Vec::new();
    for name in NAMES {
        let by_group = fixture.builder().group(name).connect().await.unwrap();
        let by_namespace = fixture.builder().group("g").namespace(name).connect().await.unwrap();
        by_group.join(name).await.unwrap();
        by_namespace.join(format!("in {name}")).await.unwrap();
        groups.push((name, by_group, by_namespace));
    }
    for (name, by_group, by_namespace) in &groups {
        let (by_group, by_namespace) = (by_group.sync().await.unwrap(), by_namespace.sync().await.unwrap());
        assert!(by_group.len() == 1 && by_group.contains(name), "{name:?}: {by_group:?}");
        assert!(by_namespace.len() == 1 && by_namespace.contains(&format!("in {name}")), "{name:?}: {by_namespace:?}");
    }
    // Each is heard by notification, whatever stands in its pattern.
    for name in NAMES {
        let builder = fixture.builder().group(name).namespace(name).reconcile(Duration::from_secs(3600));
        let watcher = builder.connect().await.unwrap();
        let group = fixture.builder().group(name).namespace(name).connect().await.unwrap();
        group.join("x").await.unwrap();
        watcher.wait_for(PATIENCE, |view| view.contains("x")).await.unwrap_or_else(|e| panic!("{name:?}: {e}"));
    }
}

#[tokio::test]
async fn metadata_of_every_shape_comes_through() {
    let fixture = Fixture::new().await;
    let patient = || fixture.builder().ttl(Duration::from_secs(20)).command_timeout(Duration::from_secs(10));
    let (watcher, group) = (patient().connect().await.unwrap(), patient().connect().await.unwrap());
    group.join("none").await.unwrap();
    let me = group.join("a").text("").await.unwrap();
    let view = watcher.wait_for(PATIENCE, |view| view.len() == 2).await.unwrap();
    assert_eq!(view.get("none").unwrap().text(), None);
    assert_eq!(view.get("a").unwrap().text(), Some(""));
    assert_kind(view.get("none").unwrap().metadata::<String>(), ErrorKind::InvalidMetadata, "none");
    assert_kind(view.get("a").unwrap().metadata::<String>(), ErrorKind::InvalidMetadata, "\"a\"");

    // The last one is six times as long in JSON.
    for text in ["\0\"'}\\\r\n{\u{2028}ü", &"x".repeat(MAX_METADATA), &"\0".repeat(MAX_METADATA)] {
        me.update_text(text).await.unwrap();
        let arrived = |view: &group_redis::View| view.get("a").is_some_and(|member| member.text() == Some(text));
        watcher.wait_for(PATIENCE, arrived).await.unwrap();
        group.join("b").text(text).await.unwrap();
        watcher.wait_for(PATIENCE, |view| view.contains("b")).await.unwrap();
        let late = patient().connect().await.unwrap();
        for name in ["a", "b"] {
            assert_eq!(late.member(name).unwrap().text(), Some(text), "seen late");
        }
        group.leave("b").await.unwrap();
    }
    me.update(&("port", 80)).await.unwrap();
    let member = group.member("a").unwrap();
    assert_eq!(member.metadata::<(String, u16)>().unwrap(), ("port".into(), 80));
    assert_kind(member.metadata::<BTreeMap<String, u8>>(), ErrorKind::InvalidMetadata, "\"a\"");
}

#[tokio::test]
async fn metadata_and_tags_over_limits_are_refused() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let me = group.join("a").text("before").await.unwrap();
    let key = fixture.key("members/a");
    let before: String = ask(&fixture, &["GET", &key]).await;
    let (long, odd) = ("x".repeat(MAX_METADATA + 1), BTreeMap::from([((1u8, 2u8), 3u8)]));
    let quoted = "x".repeat(MAX_METADATA - 1);
    for error in [
        group.join("b").text(&long).await.unwrap_err(),
        group.join("b").metadata(&quoted).await.unwrap_err(),
        group.join("b").metadata(&odd).await.unwrap_err(),
        me.update_text(&long).await.unwrap_err(),
        me.update(&quoted).await.unwrap_err(),
        me.update(&odd).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidMetadata, "{error}");
        assert!(error.is_unapplied() && !error.is_retryable());
        assert!(error.to_string().len() < 500, "the metadata is not in the message");
    }
    let tags = |count: usize| (0..count).map(|n| format!("tag-{n}"));
    assert_kind(group.join("b").tags(tags(257)).await, ErrorKind::InvalidName, "257");
    assert_kind(me.add_tags(tags(257)).await, ErrorKind::InvalidName, "257");
    assert_eq!(ask::<String>(&fixture, &["GET", &key]).await, before);
    assert_eq!(ask::<u8>(&fixture, &["EXISTS", &fixture.key("members/b")]).await, 0);

    me.add_tags(tags(256)).await.unwrap();
    let full: String = ask(&fixture, &["GET", &key]).await;
    assert_kind(me.add_tags(["one more"]).await, ErrorKind::InvalidName, "257");
    me.add_tags(["tag-0"]).await.unwrap();
    assert_eq!(group.sync().await.unwrap().get("a").unwrap().tags().len(), 256);
    assert!(ask::<String>(&fixture, &["GET", &key]).await.len() == full.len(), "the same tags, another revision");
    me.remove_tags(["tag-0"]).await.unwrap();
    me.add_tags(["one more"]).await.unwrap();
    let late = fixture.connect().await.member("a").unwrap();
    assert!(late.has_tag("one more") && late.tags().len() == 256 && late.text() == Some("before"));
    group.join("b").tags(tags(256)).await.unwrap();
}

#[tokio::test]
async fn settings_out_of_range_are_named() {
    let ms = Duration::from_millis;
    let nowhere = || GroupConnector::builder(NOWHERE);
    for (words, builder) in [
        ("heartbeat", nowhere().ttl(ms(1000)).heartbeat(ms(500))),
        ("heartbeat", nowhere().heartbeat(Duration::MAX)),
        ("heartbeat", nowhere().heartbeat(Duration::ZERO)),
        ("ttl", nowhere().ttl(ms(199))),
        ("ttl", nowhere().ttl(Duration::ZERO)),
        ("ttl", nowhere().ttl(Duration::MAX)),
        ("connect_timeout", nowhere().connect_timeout(Duration::ZERO)),
        ("connect_timeout", nowhere().connect_timeout(Duration::MAX)),
        ("command_timeout", nowhere().command_timeout(Duration::MAX)),
        ("backoff_cap", nowhere().backoff_cap(Duration::ZERO)),
        ("reconcile", nowhere().reconcile(Duration::MAX)),
        ("stall_tolerance", nowhere().stall_tolerance(Duration::ZERO)),
        ("event_buffer", nowhere().event_buffer(0)),
        ("event_buffer", nowhere().event_buffer(usize::MAX)),
    ] {
        let error = assert_kind(builder.connect().await, ErrorKind::Config, words);
        assert!(error.is_unapplied() && !error.is_retryable());
    }
    for url in ["http://x", "redis://", "", "garbage", "redis://h:port/", "redis://h:99999/", "redis://h/db", "\0"] {
        assert_kind(GroupConnector::builder(url).connect().await, ErrorKind::Config, "URL");
    }
    if !cfg!(feature = "tls") {
        assert_kind(GroupConnector::builder("rediss://127.0.0.1/").connect().await, ErrorKind::Config, "tls");
        assert_kind(GroupConnector::builder("REDISS://127.0.0.1/").connect().await, ErrorKind::Config, "");
    }
}

#[tokio::test]
async fn settings_at_the_limits_work() {
    let fixture = Fixture::new().await;
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
    let widest = fixture.builder().ttl(day).reconcile(day).connect_timeout(hour).command_timeout(hour);
    let widest = widest.backoff_cap(hour).stall_tolerance(Duration::MAX).event_buffer(1 << 20).connect().await.unwrap();
    let narrowest = fixture.builder().ttl(Duration::from_millis(200)).heartbeat(Duration::from_millis(99));
    let narrowest = narrowest.reconcile(Duration::from_millis(20)).event_buffer(1).connect().await.unwrap();
    widest.join("wide").await.unwrap();
    narrowest.join("narrow").await.unwrap();
    // The narrow one may miss a beat on a busy machine; it comes back.
    for group in [&widest, &narrowest] {
        group.wait_for(PATIENCE, |view| view.len() == 2).await.unwrap();
        timeout(PATIENCE, group.sync()).await.unwrap().unwrap();
    }
    for group in [widest, narrowest] {
        group.close().await.unwrap();
    }
}

#[tokio::test]
async fn without_redis_url_the_environment_is_refused() {
    if std::env::var_os("REDIS_URL").is_none() {
        assert_kind(GroupConnector::from_env().connect().await, ErrorKind::Config, "REDIS_URL");
        return;
    }
    // The environment belongs to the whole process: ask a child without it.
    let test = "bad_input::without_redis_url_the_environment_is_refused";
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test]).env_remove("REDIS_URL").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn wrong_password_is_denied_and_not_told() {
    const SECRET: &str = "hunter2-s3cret";
    #[track_caller]
    fn assert_silent(what: &impl std::fmt::Debug) {
        assert!(!format!("{what:?} {what:#?}").contains(SECRET), "{what:?}");
    }
    fn assert_error_silent(error: &Error) {
        assert_silent(error);
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(said) = source {
            assert!(!format!("{said} {said:?} {said:#?}").contains(SECRET), "{said:?}");
            source = said.source();
        }
    }
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let mut connection = fixture.connection().await;
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "app", "on", &format!(">{SECRET}"), "~*", "&*", "+@all"]);
    user.query_async::<()>(&mut connection).await.unwrap();
    let url = |login: &str| fixture.redis.url().replace("redis://", &format!("redis://{login}"));

    let builder = GroupConnector::builder(url(&format!("app:{SECRET}@"))).group(&fixture.group);
    assert_silent(&builder);
    let group = builder.connect().await.unwrap();
    let join = group.join("a");
    assert_silent(&join);
    let me = join.await.unwrap();
    assert_silent(&(&group, group.status(), group.state(), me, group.members()));
    assert_silent(&GroupConnector::from_client(redis::Client::open(url(&format!("app:{SECRET}@"))).unwrap()));

    redis::cmd("CONFIG").arg(&["SET", "requirepass", "another"]).query_async::<()>(&mut connection).await.unwrap();
    for login in [format!("app:{SECRET}x@"), format!("nobody:{SECRET}@"), format!(":{SECRET}@"), String::new()] {
        let begun = Instant::now();
        let result = GroupConnector::builder(url(&login)).connect().await;
        let error = assert_kind(result, ErrorKind::Denied, "");
        assert!(begun.elapsed() < Duration::from_secs(1), "{login}: it took {:?}", begun.elapsed());
        assert!(!error.is_retryable());
        assert_error_silent(&error);
    }
    for bad in ["http://app:PW@x/", "redis://app:PW@h:port/", "redis://app:PW@h/db", "rediss://app:PW@h/#x", "PW"] {
        let builder = GroupConnector::builder(bad.replace("PW", SECRET));
        assert_silent(&builder);
        assert_error_silent(&assert_kind(builder.connect().await, ErrorKind::Config, ""));
    }
    let timeout = Duration::from_millis(50);
    let nowhere = GroupConnector::builder(format!("redis://app:{SECRET}@127.0.0.1:1/"));
    let error = nowhere.connect_timeout(timeout).command_timeout(timeout).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{error:?}");
    assert_error_silent(&error);
}

/// A subscriber that does not read gets a snapshot and disturbs nobody.
#[tokio::test]
async fn slow_subscriber_gets_a_snapshot() {
    let fixture = Fixture::new().await;
    let group = fixture.builder().ttl(Duration::from_secs(30)).event_buffer(16).connect().await.unwrap();
    let (mut slow, reading) = (group.events(), Recorder::new(&group));
    let me = group.join("a").text("").await.unwrap();
    for n in 0..2500 {
        me.update_text(format!("{n}")).await.unwrap();
        let other = group.join("b").await.unwrap();
        me.update_text(format!("{n} again")).await.unwrap();
        if n < 2499 {
            other.leave().await.unwrap();
        }
    }
    reading.wait_until("all events", |record| record.told.len() >= 10_001).await;
    reading.read(|record| {
        let updates = record.told.iter().filter(|(_, told)| matches!(told, Told::Updated(_))).count();
        assert_eq!((record.snapshots, record.joins, updates, record.leaves), (1, 2501, 5000, 2499));
    });

    let mut next = async || timeout(PATIENCE, slow.next()).await.expect("an event").expect("a stream");
    let Event::Snapshot(first) = next().await else { panic!("the first event is a snapshot") };
    assert!(first.is_empty());
    let Event::Snapshot(fresh) = next().await else { panic!("what was missed is replaced by a snapshot") };
    assert!(fresh.iter().eq(group.members().iter()), "it is the present one");
    // Up to date again, it may be 16 batches behind again.
    for n in 0..16 {
        me.update_text(format!("last {n}")).await.unwrap();
    }
    for n in 0..16 {
        match next().await {
            Event::Updated { new, .. } => assert_eq!(new.text(), Some(&*format!("last {n}"))),
            other => panic!("it is only {} behind: {other:?}", 16 - n),
        }
    }
}

#[tokio::test]
async fn flags_are_checked_merged_or_left_alone() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    assert_eq!(flags(&fixture).await, "");
    let check = || fixture.builder().notifications(Notifications::Check);
    let error = assert_kind(check().connect().await, ErrorKind::Notifications, "notify-keyspace-events");
    assert!("K$gx".chars().all(|flag| error.to_string().contains(flag)), "{error}");
    assert_eq!(flags(&fixture).await, "");

    // Without notifications the group converges all the same, by comparing.
    let never = || fixture.builder().notifications(Notifications::Never).reconcile(Duration::from_millis(100));
    let (watcher, group) = (never().connect().await.unwrap(), never().connect().await.unwrap());
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    me.update_text("new").await.unwrap();
    seen.wait_until("the update", |record| record.members["a"].text() == Some("new")).await;
    eventually("the canary tells", async || watcher.status().source == EventSource::Tracking).await;
    me.leave().await.unwrap();
    seen.wait_for_names(&[]).await;
    assert_eq!(flags(&fixture).await, "");
    watcher.close().await.unwrap();
    group.close().await.unwrap();

    ask::<()>(&fixture, &["CONFIG", "SET", "notify-keyspace-events", "Elg"]).await;
    assert_kind(check().connect().await, ErrorKind::Notifications, "K$x");
    let group = fixture.builder().notifications(Notifications::Enable).connect().await.unwrap();
    let merged = flags(&fixture).await;
    assert!("ElgK$x".chars().all(|flag| merged.contains(flag)), "{merged}");
    eventually("the canary tells", async || group.status().notifications_arrive).await;
    check().connect().await.unwrap();
    assert_eq!(flags(&fixture).await, merged);

    ask::<()>(&fixture, &["CONFIG", "SET", "notify-keyspace-events", "KEA"]).await;
    // Who only reads them is refused nothing.
    ask::<()>(&fixture, &["ACL", "LOG", "RESET"]).await;
    let group = connect_without(&fixture, &["-config", "+config|get"], |builder| builder).await;
    eventually("the canary tells", async || group.status().notifications_arrive).await;
    assert_eq!(flags(&fixture).await, "AKE");
    let log: Vec<redis::Value> = ask(&fixture, &["ACL", "LOG"]).await;
    assert!(log.is_empty(), "{log:?}");
}
