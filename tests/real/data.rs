//! Data: what lives as long as its owner, what stays, and what is told of it.

use std::time::{Duration, Instant};

use group_redis::{DataValue, ErrorKind, GroupConnector, MAX_VALUE, OnConflict, Watch, WatchEvent};

use crate::locks_bad_days::{keys, say, soon};
use crate::support::{Fixture, TTL, eventually};

/// A watch, the values that its events add up to, and what it was told.
struct Folded {
    watch: Watch,
    values: std::collections::BTreeMap<String, DataValue>,
    told: Vec<String>,
}

impl Folded {
    async fn new(group: &GroupConnector, prefix: &str) -> Self {
        let mut folded =
            Self { watch: group.ephemeral().watch(prefix).unwrap(), values: Default::default(), told: Vec::new() };
        folded.step().await;
        assert!(folded.told[0].starts_with("snapshot"), "{:?}", folded.told);
        folded
    }

    async fn step(&mut self) {
        let event =
            soon(&format!("an event after {:?}", self.told), self.watch.next()).await.expect("the connector lives");
        let line = match event {
            WatchEvent::Snapshot(values) => {
                self.values = values.into_iter().map(|value| (value.path().to_owned(), value)).collect();
                format!("snapshot {:?}", self.values.keys().collect::<Vec<_>>())
            }
            WatchEvent::Set(value) => {
                let line = format!("set {} {}", value.path(), String::from_utf8_lossy(value.bytes()));
                self.values.insert(value.path().to_owned(), value);
                line
            }
            WatchEvent::Deleted(value) => {
                assert!(self.values.remove(value.path()).is_some(), "{:?}", self.told);
                format!("deleted {}", value.path())
            }
            WatchEvent::Expired(value) => {
                assert!(self.values.remove(value.path()).is_some(), "{:?}", self.told);
                format!("expired {}", value.path())
            }
            other => panic!("an event the tests do not know: {other:?}"),
        };
        self.told.push(line);
    }

    /// Follows the events until one line has been told.
    async fn until(&mut self, line: &str) {
        while self.told.last().is_none_or(|last| last != line) {
            self.step().await;
        }
    }

    /// Follows the events until just these paths are left.
    async fn until_paths(&mut self, paths: &[&str]) {
        while !self.values.keys().eq(paths) {
            self.step().await;
        }
    }
}

/// An ephemeral value is seen by all and dies with its connector.
#[tokio::test]
async fn ephemeral_value_dies_with_its_connector() {
    let fixture = Fixture::new().await;
    let (owner, other) = (fixture.connect().await, fixture.connect().await);
    let mut watch = Folded::new(&other, "").await;
    let ephemeral = owner.ephemeral();
    let first = ephemeral.set("endpoints/api 1", &("10.0.0.7", 8080)).await.unwrap();
    let second = ephemeral.set_bytes("raw", [0xff, 0, b'\n']).await.unwrap();
    assert!(second > first);
    assert_eq!(
        other.ephemeral().get::<(String, u16)>("endpoints/api 1").await.unwrap(),
        Some(("10.0.0.7".into(), 8080))
    );
    let raw = other.ephemeral().read("raw").await.unwrap().unwrap();
    assert_eq!((raw.bytes(), raw.revision(), raw.path()), (&[0xff, 0, b'\n'][..], second, "raw"));
    assert_eq!(other.ephemeral().list("").await.unwrap(), ["endpoints/api 1", "raw"]);
    assert_eq!(other.ephemeral().list("endpoints/").await.unwrap(), ["endpoints/api 1"]);
    assert_eq!(other.ephemeral().get_all("").await.unwrap().len(), 2);
    assert_eq!(other.ephemeral().get::<u8>("nothing").await.unwrap(), None);
    let by_name: Vec<u8> = say(&fixture, &["GET", &fixture.key("ephemerals/endpoints/api%201")]).await;
    assert!(by_name.ends_with(b"\n[\"10.0.0.7\",8080]"), "{}", String::from_utf8_lossy(&by_name));
    watch.until_paths(&["endpoints/api 1", "raw"]).await;

    assert!(!other.ephemeral().del("raw").await.unwrap(), "it is not its own");
    assert!(ephemeral.del("raw").await.unwrap());
    assert!(!ephemeral.del("raw").await.unwrap());
    watch.until("deleted raw").await;
    owner.close().await.unwrap();
    watch.until("deleted endpoints/api 1").await;
    assert_eq!(other.ephemeral().list("").await.unwrap(), [""; 0]);
}

