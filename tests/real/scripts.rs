//! Each script by itself, as a program in another language would call it.

use futures_util::StreamExt;
use redis::Value;
use tokio::time::timeout;

use crate::support::{Fixture, PATIENCE, eventually};

const TTL: u64 = 1000;
const SAFETY: u64 = 4000;

/// Runs a script of the library as it stands in its file.
pub(crate) struct Caller {
    connection: redis::aio::MultiplexedConnection,
    pub(crate) prefix: String,
}

impl Caller {
    pub(crate) async fn new(fixture: &Fixture) -> Self {
        Self { connection: fixture.connection().await, prefix: fixture.key("") }
    }

    pub(crate) fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(crate) async fn run(&mut self, script: &str, paths: &[&str], args: &[&str]) -> Value {
        self.try_run(script, paths, args).await.unwrap()
    }

    pub(crate) async fn try_run(&mut self, script: &str, paths: &[&str], args: &[&str]) -> redis::RedisResult<Value> {
        self.eval(&text(script), paths, args).await
    }

    pub(crate) async fn eval(&mut self, text: &str, paths: &[&str], args: &[&str]) -> redis::RedisResult<Value> {
        let mut command = redis::cmd("EVAL");
        command.arg(text).arg(paths.len());
        for path in paths {
            command.arg(self.key(path));
        }
        command.arg(args).query_async(&mut self.connection).await
    }

    async fn join(&mut self, id: &str, session: &str, opening: &str, contest: &str, nonce: &str) -> Vec<String> {
        let (member, lease, owned) = (format!("members/{id}"), format!("leases/{session}"), format!("owned/{session}"));
        let prefix = self.prefix.clone();
        let keys = [&member, "members", &lease, "leases", &owned, "revision"];
        let (ttl, safety) = (TTL.to_string(), SAFETY.to_string());
        let args =
            [&prefix, id, session, opening, "{\"pid\":1,\"since\":", &ttl, &safety, contest, nonce, "\"tags\":[]}"];
        words(self.run("member_join", &keys, &args).await)
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(&mut self, command: &str, path: &str, args: &[&str]) -> T {
        redis::cmd(command).arg(self.key(path)).arg(args).query_async(&mut self.connection).await.unwrap()
    }

    pub(crate) async fn sweep(&mut self) -> Vec<String> {
        let prefix = self.prefix.clone();
        words(self.run("session_sweep", &["leases", "members", "revision"], &[&prefix, "500", "64", "8"]).await)
    }

    async fn read(&mut self, pairs: &[&str]) -> Vec<Vec<String>> {
        let prefix = self.prefix.clone();
        let args = [&[prefix.as_str(), "1000000"], pairs].concat();
        let Value::Array(answer) = self.run("member_read", &["members", "leases", "revision"], &args).await else {
            panic!()
        };
        answer.into_iter().skip(2).map(words).collect()
    }

    async fn list(&mut self, revision: &str, count: &str) -> Vec<String> {
        let prefix = self.prefix.clone();
        words(
            self.run("member_list", &["members", "leases", "revision"], &[&prefix, revision, count, "-inf", "500"])
                .await,
        )
    }
}

/// A script with what stands before it.
pub(crate) fn text(script: &str) -> String {
    let read = |name: &str| {
        let path = format!("{}/src/scripts/{name}.lua", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let shared = read("prelude") + &read("ownership");
    match script {
        "lock_acquire" => read("lock_acquire") + &shared + &read("lock_enqueue"),
        "lock_release" => read("lock_release") + &shared + &read("lock_handover"),
        "presence_mark" | "presence_shorten" => shared + &read("server_run") + &read(script),
        script => shared + &read(script),
    }
}

/// An answer as words, whatever it is made of.
pub(crate) fn words(value: Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.into_iter().flat_map(words).collect(),
        Value::Int(number) => vec![number.to_string()],
        other => vec![redis::from_redis_value(other).unwrap()],
    }
}

/// A name that is taken is answered with its holder.
#[tokio::test]
async fn join_is_once_per_nonce() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    assert_eq!(caller.join("a", "s1", "opened", "take", "1").await, ["lost"], "a session is opened before it is used");
    let first = caller.join("a", "s1", "open", "take", "1").await;
    assert_eq!(first[0], "joined");
    assert_eq!(caller.join("a", "s1", "open", "take", "1").await, first, "a lost reply is not a second join");
    let second = caller.join("a", "s1", "opened", "take", "2").await;
    assert!(second[1] > first[1], "another nonce is another incarnation");

    let refused = caller.join("a", "s2", "open", "yield", "1").await;
    assert_eq!(refused[0], "conflict");
    assert!(refused[1].starts_with("{\"pid\":1,\"since\":"));
    assert!(!caller.ask::<bool>("EXISTS", "leases/s2", &[]).await, "the refused session was not opened");

    let taken = caller.join("a", "s2", "open", "take", "2").await;
    assert!(taken[1] > second[1]);
    assert_eq!(caller.ask::<Vec<String>>("SMEMBERS", "owned/s1", &[]).await, ["."]);
    let mut owned = caller.ask::<Vec<String>>("SMEMBERS", "owned/s2", &[]).await;
    owned.sort();
    assert_eq!(owned, [".", "members/a"]);
    assert_eq!(caller.ask::<String>("ZSCORE", "members", &["a"]).await, taken[1], "no digit is lost");
}

#[tokio::test]
async fn heartbeat_renews_what_lives_and_nothing_else() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let beat = async |caller: &mut Caller| {
        words(caller.run("session_heartbeat", &["leases/s1", "leases"], &["s1", "60000"]).await).remove(0)
    };
    assert_eq!(beat(&mut caller).await, "0", "no lease");
    assert!(!caller.ask::<bool>("EXISTS", "leases", &[]).await);
    caller.join("a", "s1", "open", "take", "1").await;
    assert_eq!(beat(&mut caller).await, "1");
    assert!(caller.ask::<u64>("PTTL", "leases/s1", &[]).await > 50_000);
    caller.ask::<()>("SET", "leases/s1", &["closed"]).await;
    assert_eq!(beat(&mut caller).await, "0", "its last word is not renewed");
}

