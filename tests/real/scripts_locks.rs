//! Each script about sessions, locks and fenced writes by itself, as a program in another language would call it.

use futures_util::StreamExt;

use crate::scripts::{Caller, text, words};
use crate::support::{Fixture, PATIENCE, eventually};

impl Caller {
    async fn open(&mut self, session: &str, ttl: u64) -> String {
        let (lease, owned) = (format!("leases/{session}"), format!("owned/{session}"));
        let ttl = ttl.to_string();
        let args = [session, "{\"pid\":1,\"since\":", &ttl, "40000"];
        words(self.run("session_open", &[&lease, "leases", &owned], &args).await).remove(0)
    }

    async fn acquire(&mut self, session: &str, nonce: &str, mode: &str, most: &str, queues: &str) -> Vec<String> {
        let request = format!("{queues} {session} {nonce} {mode} {most} 40000 m");
        let answer = words(self.run("lock_acquire", &["locks/x"], &[&request]).await).remove(0);
        answer.split(' ').map(str::to_owned).collect()
    }

    async fn release(&mut self, session: &str, nonce: &str, mode: &str, entry: &str) -> String {
        let entry = if entry.is_empty() { format!("{session} {nonce} {mode}") } else { entry.to_owned() };
        words(self.run("lock_release", &["locks/x"], &[&entry]).await).remove(0)
    }

    async fn owned(&mut self, session: &str) -> Vec<String> {
        let mut owned: Vec<String> = self.ask("SMEMBERS", &format!("owned/{session}"), &[]).await;
        owned.retain(|path| path != ".");
        owned.sort();
        owned
    }

    async fn exists(&mut self, path: &str) -> bool {
        self.ask("EXISTS", path, &[]).await
    }
}

/// What is told to this connector.
async fn inbox(fixture: &Fixture, connector: &str) -> redis::aio::PubSub {
    let client = redis::Client::open(fixture.redis.url()).unwrap();
    let mut listening = client.get_async_pubsub().await.unwrap();
    listening.subscribe(fixture.key(&format!("inbox/{connector}"))).await.unwrap();
    listening
}

async fn inbox_message(listening: &mut redis::aio::PubSub) -> Vec<String> {
    let message =
        tokio::time::timeout(PATIENCE, listening.on_message().next()).await.expect("an inbox message").unwrap();
    message.get_payload::<String>().unwrap().split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn open_renews_and_never_wakes_the_closed() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    assert_eq!(caller.open("s-1", 1000).await, "1");
    let lease: String = caller.ask("GET", "leases/s-1", &[]).await;
    assert!(lease.starts_with("{\"pid\":1,\"since\":") && lease.ends_with('}'), "{lease}");
    assert!((1..=1000).contains(&caller.ask::<i64>("PTTL", "leases/s-1", &[]).await));
    assert_eq!(caller.open("s-1", 60_000).await, "1", "repeated");
    assert!(caller.ask::<i64>("PTTL", "leases/s-1", &[]).await > 50_000);
    assert_eq!(caller.ask::<String>("GET", "leases/s-1", &[]).await, lease, "its since is the first");
    for key in ["leases", "owned/s-1"] {
        assert!(caller.ask::<i64>("PTTL", key, &[]).await > 0, "{key} has no ttl");
    }
    caller.ask::<()>("SET", "leases/s-1", &["closed"]).await;
    assert_eq!(caller.open("s-1", 1000).await, "0");
    assert_eq!(caller.ask::<String>("GET", "leases/s-1", &[]).await, "closed");
}