/// A value expires with the lease of its owner and is gone before it is swept.
#[tokio::test]
async fn value_expires_with_lease_before_the_sweep() {
    let fixture = Fixture::new().await;
    let owner = fixture.builder().without_sweep().connect().await.unwrap();
    let reader = fixture.builder().without_sweep().connect().await.unwrap();
    owner.ephemeral().set("a", "x").await.unwrap();
    let mut watch = Folded::new(&reader, "").await;
    let leases = keys(&fixture, &["leases/"]).await;
    say::<()>(&fixture, &["DEL", &leases[0]]).await;
    assert_eq!(reader.ephemeral().get::<String>("a").await.unwrap(), None, "its owner is gone");
    assert!(reader.ephemeral().set("a", "y").await.is_ok(), "it is free");
    watch.until("set a \"y\"").await;
    assert!(!owner.ephemeral().del("a").await.unwrap(), "it is another's now");

    let sweeper = fixture.connect().await;
    let mut swept = Folded::new(&sweeper, "").await;
    let third = fixture.connect().await;
    third.ephemeral().set("b", "z").await.unwrap();
    swept.until("set b \"z\"").await;
    let session = say::<String>(&fixture, &["GET", &fixture.key("ephemerals/b")]).await;
    let session = session.split('"').nth(5).unwrap().to_owned();
    say::<()>(&fixture, &["DEL", &fixture.key(&format!("leases/{session}"))]).await;
    say::<()>(&fixture, &["ZADD", &fixture.key("leases"), "1", &session]).await;
    sweeper.sync().await.unwrap();
    swept.until("expired b").await;
    eventually("nothing of it is left", async || keys(&fixture, &["ephemerals/b"]).await.is_empty()).await;
}

/// A path of another live connector is refused or taken over as asked.
#[tokio::test]
async fn path_of_another_connector_follows_on_conflict() {
    let fixture = Fixture::new().await;
    let (first, second) = (fixture.connect().await, fixture.connect().await);
    first.ephemeral().set("a", "first").await.unwrap();
    let refused = second.ephemeral().set("a", "second").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("\"a\"") && refused.to_string().contains("process "), "{refused}");
    assert_eq!(second.ephemeral().get::<String>("a").await.unwrap().as_deref(), Some("first"));
    second.ephemeral().on_conflict(OnConflict::TakeOver).set("a", "second").await.unwrap();
    assert!(!first.ephemeral().del("a").await.unwrap());
    first.close().await.unwrap();
    assert_eq!(second.ephemeral().get::<String>("a").await.unwrap().as_deref(), Some("second"));
    second.ephemeral().set("a", "again").await.unwrap();
}

/// A value runs out by itself and outlives the safety ttl if it may.
#[tokio::test]
async fn value_expiry_may_outlive_safety_ttl() {
    let fixture = Fixture::new().await;
    let (owner, other) = (fixture.connect().await, fixture.connect().await);
    let mut watch = Folded::new(&other, "").await;
    // Longer than the safety ttl, so that it lives on by being renewed.
    owner.ephemeral().set_for("long", "x", TTL * 6).await.unwrap();
    owner.ephemeral().set_for("short", "x", Duration::from_millis(150)).await.unwrap();
    let began = Instant::now();
    watch.until("expired short").await;
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    owner.ephemeral().set_for("short", "y", Duration::from_millis(150)).await.unwrap();
    owner.ephemeral().set("short", "z").await.unwrap();
    watch.until("set short \"z\"").await;
    assert_eq!(say::<Option<u64>>(&fixture, &["ZSCORE", &fixture.key("leases"), "=short"]).await, None);
    watch.until("expired long").await;
    assert!(began.elapsed() >= TTL * 5, "{:?}", began.elapsed());
    // It has expired; the sweep takes it out of the index a moment later.
    eventually("it is not listed", async || other.ephemeral().list("").await.unwrap() == ["short"]).await;
    let ttl: i64 = say(&fixture, &["PTTL", &fixture.key("ephemerals/short")]).await;
    assert!(ttl > 1500, "it is renewed: {ttl}");
}