#[tokio::test]
async fn update_and_leave_want_the_incarnation() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let joined = caller.join("a", "s1", "open", "take", "1").await;
    let head = format!("{{\"v\":1,\"incarnation\":{},\"session\":\"s1\",", joined[1]);
    let keys = ["members/a", "leases/s1", "revision"];
    let tail = "\"tags\":[],\"text\":\"new\"}";
    let update = async |caller: &mut Caller, head: &str, nonce: &str| {
        let prefix = caller.prefix.clone();
        words(caller.run("member_update", &keys, &[head, nonce, &joined[3], tail, &prefix, "a"]).await)
    };
    caller.ask::<()>("PEXPIRE", "members/a", &["77000"]).await;
    let updated = update(&mut caller, &head, "7").await;
    assert_eq!(updated[0], "updated");
    let left = caller.ask::<u64>("PTTL", "members/a", &[]).await;
    assert!(left > SAFETY && left <= 77_000, "it lives on for as long as it did: {left}");
    assert_eq!(update(&mut caller, &head, "7").await, updated, "a lost reply is not a second update");
    assert_eq!(update(&mut caller, &head.replace("s1", "s2"), "8").await, ["lost"]);
    assert!(caller.ask::<String>("GET", "members/a", &[]).await.ends_with(tail));

    let keys = ["members/a", "members", "owned/s1", "revision"];
    let leave = async |caller: &mut Caller, session: &str, incarnation: &str| {
        let prefix = caller.prefix.clone();
        words(caller.run("member_leave", &keys, &["a", session, incarnation, &prefix]).await).remove(0)
    };
    assert_eq!(leave(&mut caller, "s2", "").await, "0", "a stranger's");
    assert_eq!(leave(&mut caller, "s1", "12").await, "0", "an older life");
    assert_eq!(leave(&mut caller, "s1", &joined[1]).await, "1");
    assert_eq!(leave(&mut caller, "s1", &joined[1]).await, "0", "twice");
    assert_eq!(caller.ask::<u64>("ZCARD", "members", &[]).await, 0);
}