/// The queue is first come, first served.
#[tokio::test]
async fn acquire_is_once_per_nonce() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    assert_eq!(caller.acquire("s-1", "1", "w", "1", "wait").await, ["lost"], "no lease");
    assert!(!caller.exists("locks/x").await && !caller.exists("queues/x").await);
    for session in ["s-1", "t-1", "u-1"] {
        caller.open(session, 60_000).await;
    }
    let held = caller.acquire("s-1", "1", "w", "1", "wait").await;
    assert_eq!(held[0], "held");
    assert_eq!(caller.acquire("s-1", "1", "w", "1", "wait").await, held, "a lost reply is not a second hold");
    assert_eq!(caller.acquire("s-1", "2", "w", "1", "try").await, ["busy"], "another nonce is somebody else");
    let queued = caller.acquire("t-1", "1", "w", "1", "wait").await;
    assert_eq!(queued[..2], ["queued", "0"]);
    assert!((1..=60_000).contains(&queued[2].parse().unwrap()), "until the holder's lease runs out: {queued:?}");
    assert_eq!(caller.acquire("u-1", "1", "w", "1", "wait").await[1], "1");
    assert_eq!(caller.acquire("t-1", "1", "w", "1", "wait").await[..2], ["queued", "0"], "one place per nonce");
    assert_eq!(caller.ask::<u64>("ZCARD", "queues/x", &[]).await, 2);
    assert_eq!(caller.owned("t-1").await, ["queues/x t-1 1 w 1 40000 m"]);
    for key in ["locks/x", "queues/x"] {
        assert!(caller.ask::<i64>("PTTL", key, &[]).await > 0, "{key} has no ttl");
    }

    // The lock is gone, as if it had run out: who asks first does not get before who has waited.
    caller.ask::<()>("DEL", "locks/x", &[]).await;
    assert_eq!(caller.acquire("u-1", "1", "w", "1", "wait").await[..2], ["queued", "0"]);
    let next = caller.acquire("t-1", "1", "w", "1", "wait").await;
    assert_eq!(next[0], "held");
    assert!(next[1].parse::<u64>().unwrap() > held[1].parse().unwrap());
    // The holder's lease is gone: the next has it, whoever asks.
    caller.ask::<()>("DEL", "leases/t-1", &[]).await;
    assert_eq!(caller.acquire("s-1", "3", "w", "1", "try").await, ["busy"]);
    assert!(caller.ask::<String>("GET", "locks/x", &[]).await.contains("\"session\":\"u-1\",\"nonce\":1,"));
}

#[tokio::test]
async fn several_locks_are_answered_each() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let entries =
        ["s-1 1 w 1 40000 m", "s-1 2 w 1 40000 m", "s-1 3 w 1 40000 m", "s-1 4 r 9 40000 m", "s-1 5 r 9 40000 m"];
    let [first, again, other, reader, beside] = entries;
    let wait = entries.map(|entry| format!("wait {entry}"));
    let [first_waits, again_waits, other_waits, reader_waits, beside_waits] = wait.each_ref().map(String::as_str);
    let paths = ["locks/x", "locks/x", "locks/y"];
    let asks = [first_waits, again_waits, other_waits];
    assert_eq!(words(caller.run("lock_acquire", &paths, &asks).await), ["lost", "lost", "lost"]);
    assert!(!caller.exists("locks/x").await && !caller.exists("queues/x").await);
    caller.open("s-1", 60_000).await;

    let answers = words(caller.run("lock_acquire", &paths, &asks).await);
    assert!(answers[0].starts_with("held ") && answers[1].starts_with("queued 0 "), "free only once: {answers:?}");
    assert!(answers[2].starts_with("held ") && answers[2] > answers[0], "{answers:?}");
    let repeated = words(caller.run("lock_acquire", &paths, &asks).await);
    assert_eq!((&repeated[0], &repeated[2]), (&answers[0], &answers[2]), "a lost reply is not a second hold");
    assert!(repeated[1].starts_with("queued 0 "), "one place per nonce: {repeated:?}");
    let queued = format!("queues/x {again}");
    assert_eq!(caller.owned("s-1").await, ["locks/x", "locks/y", &queued]);

    let shared = ["locks/z", "locks/z"];
    let answers = words(caller.run("lock_acquire", &shared, &[reader_waits, beside_waits]).await);
    assert!(answers.iter().all(|answer| answer.starts_with("held ")), "{answers:?}");

    // Who gives up in the same call is not handed what another gives back in it.
    let short = |entry: &str| entry.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let released = words(caller.run("lock_release", &["locks/x", "locks/x"], &[&short(first), again]).await);
    assert_eq!(released, ["1", "0"]);
    assert!(!caller.exists("locks/x").await && !caller.exists("queues/x").await);
    let args = [short(other), short(reader), short(beside), short(first)];
    let args = args.each_ref().map(String::as_str);
    let paths = ["locks/y", "locks/z", "locks/z", "locks/x"];
    assert_eq!(words(caller.run("lock_release", &paths, &args).await), ["1", "1", "1", "0"]);
    assert_eq!(words(caller.run("lock_release", &paths, &args).await), ["0", "0", "0", "0"]);
    assert!(caller.owned("s-1").await.is_empty());

    // What is wrong with one is said of that one; by itself it is an error.
    caller.ask::<()>("SET", "locks/x", &["not a lock"]).await;
    let answers = words(caller.run("lock_acquire", &["locks/x", "locks/y"], &[first_waits, other_waits]).await);
    assert!(answers[0] == "failed" && answers[1].starts_with("held "), "{answers:?}");
    let refused = caller.try_run("lock_acquire", &["locks/x"], &[first_waits]).await.unwrap_err();
    assert!(refused.to_string().contains("WRONGTYPE"), "{refused}");
    caller.ask::<()>("DEL", "locks/x", &[]).await;
    caller.ask::<()>("SET", "queues/x", &["not a queue"]).await;
    let released = words(caller.run("lock_release", &["locks/x", "locks/y"], &[first, &short(other)]).await);
    assert_eq!(released, ["failed", "1"]);
    assert!(caller.try_run("lock_release", &["locks/x"], &[first]).await.is_err());
}