/// A watch tells what lies below its prefix and converges after any loss.
#[tokio::test]
async fn watch_tells_its_prefix_and_converges() {
    let fixture = Fixture::new().await;
    let (owner, other) = (fixture.connect().await, fixture.connect().await);
    owner.ephemeral().set("a/1", &1).await.unwrap();
    owner.ephemeral().set("b/1", &1).await.unwrap();
    let mut watch = Folded::new(&other, "a/").await;
    assert_eq!(watch.told, ["snapshot [\"a/1\"]"]);
    owner.ephemeral().set("b/2", &2).await.unwrap();
    owner.ephemeral().set("a/2", &2).await.unwrap();
    watch.until("set a/2 2").await;
    assert_eq!(watch.told.len(), 2, "{:?}", watch.told);

    // What happens while nobody listens is found by the listing of the next link.
    for round in 3..8 {
        say::<()>(&fixture, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        owner.ephemeral().set(&format!("a/{round}"), &round).await.unwrap();
        owner.ephemeral().del(&format!("a/{}", round - 1)).await.unwrap();
    }
    watch.until_paths(&["a/1", "a/7"]).await;
    say::<()>(&fixture, &["FLUSHALL"]).await;
    watch.until_paths(&[]).await;
    eventually("it can be set again", async || owner.ephemeral().set("a/1", &9).await.is_ok()).await;
    watch.until_paths(&["a/1"]).await;
}

#[tokio::test]
async fn persistent_values_are_exchanged_by_revision() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let persistent = group.persistent();
    assert_eq!(persistent.get::<u8>("a").await.unwrap(), None);
    let first = persistent.compare_and_set("a", None, &1).await.unwrap().expect("there was none");
    assert_eq!(persistent.compare_and_set("a", None, &2).await.unwrap(), None, "there is one");
    let second = persistent.compare_and_set("a", Some(first), &2).await.unwrap().expect("as seen");
    assert_eq!(persistent.compare_and_set("a", Some(first), &3).await.unwrap(), None, "seen too long ago");
    let read = persistent.read("a").await.unwrap().unwrap();
    assert_eq!((read.json::<u8>().unwrap(), read.revision()), (2, second));
    let many = persistent.set_many([("b/1", 1), ("b/2", 2), ("b/1", 3)]).await.unwrap();
    assert!(many.is_sorted_by(|a, b| a < b) && many[0] > second && many.len() == 3);
    assert_eq!(persistent.get::<u8>("b/1").await.unwrap(), Some(3));
    assert_eq!(persistent.list("b/").await.unwrap(), ["b/1", "b/2"]);
    assert_eq!(persistent.set_many_bytes::<&str, Vec<u8>>([]).await.unwrap(), []);
    persistent.set_bytes("raw", b"\xff\0".to_vec()).await.unwrap();
    let raw: Vec<u8> = say(&fixture, &["GET", &fixture.key("persistent/raw")]).await;
    assert_eq!(raw, b"\xff\0");
    assert!(persistent.del("raw").await.unwrap() && !persistent.del("raw").await.unwrap());
    assert!(keys(&fixture, &["leases"]).await.is_empty(), "no session is needed");
    group.close().await.unwrap();
    let after = fixture.connect().await;
    assert_eq!(after.persistent().list("").await.unwrap(), ["a", "b/1", "b/2"]);
}

#[tokio::test]
async fn values_beyond_one_call_are_listed() {
    let fixture = Fixture::new().await;
    let (owner, other) = (fixture.connect().await, fixture.connect().await);
    let values = (0..2500).map(|number| (format!("n/{number:04}"), number));
    owner.persistent().set_many(values).await.unwrap();
    assert_eq!(owner.persistent().list("n/").await.unwrap().len(), 2500);
    for number in 0..1200 {
        owner.ephemeral().set(&format!("e/{number:04}"), &number).await.unwrap();
    }
    assert_eq!(other.ephemeral().get_all("e/").await.unwrap().len(), 1200);
    assert_eq!(Folded::new(&other, "e/").await.values.len(), 1200);
}