#[tokio::test]
async fn leave_removes_entry_without_record() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let joined = caller.join("a", "s1", "open", "take", "1").await;
    caller.ask::<()>("DEL", "members/a", &[]).await;
    let leave = async |caller: &mut Caller, incarnation: &str| {
        let keys = ["members/a", "members", "owned/s1", "revision"];
        let prefix = caller.prefix.clone();
        let args = ["a", "s1", incarnation, &prefix];
        redis::from_redis_value::<u64>(caller.run("member_leave", &keys, &args).await).unwrap()
    };
    assert_eq!(leave(&mut caller, "7").await, 0);
    assert_eq!(caller.ask::<u64>("ZCARD", "members", &[]).await, 1, "it is another's");
    let before: u64 = caller.ask("GET", "revision", &[]).await;
    assert_eq!(leave(&mut caller, &joined[1]).await, 0);
    assert_eq!(caller.ask::<u64>("ZCARD", "members", &[]).await, 0);
    assert_eq!(caller.ask::<u64>("SISMEMBER", "owned/s1", &["members/a"]).await, 0);
    assert!(caller.ask::<u64>("GET", "revision", &[]).await > before, "listings differ");
}

/// It leaves `closed` in the lease.
#[tokio::test]
async fn close_gives_back_in_bounded_calls() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for (nonce, id) in ["a", "b", "c"].into_iter().enumerate() {
        caller.join(id, "s1", "open", "take", &nonce.to_string()).await;
    }
    let prefix = caller.prefix.clone();
    let keys = ["leases/s1", "leases", "members", "owned/s1", "revision"];
    let close = async |caller: &mut Caller| {
        words(caller.run("session_close", &keys, &[&prefix, "s1", "2", "5000"]).await).remove(0)
    };
    assert_eq!(close(&mut caller).await, "1", "one is left");
    assert_eq!(caller.ask::<String>("GET", "leases/s1", &[]).await, "closed");
    assert_eq!(caller.read(&["a", "s1", "b", "s1", "c", "s1"]).await.iter().filter(|w| w[0] == "left").count(), 2);
    assert_eq!(close(&mut caller).await, "0");
    assert_eq!(caller.ask::<u64>("ZCARD", "leases", &[]).await, 0);
}

#[tokio::test]
async fn sweep_takes_only_the_dead() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.join("a", "s1", "open", "take", "1").await;
    caller.join("b", "s2", "open", "take", "1").await;
    let swept = caller.sweep().await;
    assert_eq!(swept[1..], ["0"], "nobody is due");
    assert!((1..=TTL).contains(&swept[0].parse().unwrap()));

    // An index that is behind is corrected; a lease that is gone takes its members with it.
    for session in ["s1", "s2"] {
        caller.ask::<()>("ZADD", "leases", &["1", session]).await;
    }
    caller.ask::<()>("DEL", "leases/s1", &[]).await;
    let before: u64 = caller.ask("GET", "revision", &[]).await;
    assert_eq!(caller.sweep().await[2..], ["a"]);
    assert!(caller.ask::<u64>("GET", "revision", &[]).await > before, "the membership has changed");
    assert_eq!(caller.ask::<Vec<String>>("ZRANGE", "members", &["0", "-1"]).await, ["b"]);
    assert_eq!(caller.ask::<Vec<String>>("ZRANGE", "leases", &["0", "-1"]).await, ["s2"]);
    eventually("its record expires", async || !caller.ask::<bool>("EXISTS", "members/a", &[]).await).await;
    assert_eq!(caller.read(&["a", "s1"]).await, [["expired"]]);

    // A record that somebody has deleted leaves no place in the index behind when its session dies.
    caller.ask::<()>("DEL", "members/b", &[]).await;
    caller.ask::<()>("DEL", "leases/s2", &[]).await;
    caller.ask::<()>("ZADD", "leases", &["1", "s2"]).await;
    let before: u64 = caller.ask("GET", "revision", &[]).await;
    caller.sweep().await;
    assert!(caller.ask::<u64>("GET", "revision", &[]).await > before, "the membership has changed");
    assert_eq!(caller.ask::<u64>("ZCARD", "members", &[]).await, 0);
}