/// That holds whatever the clock says.
#[tokio::test]
async fn token_is_higher_than_the_revision() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.open("s-1", 60_000).await;
    let first: u64 = caller.acquire("s-1", "1", "w", "1", "try").await[1].parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_micros();
    assert!(u128::from(first).abs_diff(now) < 3_600_000_000, "without a past it is the time in microseconds");
    // A clock that was set back.
    let ahead = (first + 10_000_000_000).to_string();
    caller.ask::<()>("SET", "revision", &[&ahead]).await;
    caller.release("s-1", "1", "w", "").await;
    let second: u64 = caller.acquire("s-1", "2", "w", "1", "try").await[1].parse().unwrap();
    assert_eq!(second, first + 10_000_000_001);
    let both: String = caller.ask("GET", "revision", &[]).await;
    assert_eq!(both, format!("{second}/{ahead}"), "the roster has not changed");
}

#[tokio::test]
async fn readers_and_permits_are_counted() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "t-1"] {
        caller.open(session, 60_000).await;
    }
    assert_eq!(caller.acquire("s-1", "1", "r", "2", "try").await[0], "held");
    assert_eq!(caller.acquire("s-1", "2", "r", "2", "try").await[0], "held");
    assert_eq!(caller.acquire("t-1", "1", "r", "2", "try").await, ["busy"]);
    assert_eq!(caller.acquire("t-1", "1", "w", "1", "try").await, ["busy"]);
    assert!(caller.ask::<i64>("PTTL", "shared/x", &[]).await > 0);
    assert_eq!(caller.owned("s-1").await, ["shared/x 1", "shared/x 2"]);
    // Whose holder is dead is no longer in use.
    caller.ask::<()>("DEL", "leases/s-1", &[]).await;
    assert_eq!(caller.acquire("t-1", "1", "w", "1", "try").await[0], "held");
    assert!(!caller.exists("shared/x").await);
}

