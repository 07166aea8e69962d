//! Every error that a call can end with, on one line, and what the status says of a connector that does not get on.

use std::time::{Duration, Instant};

use group_redis::testing::{Backend, TestRedis};
use group_redis::{ErrorKind, OnConflict, State};
use redis::aio::MultiplexedConnection;

use crate::errors::{Expected, Wrong};
use crate::support::{Fixture, TTL, eventually};

/// Whether `min-replicas-to-write`, which is set, holds for what a script writes, too: not in every Redis 6.2.
async fn scripts_need_replicas(server: &mut MultiplexedConnection) -> bool {
    let mut script = redis::cmd("EVAL");
    script.arg("return redis.call('set', KEYS[1], '')").arg(1).arg("foreign");
    match script.exec_async(server).await {
        Ok(()) => false,
        Err(error) if error.to_string().contains("NOREPLICAS") => true,
        Err(error) => panic!("a script that writes: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_says_what_it_knows() {
    use ErrorKind::*;
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let mut server = fixture.connection().await;
    let limit = Duration::from_millis(400);
    let builder = || fixture.builder().ttl(TTL * 20).connect_timeout(limit).command_timeout(limit);
    let (group, other) = (builder().connect().await.unwrap(), builder().connect().await.unwrap());
    let refusing = builder().on_conflict(OnConflict::Reject).connect().await.unwrap();
    let me = group.join("me").text("text").await.unwrap();
    let guard = group.lock("pay / ü").acquire().await.unwrap();
    group.ephemeral().set("eph / ü", &1).await.unwrap();
    // A container may have another host name than a child process.
    let host = if fixture.redis.url().contains("localhost") { "localhost" } else { "127.0.0.1" };
    let at = format!("{host}:{}, database 0", fixture.redis.port());
    let expect =
        |kind, reason, cure, is_retryable, is_unapplied| Expected { kind, reason, cure, is_retryable, is_unapplied };
    let mut wrong = Wrong::default();

    // What is found before anything is asked names no server.
    let long = "x".repeat(513);
    let nan = || vec![(1, Some(f64::NAN))];
    for (what, result, kind, words) in [
        ("a name", group.join("").await.map(drop), InvalidName, ["1 to 512 bytes", "empty"]),
        ("a tag", group.join("b").tag(&long).await.map(drop), InvalidName, ["513 bytes", "1 to 512"]),
        ("a path", group.ephemeral().set("", &1).await.map(drop), InvalidName, ["path", "1 to 512"]),
        ("NaN", group.ephemeral().set("nan", &f64::NAN).await.map(drop), InvalidValue, ["NaN", "JSON"]),
        ("NaN that stays", group.persistent().set("nan", &nan()).await.map(drop), InvalidValue, ["NaN", "JSON"]),
        ("NaN of a member", group.join("b").metadata(&nan()).await.map(drop), InvalidMetadata, ["NaN", "JSON"]),
        ("an update to NaN", me.update(&f32::INFINITY).await, InvalidMetadata, ["inf", "JSON"]),
        ("a fenced NaN", guard.fenced().set("nan", &nan()).await.map(drop), InvalidValue, ["NaN", "JSON"]),
        (
            "metadata of another type",
            group.member("me").unwrap().metadata::<Vec<String>>().map(drop),
            InvalidMetadata,
            ["\"me\"", "type asked for"],
        ),
        (
            "a value of another type",
            group.ephemeral().get::<Vec<String>>("eph / ü").await.map(drop),
            InvalidValue,
            ["\"eph / ü\"", "expected a sequence"],
        ),
        ("an expiry", group.ephemeral().set_for("a", &1, Duration::ZERO).await.map(drop), Config, ["\"a\"", "1ms"]),
        ("a semaphore", group.semaphore("s", 0).acquire().await.map(drop), Config, ["\"s\"", "one at the least"]),
        ("a second join", group.join("me").await.map(drop), AlreadyJoined, ["\"me\"", ";"]),
    ] {
        match result {
            Err(error) if error.kind() == kind && error.is_unapplied() && !error.is_retryable() => {
                let said = error.to_string();
                let is_right = words.iter().all(|word| said.contains(word)) && !said.contains(['\n', '<']);
                wrong.0.extend((!is_right).then(|| format!("{what}: {said}")));
            }
            other => wrong.0.push(format!("{what}: {other:?}")),
        }
    }
    let exists: u8 = redis::cmd("EXISTS").arg(fixture.key("ephemerals/nan")).query_async(&mut server).await.unwrap();
    assert_eq!(exists, 0, "NaN was not sent");

    let holder = expect(Conflict, "process ", "OnConflict::TakeOver", false, true);
    wrong.check("a join", refusing.join("me").await, &at, &holder);
    wrong.check("a set", other.ephemeral().set("eph / ü", &2).await, &at, &holder);
    let said = other.ephemeral().set("eph / ü", &2).await.unwrap_err().to_string();
    assert!(said.contains("\"eph / ü\"") && !said.contains(['%', '{']), "{said}");

    for (key, name) in [("members/foreign", "foreign"), ("ephemerals/foreign", "foreign"), ("locks/foreign", "foreign")]
    {
        redis::cmd("RPUSH").arg(fixture.key(key)).arg(name).exec_async(&mut server).await.unwrap();
    }
    let foreign = expect(ForeignValue, "WRONGTYPE", "remove it", false, true);
    wrong.check("a foreign member", group.join("foreign").await, &at, &foreign);
    wrong.check("a foreign value", group.ephemeral().set("foreign", &1).await, &at, &foreign);
    wrong.check("a foreign lock", group.lock("foreign").acquire().await, &at, &foreign);

    let eval = guard.fenced().eval::<Vec<u64>>("return 'text'", &[], &[]).await;
    wrong.check(
        "an answer of another type",
        eval,
        &at,
        &expect(Server, "the script was run", "ask for the type", false, false),
    );
    assert_eq!(other.lock("pay / ü").break_lock().await.unwrap(), 1);
    wrong.check(
        "a fenced write",
        guard.fenced().set("a", &1).await,
        &at,
        &expect(Lost, "lock \"pay / ü\"", "acquire it again", false, true),
    );

    let mut set = async |name: &str, value: &str| {
        redis::cmd("CONFIG").arg(&["SET", name, value]).exec_async(&mut server).await.unwrap();
    };
    set("maxmemory", "1").await;
    wrong.check("no memory", group.join("oom").await, &at, &expect(OutOfMemory, "OOM", "raise maxmemory", true, true));
    set("maxmemory", "0").await;
    set("min-replicas-to-write", "1").await;
    let needs_replicas = scripts_need_replicas(&mut fixture.connection().await).await;
    let joined = group.join("x").await;
    if !needs_replicas {
        wrong.0.extend(joined.err().map(|error| format!("no replicas, which is nothing to a script: {error}")));
    } else {
        let expected = expect(Server, "NOREPLICAS", "min-replicas-to-write", true, true);
        wrong.check("no replicas", joined, &at, &expected);
    }
    set("min-replicas-to-write", "0").await;

    // From here on the server is not what it was.
    redis::cmd("REPLICAOF").arg(&["127.0.0.1", "1"]).exec_async(&mut server).await.unwrap();
    let told = async || group.status().error.is_some_and(|error| error.to_string().contains("is a replica"));
    eventually("the server is given up", told).await;
    let replica = |is_unapplied| expect(Timeout, "replica", "connect to its primary", true, is_unapplied);
    wrong.check("a set at a replica", group.ephemeral().set("a", &1).await, &at, &replica(true));
    wrong.check("a join at a replica", group.join("b").await, &at, &replica(true));
    redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec_async(&mut server).await.unwrap();
    group.state().wait_for(|state| state == State::Connected).await;

    fixture.redis.freeze().await.unwrap();
    let frozen = |is_unapplied| expect(Timeout, "", "", true, is_unapplied);
    wrong.check("a value of a frozen server", group.persistent().set("a", &1).await, &at, &frozen(false));
    wrong.check("a sync with a frozen server", group.sync().await, &at, &frozen(true));
    fixture.redis.thaw().await.unwrap();
    group.state().wait_for(|state| state == State::Connected).await;

    fixture.redis.stop().await.unwrap();
    let noticed = async || group.status().error.is_some_and(|error| error.to_string().contains("Connection refused"));
    eventually("the end of the server is noticed", noticed).await;
    let gone = expect(Timeout, "connecting failed: Connection refused", "start the server", true, true);
    wrong.check("a join nowhere", group.join("b").await, &at, &gone);
    wrong.check("a sync nowhere", group.sync().await, &at, &gone);
    wrong.check("a value nowhere", group.persistent().get::<u8>("a").await, &at, &gone);
    wrong.check("a lock nowhere", group.lock("b").try_acquire().await, &at, &gone);
    wrong.check("a wait nowhere", group.wait_for(limit, |view| view.len() == 7).await, &at, &gone);
    group.close().await.ok();
    let error = group.join("c").await.unwrap_err();
    assert!(
        error.kind() == Closed && error.is_unapplied() && error.to_string().contains("connect a new one"),
        "{error:?}"
    );
}

/// A membership that ends without replicas has its reason in the status.
#[tokio::test(flavor = "multi_thread")]
async fn status_says_that_replicas_are_missing() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let group = fixture.connect().await;
    let me = group.join("me").await.unwrap();
    let mut server = fixture.connection().await;
    let mut set = async |value: &str| {
        let setting = ["SET", "min-replicas-to-write", value];
        redis::cmd("CONFIG").arg(&setting).exec_async(&mut server).await.unwrap();
    };
    set("1").await;
    if !scripts_need_replicas(&mut fixture.connection().await).await {
        let end = Instant::now() + TTL * 3;
        while Instant::now() < end {
            assert!(me.is_held() && group.state().get() == State::Connected, "{:?}", group.status());
            tokio::time::sleep(TTL / 10).await;
        }
        return;
    }
    let told = async || {
        let status = group.status();
        let said = status.error.map(|error| error.to_string()).unwrap_or_default();
        status.state == State::Lost
            && ["heartbeat failed", "NOREPLICAS", "database 0"].iter().all(|word| said.contains(word))
    };
    eventually(&format!("the reason is in {:?}", group.status()), told).await;
    set("0").await;
    let well = async || group.status().state == State::Connected && group.status().error.is_none();
    eventually(&format!("it is well again: {:?}", group.status()), well).await;
}

/// Two nodes of a cluster, and the group's slot goes from the one that it is connected to, to the other, which then cannot
/// be reached where the cluster says that it is.
#[tokio::test(flavor = "multi_thread")]
async fn status_says_which_node_cannot_be_reached() {
    let args = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"];
    let fixture = Fixture::with_args(&args).await;
    if fixture.redis.backend() != Backend::Process {
        return;
    }
    let node = TestRedis::builder().args(args).start().await.unwrap();
    let (mut here, mut there) = (fixture.connection().await, node.connection().await.unwrap());
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("ADDSLOTS").arg((0..16384).collect::<Vec<_>>()).exec_async(&mut here).await.unwrap();
    let port = fixture.redis.port().to_string();
    redis::cmd("CLUSTER").arg(&["MEET", "127.0.0.1", &port]).exec_async(&mut there).await.unwrap();
    let known = async || {
        let nodes: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut there).await.unwrap();
        nodes.contains("0-16383")
    };
    eventually("the nodes know each other", known).await;
    let group = fixture.connect().await;
    group.join("me").await.unwrap();

    let slot: u32 =
        redis::cmd("CLUSTER").arg("KEYSLOT").arg(fixture.key("members")).query_async(&mut here).await.unwrap();
    let id: String = redis::cmd("CLUSTER").arg("MYID").query_async(&mut there).await.unwrap();
    redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("NODE").arg(id).exec_async(&mut there).await.unwrap();
    redis::cmd("CLUSTER").arg("BUMPEPOCH").exec_async(&mut there).await.unwrap();
    let followed = async || {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut there).await.unwrap();
        !keys.is_empty() && group.status().state == State::Connected
    };
    eventually("the group is followed there", followed).await;
    node.stop().await.unwrap();
    let away = format!("127.0.0.1:{}, database 0: connecting failed", node.port());
    let told = async || group.status().error.is_some_and(|error| error.to_string().contains(&away));
    eventually(&format!("the reason is in {:?}", group.status()), told).await;
    let error = fixture.builder().connect().await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains(&away), "{error}");
}