#[tokio::test]
async fn sweep_lists_lost_sessions_again() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for (id, session) in [("a", "s1"), ("b", "s2"), ("c", "s2"), ("d", "s3"), ("e", "s4")] {
        caller.join(id, session, "open", "take", "1").await;
    }
    let dead = ["leases", "leases/s2", "leases/s3", "leases/s4", "owned/s3", "owned/s4"];
    for key in dead {
        caller.ask::<()>("DEL", key, &[]).await;
    }
    caller.ask::<()>("RPUSH", "owned/s4", &["of another type"]).await;
    let mut dying = Vec::new();
    loop {
        let swept = caller.sweep().await;
        dying.extend_from_slice(&swept[2..]);
        if swept[1] == "0" {
            assert!((1..=TTL).contains(&swept[0].parse().unwrap()), "until that of s1 is due: {swept:?}");
            break;
        }
    }
    dying.sort();
    assert_eq!(dying, ["b", "c", "d", "e"], "each once");
    assert_eq!(caller.ask::<Vec<String>>("ZRANGE", "leases", &["0", "-1"]).await, ["s1"]);
    assert_eq!(caller.ask::<Vec<String>>("ZRANGE", "members", &["0", "-1"]).await, ["a"]);
    assert!(!caller.ask::<bool>("EXISTS", "owned/s2", &[]).await);
}

/// A flushed group is never said to be the same as before.
#[tokio::test]
async fn list_tells_what_changed() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    assert_eq!(caller.list("0", "0").await[0], "part");
    let joined = caller.join("a", "s1", "open", "take", "1").await;
    let listed = caller.list("", "").await;
    assert_eq!(listed[0], "part");
    assert_eq!(listed[2..], [&joined[2], "1", "0", "a", &joined[1], &joined[2]]);
    assert_eq!(caller.list(&joined[2], "1").await[0], "same");
    assert_eq!(caller.list(&joined[2], "2").await[0], "part");
    caller.ask::<()>("SET", "members/a", &["text", "PX", "60000"]).await;
    assert_eq!(caller.list("", "").await[7], "-1", "another program's text");
    caller.ask::<()>("DEL", "members/a", &[]).await;
    assert_eq!(caller.list("", "").await[7], "0", "no record");
}

#[tokio::test]
async fn read_says_why_a_member_is_gone() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.join("a", "s1", "open", "take", "1").await;
    assert_eq!(caller.read(&["a", ""]).await[0][0], "record");
    caller.ask::<()>("DEL", "members/a", &[]).await;
    assert_eq!(caller.read(&["a", "s1"]).await, [["removed"]], "the index lists it, its owner lives");
    caller.ask::<()>("ZREM", "members", &["a"]).await;
    assert_eq!(caller.read(&["a", "s1"]).await, [["left"]]);
    caller.ask::<()>("DEL", "leases/s1", &[]).await;
    assert_eq!(caller.read(&["a", "s1"]).await, [["expired"]]);

    caller.ask::<()>("SET", "members/x", &["hello", "PX", "60000"]).await;
    let adopted = caller.read(&["x", ""]).await.remove(0);
    assert_eq!((adopted[0].as_str(), adopted[2].as_str()), ("foreign", "hello"));
    assert_eq!(caller.read(&["x", "~"]).await, [adopted], "adopted once");
    caller.ask::<()>("SET", "members/x", &["for ever"]).await;
    assert_eq!(caller.read(&["x", "~"]).await, [["unkept"]]);
    caller.ask::<()>("DEL", "members/x", &[]).await;
    assert_eq!(caller.read(&["x", "~"]).await, [["gone"]]);
    assert_eq!(caller.ask::<u64>("ZCARD", "members", &[]).await, 0);
}