/// It hands the lock on.
#[tokio::test]
async fn release_wants_session_and_nonce() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "dead-1", "t-1", "u-1"] {
        caller.open(session, 60_000).await;
    }
    let held = caller.acquire("s-1", "1", "w", "1", "try").await;
    for session in ["dead-1", "t-1", "u-1"] {
        caller.acquire(session, "7", "w", "1", "wait").await;
    }
    let before: String = caller.ask("GET", "locks/x", &[]).await;
    assert_eq!(caller.release("t-1", "7", "w", "").await, "0", "a stranger");
    assert_eq!(caller.release("s-1", "2", "w", "").await, "0", "another hold");
    assert_eq!(caller.release("s-1", "1", "r", "").await, "0", "another mode");
    assert_eq!(caller.ask::<String>("GET", "locks/x", &[]).await, before);
    assert_eq!(caller.ask::<u64>("ZCARD", "queues/x", &[]).await, 3);

    let mut told = inbox(&fixture, "t").await;
    caller.ask::<()>("DEL", "leases/dead-1", &[]).await;
    assert_eq!(caller.release("s-1", "1", "w", "").await, "1");
    assert!(caller.owned("s-1").await.is_empty());
    let grant = inbox_message(&mut told).await;
    assert_eq!(grant[..2], ["grant", "7"], "the dead one is skipped");
    let again = caller.acquire("t-1", "7", "w", "1", "wait").await;
    assert_eq!(again[1..], grant[2..], "who asks hears what the inbox message says");
    assert!(again[1].parse::<u64>().unwrap() > held[1].parse().unwrap());
    assert_eq!(caller.owned("t-1").await, ["locks/x"]);
    assert_eq!(caller.release("s-1", "1", "w", "").await, "0", "twice");

    // Who waits leaves the queue.
    assert_eq!(caller.release("u-1", "7", "w", "u-1 7 w 1 40000 m").await, "0");
    assert!(!caller.exists("queues/x").await && caller.owned("u-1").await.is_empty());
}

/// A writer that leaves the queue lets the readers behind it in.
#[tokio::test]
async fn leaving_writer_lets_readers_in() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "t-1", "u-1"] {
        caller.open(session, 60_000).await;
    }
    caller.acquire("s-1", "1", "r", "9", "try").await;
    caller.acquire("t-1", "1", "w", "1", "wait").await;
    caller.acquire("u-1", "1", "r", "9", "wait").await;
    assert_eq!(caller.release("t-1", "1", "w", "t-1 1 w 1 40000 m").await, "0");
    assert_eq!(caller.ask::<u64>("HLEN", "shared/x", &[]).await, 2);
}

/// Those that it was taken from are told.
#[tokio::test]
async fn break_takes_it_from_all() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "t-1"] {
        caller.open(session, 60_000).await;
    }
    let prefix = caller.prefix.clone();
    let broken = async |caller: &mut Caller| {
        words(caller.run("lock_break", &["locks/x", "shared/x"], &[&prefix, "x"]).await).remove(0)
    };
    assert_eq!(broken(&mut caller).await, "0", "free");
    let mut told = inbox(&fixture, "s").await;
    caller.acquire("s-1", "5", "w", "1", "try").await;
    caller.acquire("t-1", "1", "w", "1", "wait").await;
    assert_eq!(broken(&mut caller).await, "1");
    assert_eq!(inbox_message(&mut told).await, ["broken", "5"]);
    assert_eq!(caller.acquire("t-1", "1", "w", "1", "wait").await[0], "held", "it was handed on");
    assert!(caller.owned("s-1").await.is_empty());
    caller.release("t-1", "1", "w", "").await;

    caller.acquire("s-1", "6", "r", "9", "try").await;
    caller.acquire("t-1", "2", "r", "9", "try").await;
    assert_eq!(broken(&mut caller).await, "2");
    assert_eq!(inbox_message(&mut told).await, ["broken", "6"]);
    assert!(caller.owned("s-1").await.is_empty() && !caller.exists("shared/x").await);
}