#[tokio::test]
async fn names_and_values_are_checked_first() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let (ephemeral, persistent) = (group.ephemeral(), group.persistent());
    let long = "p".repeat(513);
    for path in ["", &long] {
        assert_eq!(ephemeral.set(path, "x").await.unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(ephemeral.read(path).await.unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(ephemeral.del(path).await.unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(persistent.set(path, "x").await.unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(persistent.read(path).await.unwrap_err().kind(), ErrorKind::InvalidName);
    }
    assert_eq!(ephemeral.watch(&long).unwrap_err().kind(), ErrorKind::InvalidName);
    let refused = ephemeral.set_bytes("a", vec![0; MAX_VALUE + 1]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidValue);
    assert!(refused.to_string().contains(&(MAX_VALUE + 1).to_string()));
    assert_eq!(persistent.set_bytes("a", vec![0; MAX_VALUE + 1]).await.unwrap_err().kind(), ErrorKind::InvalidValue);
    assert_eq!(ephemeral.set_for("a", "x", Duration::ZERO).await.unwrap_err().kind(), ErrorKind::Config);
    let of_itself = |key: &String| key.contains("canaries") || key.ends_with("asks");
    assert!(keys(&fixture, &[""]).await.iter().all(of_itself), "nothing was written");

    for path in ["..", "*", "{x}", "a%2Fb", "日本", "a\nb", " ", "/", "a//b", &"ü".repeat(256)] {
        ephemeral.set_bytes(path, path).await.unwrap();
        persistent.set_bytes(path, path).await.unwrap();
        assert_eq!(ephemeral.read(path).await.unwrap().unwrap().bytes(), path.as_bytes());
        assert_eq!(persistent.read(path).await.unwrap().unwrap().bytes(), path.as_bytes());
        assert_eq!(ephemeral.list(path).await.unwrap(), [path]);
        assert!(ephemeral.del(path).await.unwrap() && persistent.del(path).await.unwrap());
    }
    persistent.set_bytes("big", vec![7; MAX_VALUE]).await.unwrap();
    ephemeral.set_bytes("big", vec![7; MAX_VALUE]).await.unwrap();
    assert_eq!(ephemeral.read("big").await.unwrap().unwrap().bytes().len(), MAX_VALUE);
    assert_eq!(ephemeral.get::<String>("big").await.unwrap_err().kind(), ErrorKind::InvalidValue);
}

/// What another program has set there is refused, and left as it is.
#[tokio::test]
async fn foreign_values_are_refused_and_left_alone() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    for (path, words) in [("text", vec!["SET", "x"]), ("list", vec!["RPUSH", "x"]), ("hash", vec!["HSET", "f", "x"])] {
        let key = fixture.key(&format!("ephemerals/{path}"));
        say::<()>(&fixture, &[&words[..1], &[key.as_str()], &words[1..]].concat()).await;
        let before: Vec<u8> = say(&fixture, &["DUMP", &key]).await;
        assert_eq!(group.ephemeral().set(path, "y").await.unwrap_err().kind(), ErrorKind::ForeignValue);
        assert_eq!(group.ephemeral().read(path).await.unwrap_err().kind(), ErrorKind::ForeignValue);
        assert_eq!(say::<Vec<u8>>(&fixture, &["DUMP", &key]).await, before);
    }
    let mut watch = Folded::new(&group, "").await;
    say::<()>(&fixture, &["SET", &fixture.key("ephemerals/other"), "x"]).await;
    group.ephemeral().set("mine", &1).await.unwrap();
    watch.until("set mine 1").await;
    assert_eq!(watch.told.len(), 2, "{:?}", watch.told);
    say::<()>(&fixture, &["SET", &fixture.key("ephemerals/mine"), "x"]).await;
    watch.until("deleted mine").await;
}