#[tokio::test]
async fn renew_names_strangers() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.join("a", "s1", "open", "take", "1").await;
    caller.join("b", "s2", "open", "take", "1").await;
    let prefix = caller.prefix.clone();
    let strangers = words(caller.run("member_renew", &["owned/s1"], &[&prefix, "s1", "60000", "a", "b", "c"]).await);
    assert_eq!(strangers, ["b", "c"]);
    assert!(caller.ask::<u64>("PTTL", "members/a", &[]).await > SAFETY);
    assert!(caller.ask::<u64>("PTTL", "members/b", &[]).await <= SAFETY);

    // What somebody has deleted is noted again, as long as the session lives.
    let renew = async |caller: &mut Caller| {
        caller.run("member_renew", &["owned/s1"], &[&prefix, "s1", "60000", "a"]).await;
        caller.ask::<u64>("SISMEMBER", "owned/s1", &["members/a"]).await
    };
    caller.ask::<()>("DEL", "owned/s1", &[]).await;
    assert_eq!(renew(&mut caller).await, 1);
    caller.ask::<()>("DEL", "owned/s1", &[]).await;
    caller.ask::<()>("DEL", "leases/s1", &[]).await;
    assert_eq!(renew(&mut caller).await, 0);
}

/// In a large group records live longer and are seldom pushed out.
#[tokio::test]
async fn large_group_renews_records_seldom() {
    const MANY: u64 = 40;
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.join("a", "s1", "open", "take", "1").await;
    let first = caller.ask::<u64>("PTTL", "members/a", &[]).await;
    assert!(first <= SAFETY, "alone: {first}");
    for at in 1..MANY {
        caller.join(&format!("m{at}"), "s2", "open", "take", &at.to_string()).await;
    }
    let (prefix, safety) = (caller.prefix.clone(), SAFETY.to_string());
    let whole = SAFETY * MANY / 10;
    let is_whole = |left: u64| left <= whole && left + SAFETY / 2 > whole;
    let last = caller.ask::<u64>("PTTL", &format!("members/m{}", MANY - 1), &[]).await;
    assert!(is_whole(last), "the last to join: {last} of {whole}");
    let lefts = async |caller: &mut Caller, set: Option<u64>| {
        if let Some(set) = set {
            caller.ask::<()>("PEXPIRE", "members/a", &[&set.to_string()]).await;
        }
        let strangers = caller.run("member_renew", &["owned/s1"], &[&prefix, "s1", &safety, "a"]).await;
        assert_eq!(words(strangers).len(), 0);
        caller.ask::<u64>("PTTL", "members/a", &[]).await
    };
    let renewed = lefts(&mut caller, None).await;
    assert!(is_whole(renewed), "{renewed} of {whole}");
    let enough = lefts(&mut caller, Some(SAFETY * 11 / 10)).await;
    assert!(enough <= SAFETY * 11 / 10, "nobody is told: {enough} of {whole}");
    let scarce = lefts(&mut caller, Some(SAFETY * 9 / 10)).await;
    assert!(is_whole(scarce), "{scarce} of {whole}");
    caller.ask::<()>("PERSIST", "members/a", &[]).await;
    let kept = lefts(&mut caller, None).await;
    assert!(is_whole(kept), "one that would stay for ever: {kept}");

    // What tells of it lives as long.
    let extending = ["owned/s1", "members", "leases", "ephemerals"];
    caller.run("session_extend", &extending, &[&prefix, "s1", &safety, "0", "500"]).await;
    for index in ["members", "leases", "owned/s1"] {
        let left = caller.ask::<u64>("PTTL", index, &[]).await;
        assert!(left > whole * 7 / 10, "{index}: {left} of {whole}");
    }
}