#[tokio::test]
async fn inspect_names_the_living() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "t-1", "u-1"] {
        caller.open(session, 60_000).await;
    }
    let prefix = caller.prefix.clone();
    let inspect = async |caller: &mut Caller| {
        words(caller.run("lock_inspect", &["locks/x", "shared/x", "queues/x"], &[&prefix]).await)
    };
    assert!(inspect(&mut caller).await.is_empty());
    caller.acquire("s-1", "1", "w", "1", "try").await;
    caller.acquire("t-1", "1", "w", "1", "wait").await;
    caller.acquire("u-1", "1", "r", "9", "wait").await;
    let seen = inspect(&mut caller).await;
    assert_eq!(seen[0], caller.ask::<String>("GET", "locks/x", &[]).await);
    assert_eq!((seen[1].as_str(), seen[3].as_str()), ("t-1 1 w 1 40000 m", "u-1 1 r 9 40000 m"));
    assert!(seen[2].parse::<u64>().unwrap() < seen[4].parse().unwrap(), "tickets rise: {seen:?}");
    caller.ask::<()>("DEL", "leases/s-1", &[]).await;
    caller.ask::<()>("SET", "leases/t-1", &["closed"]).await;
    assert_eq!(inspect(&mut caller).await[0], "u-1 1 r 9 40000 m");
    assert_eq!(caller.ask::<u64>("ZCARD", "queues/x", &[]).await, 2, "to inspect is not to touch");
}

/// It pushes out what a session holds, and says what that is.
#[tokio::test]
async fn extend_renews_and_lists_holds() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "t-1"] {
        caller.open(session, 60_000).await;
    }
    let held = caller.acquire("s-1", "5", "w", "1", "try").await;
    caller.acquire("t-1", "1", "w", "1", "wait").await;
    // Listed, and not its own: another's lock, nothing at all, another program's value.
    caller.ask::<()>("SADD", "owned/t-1", &["locks/x", "locks/gone", "locks/list", "shared/x 1"]).await;
    caller.ask::<()>("RPUSH", "locks/list", &["a"]).await;
    let extend = async |caller: &mut Caller, session: &str| {
        let (prefix, owned) = (caller.prefix.clone(), format!("owned/{session}"));
        let keys = [&*owned, "members", "leases", "ephemerals"];
        words(caller.run("session_extend", &keys, &[&prefix, session, "900000", "0", "100"]).await)
    };
    assert_eq!(extend(&mut caller, "s-1").await, ["0", "locks/x", "5", &held[1]]);
    for key in ["locks/x", "queues/x", "owned/s-1", "leases"] {
        assert!(caller.ask::<i64>("PTTL", key, &[]).await > 800_000, "{key}");
    }
    caller.ask::<()>("PEXPIRE", "locks/x", &["1000"]).await;
    assert_eq!(extend(&mut caller, "t-1").await, ["0"]);
    assert!(caller.ask::<i64>("PTTL", "locks/x", &[]).await <= 1000, "a stranger's is not");
    assert_eq!(caller.ask::<i64>("PTTL", "locks/list", &[]).await, -1);
    caller.release("s-1", "5", "w", "").await;
    caller.release("t-1", "1", "w", "").await;
    let shared = caller.acquire("s-1", "6", "r", "9", "try").await;
    assert_eq!(extend(&mut caller, "s-1").await, ["0", "shared/x 6", "6", &shared[1]]);
    assert!(caller.ask::<i64>("PTTL", "shared/x", &[]).await > 800_000);
}