#[tokio::test]
async fn value_renewed_at_its_end_expires() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let prefix = caller.prefix.clone();
    let mut listening = redis::Client::open(fixture.redis.url()).unwrap().get_async_pubsub().await.unwrap();
    listening.subscribe(format!("__keyspace@0__:{}", fixture.key("ephemerals/v"))).await.unwrap();
    let mut telling = redis::cmd("CONFIG");
    telling.arg(&["SET", "notify-keyspace-events", "KA"]);
    telling.query_async::<()>(&mut fixture.connection().await).await.unwrap();
    caller.ask::<()>("SET", "ephemerals/v", &[r#"{"v":1,"session":"s1","nonce":1,"revision":2,"until":3}"#]).await;
    caller.ask::<()>("SADD", "owned/s1", &["ephemerals/v"]).await;
    caller
        .run("session_extend", &["owned/s1", "members", "leases", "ephemerals"], &[&prefix, "s1", "9000", "0", "500"])
        .await;
    eventually("it has run out", async || !caller.ask::<bool>("EXISTS", "ephemerals/v", &[]).await).await;
    let mut told = Vec::new();
    let mut messages = listening.on_message();
    while told.len() < 3 {
        let message = timeout(PATIENCE, messages.next()).await.unwrap_or_else(|_| panic!("told: {told:?}"));
        told.push(message.unwrap().get_payload::<String>().unwrap());
    }
    assert_eq!(told, ["set", "expire", "expired"]);
}

/// Keys of another type count as none, and live no longer by it.
#[tokio::test]
async fn keys_of_another_type_are_not_renewed() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.join("a", "s1", "open", "take", "1").await;
    for key in ["owned/s1", "leases/s1"] {
        caller.ask::<()>("DEL", key, &[]).await;
        caller.ask::<()>("RPUSH", key, &["x"]).await;
        caller.ask::<()>("PEXPIRE", key, &["60000"]).await;
    }
    let prefix = caller.prefix.clone();
    let extending = ["owned/s1", "members", "leases", "ephemerals"];
    assert!(caller.try_run("session_extend", &extending, &[&prefix, "s1", "90000", "0", "500"]).await.is_err());
    caller.run("member_renew", &["owned/s1"], &[&prefix, "s1", "90000", "a"]).await;
    assert!(caller.ask::<u64>("PTTL", "owned/s1", &[]).await <= 60_000, "it does not live on by us");
    let beat = caller.run("session_heartbeat", &["leases/s1", "leases"], &["s1", "1000"]).await;
    assert_eq!(beat, redis::Value::Int(0), "it is no lease");

    // Nobody who waits stands in the way of others, and no sweep.
    caller.ask::<()>("DEL", "leases/s1", &[]).await;
    caller.ask::<()>("ZADD", "leases", &["1", "s1"]).await;
    caller.sweep().await;
    assert_eq!(caller.ask::<Option<String>>("ZSCORE", "leases", &["s1"]).await, None);
}

#[tokio::test]
async fn index_of_another_type_stops_before_writing() {
    let fixture = Fixture::new().await;
    for broken in ["members", "leases"] {
        let mut caller = Caller::new(&fixture).await;
        caller.ask::<()>("SET", broken, &["text"]).await;
        let keys = ["members/a", "members", "leases/s1", "leases", "owned/s1", "revision"];
        let prefix = caller.prefix.clone();
        let args = [prefix.as_str(), "a", "s1", "open", "{\"since\":", "1000", "4000", "take", "1", "\"tags\":[]}"];
        let error = caller.try_run("member_join", &keys, &args).await.unwrap_err();
        assert!(error.to_string().contains("WRONGTYPE"), "{error}");
        for path in keys.iter().filter(|path| **path != broken) {
            assert!(!caller.ask::<bool>("EXISTS", path, &[]).await, "{path} was written");
        }
        caller.ask::<()>("DEL", broken, &[]).await;
    }
}