#[tokio::test]
async fn fenced_write_is_the_holders_alone() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "t-1"] {
        caller.open(session, 60_000).await;
    }
    let fence = async |caller: &mut Caller, session: &str, nonce: &str, mode: &str, what: &str| {
        let lease = format!("leases/{session}");
        let keys = ["locks/x", "shared/x", &*lease, "persistent/a", "persistent", "revision"];
        words(caller.run("lock_fenced_write", &keys, &[session, nonce, mode, "a", what, "value"]).await)
    };
    assert_eq!(fence(&mut caller, "s-1", "1", "w", "set").await, ["lost"], "free");
    let held = caller.acquire("s-1", "1", "w", "1", "try").await;
    for (session, nonce, mode) in [("t-1", "1", "w"), ("s-1", "2", "w"), ("s-1", "1", "r")] {
        assert_eq!(fence(&mut caller, session, nonce, mode, "set").await, ["lost"], "{session} {nonce} {mode}");
    }
    assert!(!caller.exists("persistent/a").await && !caller.exists("persistent").await);
    let set = fence(&mut caller, "s-1", "1", "w", "set").await;
    assert_eq!(set[0], "set");
    assert!(set[1].parse::<u64>().unwrap() > held[1].parse().unwrap());
    assert_eq!(caller.ask::<String>("GET", "persistent/a", &[]).await, "value");
    assert_eq!(caller.ask::<String>("ZSCORE", "persistent", &["a"]).await, set[1], "no digit is lost");
    assert_eq!(caller.ask::<i64>("PTTL", "persistent/a", &[]).await, -1, "it stays");
    caller.ask::<()>("SET", "leases/s-1", &["closed"]).await;
    assert_eq!(fence(&mut caller, "s-1", "1", "w", "del").await, ["lost"], "its session is closed");
    caller.ask::<()>("DEL", "leases/s-1", &[]).await;
    assert_eq!(fence(&mut caller, "s-1", "1", "w", "del").await, ["lost"], "its lease is gone");
    caller.open("s-1", 60_000).await;
    assert_eq!(fence(&mut caller, "s-1", "1", "w", "del").await, ["deleted", "1"]);
    assert_eq!(fence(&mut caller, "s-1", "1", "w", "del").await, ["deleted", "0"]);
    assert!(!caller.exists("persistent").await);
}

#[tokio::test]
async fn fenced_script_is_the_holders_alone() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.open("s-1", 60_000).await;
    let fenced = text("lock_fenced_script") + "return {'done', redis.call('INCRBY', KEYS[1], ARGV[1]), #KEYS, #ARGV}";
    let run = async |caller: &mut Caller, nonce: &str, mode: &str| {
        let keys = ["locks/x", "shared/x", "leases/s-1", "persistent/a"];
        words(caller.eval(&fenced, &keys, &["s-1", nonce, mode, "20"]).await.unwrap())
    };
    assert_eq!(run(&mut caller, "1", "w").await, ["lost"]);
    caller.acquire("s-1", "1", "w", "1", "try").await;
    assert_eq!(run(&mut caller, "1", "w").await, ["done", "20", "1", "1"], "it sees its own keys and arguments");
    assert_eq!(run(&mut caller, "2", "w").await, ["lost"]);
    caller.release("s-1", "1", "w", "").await;
    caller.acquire("s-1", "3", "r", "9", "try").await;
    assert_eq!(run(&mut caller, "3", "r").await[1], "40");
    caller.ask::<()>("DEL", "leases/s-1", &[]).await;
    assert_eq!(run(&mut caller, "3", "r").await, ["lost"]);
    assert_eq!(caller.ask::<u64>("GET", "persistent/a", &[]).await, 40);
}

#[tokio::test]
async fn sweep_and_close_hand_on() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    for session in ["s-1", "t-1", "u-1"] {
        caller.open(session, 60_000).await;
    }
    for session in ["s-1", "t-1", "u-1"] {
        caller.acquire(session, "1", "w", "1", "wait").await;
    }
    let mut told = inbox(&fixture, "t").await;
    caller.ask::<()>("DEL", "leases/s-1", &[]).await;
    caller.ask::<()>("ZADD", "leases", &["1", "s-1"]).await;
    assert!(caller.sweep().await[0].parse::<u64>().unwrap() > 1000, "nobody else is due");
    assert_eq!(inbox_message(&mut told).await[..2], ["grant", "1"]);
    assert!(!caller.exists("owned/s-1").await);

    let mut told = inbox(&fixture, "u").await;
    let prefix = caller.prefix.clone();
    let keys = ["leases/t-1", "leases", "members", "owned/t-1", "revision"];
    assert_eq!(words(caller.run("session_close", &keys, &[&prefix, "t-1", "500", "50"]).await), ["0"]);
    assert_eq!(inbox_message(&mut told).await[..2], ["grant", "1"]);
    assert!(!caller.exists("owned/t-1").await && !caller.exists("queues/x").await);
    eventually("its last word to go", async || !caller.exists("leases/t-1").await).await;
    assert_eq!(caller.ask::<Vec<String>>("ZRANGE", "leases", &["0", "-1"]).await, ["u-1"]);
}
