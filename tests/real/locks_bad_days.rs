//! What goes wrong with the holders of locks and with those who wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use group_redis::testing::{FaultProxy, Line};
use group_redis::{ErrorKind, FencingToken, GroupConnector, Lock, LockGuard};

use crate::locker::Locker;
use crate::support::{Fixture, PATIENCE, TTL, calls, eventually};

/// What a crash may take to be seen once the lease has run out.
const PAST_DEADLINE: Duration = Duration::from_millis(50);
/// How often a measurement is tried: a machine that is busy with others may spoil one.
const ROUNDS: usize = 3;

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

pub(crate) async fn say<T: redis::FromRedisValue>(fixture: &Fixture, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut fixture.connection().await).await.unwrap()
}

/// The keys of the group in these folders, sorted.
pub(crate) async fn keys(fixture: &Fixture, folders: &[&str]) -> Vec<String> {
    let all: Vec<String> = say(fixture, &["KEYS", "*"]).await;
    let prefixes: Vec<_> = folders.iter().map(|folder| fixture.key(folder)).collect();
    let mut found: Vec<_> =
        all.into_iter().filter(|key| prefixes.iter().any(|prefix| key.starts_with(prefix))).collect();
    found.sort();
    found
}

/// No lock is held, nobody waits, and no session thinks that it owns any of it.
pub(crate) async fn nothing_is_left(fixture: &Fixture) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = keys(fixture, &["locks/", "shared/", "queues/"]).await;
        for owned in keys(fixture, &["owned/"]).await {
            let things: Vec<String> = say(fixture, &["SMEMBERS", &owned]).await;
            left.extend(things.into_iter().filter(|thing| thing != "." && !thing.starts_with("members/")));
        }
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The queue of a lock, first come first, as the server has it.
pub(crate) async fn queue(fixture: &Fixture, name: &str) -> Vec<String> {
    say(fixture, &["ZRANGE", &fixture.key(&format!("queues/{name}")), "0", "-1"]).await
}

/// Starts to acquire, and answers when that stands in the queue.
pub(crate) async fn enqueue(
    lock: &Lock,
    place: usize,
) -> tokio::task::JoinHandle<Result<LockGuard, group_redis::Error>> {
    let acquiring = lock.clone();
    let waiting = tokio::spawn(async move { acquiring.acquire().await });
    eventually("it stands in the queue", async || lock.waiters().await.unwrap().len() == place).await;
    waiting
}

#[tokio::test]
async fn holder_frozen_past_its_ttl_is_fenced() {
    let fixture = Fixture::new().await;
    let mut first = Locker::start(&fixture, "first", TTL).await;
    let mut second = Locker::start(&fixture, "second", TTL).await;
    let held = first.ask("acquire x", "held x").await;
    assert_eq!(first.ask("load x", "loaded x").await, ["0", "0"]);
    first.signal("-STOP");
    let taken = second.ask("acquire x", "held x").await;
    assert!(taken[0].parse::<u64>().unwrap() > held[0].parse::<u64>().unwrap());
    assert_eq!(second.ask("load x", "loaded x").await, ["0", "0"]);
    second.ask("store x", "stored x").await;
    assert_eq!(second.ask("load x", "loaded x").await, ["1", "1"]);
    second.ask("store x", "stored x").await;
    first.signal("-CONT");
    first.wait_for("lost x").await;
    first.ask("store x", "refused x").await;
    // The fence kept two updates; around it both are lost, which shows that it was needed.
    assert_eq!(second.ask("load x", "loaded x").await, ["2", "1"]);
    assert_eq!(first.ask("release x", "released x").await, ["false"]);
    assert_eq!(second.ask("release x", "released x").await, ["true"]);
    let said = first.history();
    assert_eq!(said.iter().filter(|line| line.starts_with("held")).count(), 1, "{said:?}");
}

/// A waiter frozen past its ttl does not believe the grant that it finds when it wakes.
#[tokio::test]
async fn woken_waiter_believes_no_old_grant() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let first = group.lock("x").acquire().await.unwrap();
    let mut frozen = Locker::start(&fixture, "frozen", TTL).await;
    frozen.say("acquire x");
    eventually("it waits", async || queue(&fixture, "x").await.len() == 1).await;
    frozen.signal("-STOP");
    assert!(first.release().await);
    eventually("it was handed on", async || queue(&fixture, "x").await.is_empty()).await;
    let second = soon("who is dead has lost it", group.lock("x").acquire()).await.unwrap();
    frozen.signal("-CONT");
    eventually("it waits again", async || queue(&fixture, "x").await.len() == 1).await;
    let token = second.token().get();
    assert!(second.release().await);
    let held = frozen.wait_for("held x").await;
    assert!(held[0].parse::<u64>().unwrap() > token, "{held:?}");
}

async fn fill(fixture: &Fixture, keys: usize) {
    let script = "for i = 1, ARGV[1] do redis.call('SET', 'foreign:' .. i, i, 'PX', 3600000 + i) end";
    say::<Option<()>>(fixture, &["EVAL", script, "0", &keys.to_string()]).await;
}

/// The session that holds the lock.
async fn session_with(fixture: &Fixture, lock: &str) -> String {
    let record: String = say(fixture, &["GET", &fixture.key(&format!("locks/{lock}"))]).await;
    record.split("\"session\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned()
}

/// When this session's lease ran out, by the server's clock in milliseconds: presence may shorten it before.
async fn deadline(fixture: &Fixture, session: &str) -> f64 {
    let last = AtomicU64::new(0);
    eventually("the lease is over", async || {
        let due: Option<u64> = say(fixture, &["ZSCORE", &fixture.key("leases"), session]).await;
        due.is_none_or(|due| {
            last.store(due, Ordering::Relaxed);
            false
        })
    })
    .await;
    last.load(Ordering::Relaxed) as f64
}

/// Fifty waiters hold it one after the other when the holder is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_holder_is_followed_by_fifty_waiters() {
    let fixture = Fixture::new().await;
    fill(&fixture, 100_000).await;
    let mut workers = Vec::new();
    for worker in 0..5 {
        workers.push(Locker::start(&fixture, &format!("w{worker}"), TTL * 2).await);
    }
    let mut lags = Vec::new();
    for _ in 0..ROUNDS {
        let mut holder = Locker::start(&fixture, "holder", TTL * 2).await;
        holder.ask("acquire x", "held x").await;
        workers.iter_mut().for_each(|worker| worker.say("wait x 10"));
        eventually("fifty to wait", async || queue(&fixture, "x").await.len() == 50).await;
        let order: Vec<_> = queue(&fixture, "x").await;
        let order: Vec<_> = order.iter().map(|entry| entry.rsplit(' ').next().unwrap().to_owned()).collect();
        let session = session_with(&fixture, "x").await;
        holder.signal("-KILL");
        let deadline = deadline(&fixture, &session).await;
        // Token, member, since when in the server's milliseconds.
        let mut grants: Vec<(u64, String, f64)> = Vec::new();
        for worker in &mut workers {
            for _ in 0..10 {
                let words = worker.wait_for("held x").await;
                grants.push((words[0].parse().unwrap(), words[1].clone(), words[2].parse().unwrap()));
            }
        }
        grants.sort_by_key(|(token, ..)| *token);
        let names: Vec<_> = grants.iter().map(|(_, name, _)| name.clone()).collect();
        assert_eq!(names, order, "in the order of the queue");
        assert!(grants[0].2 >= deadline - 1.0, "not before the lease has run out");
        nothing_is_left(&fixture).await;
        lags.push(grants[0].2 - deadline);
        println!(
            "the first of 50 had it {} ms past the deadline, the last {} ms later",
            lags[lags.len() - 1],
            grants[49].2 - grants[0].2
        );
        if grants[0].2 - deadline <= PAST_DEADLINE.as_secs_f64() * 1000.0 {
            return;
        }
    }
    panic!("the first of the queue had it {lags:?} ms past the deadline");
}

#[tokio::test]
async fn gone_waiter_is_skipped() {
    let fixture = Fixture::new().await;
    let holder = fixture.connect().await;
    let group = fixture.connect().await;
    let lock = group.lock("x").as_member("live");
    let guard = holder.lock("x").acquire().await.unwrap();

    let mut dead = Locker::start(&fixture, "dead", TTL).await;
    dead.say("wait x 1");
    eventually("it waits", async || queue(&fixture, "x").await.len() == 1).await;
    let cancelled = enqueue(&group.lock("x").as_member("cancelled"), 2).await;
    let late = group.lock("x").as_member("late");
    let timed_out = tokio::spawn(async move { late.acquire_timeout(Duration::from_millis(300)).await });
    eventually("it waits", async || queue(&fixture, "x").await.len() == 3).await;
    let live = enqueue(&lock, 4).await;

    dead.signal("-KILL");
    cancelled.abort();
    assert!(soon("its time to be up", timed_out).await.unwrap().unwrap().is_none());
    eventually("only the live one waits", async || queue(&fixture, "x").await.len() == 1).await;
    let before = Instant::now();
    assert!(guard.release().await);
    let guard = soon("the live one has it", live).await.unwrap().unwrap();
    assert!(before.elapsed() < TTL / 2, "it was waited for somebody: {:?}", before.elapsed());
    assert!(guard.release().await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn unswept_dead_waiter_is_skipped() {
    let fixture = Fixture::new().await;
    let dead = fixture.builder().without_sweep().connect().await.unwrap();
    let group = fixture.builder().without_sweep().ttl(TTL * 60).connect().await.unwrap();
    let guard = group.lock("x").acquire().await.unwrap();
    let waiting = enqueue(&dead.lock("x"), 1).await;
    let session = queue(&fixture, "x").await[0].split(' ').next().unwrap().to_owned();
    let live = enqueue(&group.lock("x").as_member("live"), 2).await;
    say::<()>(&fixture, &["DEL", &fixture.key(&format!("leases/{session}"))]).await;
    assert!(guard.release().await);
    let guard = soon("the live one has it", live).await.unwrap().unwrap();
    assert_eq!(guard.member(), &"live");
    waiting.abort();
}

#[tokio::test]
async fn lock_is_acquired_though_grants_are_lost() {
    let fixture = Fixture::new().await;
    let interval = Duration::from_millis(500);
    let holder = fixture.builder().ttl(TTL * 60).connect().await.unwrap();
    let waiter = fixture.builder().ttl(TTL * 60).reconcile(interval).connect().await.unwrap();
    let guard = holder.lock("x").acquire().await.unwrap();
    let waiting = enqueue(&waiter.lock("x"), 1).await;
    // The grant is made as a release makes it, and nobody is told.
    assert_eq!(silent_release(&fixture, "x").await, 1);
    let before = Instant::now();
    let found = soon("it finds the grant by itself", waiting).await.unwrap().unwrap();
    let took = before.elapsed();
    assert!(took < interval + Duration::from_millis(500), "later than the reconcile interval: {took:?}");
    assert!(found.is_held());
    assert!(found.release().await);
    assert!(!guard.release().await);
    nothing_is_left(&fixture).await;
}

/// The script `release` for whoever holds the lock, with PUBLISH taken out.
async fn silent_release(fixture: &Fixture, name: &str) -> u64 {
    let record: String = say(fixture, &["GET", &fixture.key(&format!("locks/{name}"))]).await;
    let after =
        |mark: &str, end: char| record.split(mark).nth(1).and_then(|rest| rest.split(end).next()).unwrap().to_owned();
    let (session, nonce) = (after("\"session\":\"", '"'), after("\"nonce\":", ','));
    let script = crate::scripts::text("lock_release").replace("redis.call('PUBLISH', ", "tostring(");
    let lock = fixture.key(&format!("locks/{name}"));
    say::<Vec<u64>>(fixture, &["EVAL", &script, "1", &lock, &format!("{session} {nonce} w")]).await[0]
}

#[tokio::test]
async fn release_by_another_changes_nothing() {
    let fixture = Fixture::new().await;
    let (group, other) = (fixture.connect().await, fixture.connect().await);
    let locks = group.locks();
    assert!(locks.lock_as("a", "x").await.unwrap());
    let before: String = say(&fixture, &["GET", &fixture.key("locks/x")]).await;
    assert!(!locks.release("x").await.unwrap(), "as another member");
    assert!(!locks.release_as("b", "x").await.unwrap(), "as another member");
    assert!(!other.locks().release_as("a", "x").await.unwrap(), "by another connector");
    assert_eq!(say::<String>(&fixture, &["GET", &fixture.key("locks/x")]).await, before);
    assert!(locks.release_as("a", "x").await.unwrap());
    assert!(!locks.release_as("a", "x").await.unwrap(), "twice");

    // Lost, and another's now.
    assert!(locks.lock("x").await.unwrap());
    assert_eq!(other.lock("x").break_lock().await.unwrap(), 1);
    let guard = other.lock("x").acquire().await.unwrap();
    let before: String = say(&fixture, &["GET", &fixture.key("locks/x")]).await;
    assert!(!locks.release("x").await.unwrap(), "after its loss");
    assert_eq!(say::<String>(&fixture, &["GET", &fixture.key("locks/x")]).await, before);
    assert!(guard.is_held());
    assert!(guard.release().await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn acquire_with_lost_reply_holds_once() {
    let fixture = Fixture::new().await;
    let quick = Duration::from_millis(200);
    let group = fixture.builder().ttl(TTL * 30).command_timeout(quick).connect().await.unwrap();
    let lock = group.lock("x");
    drop(lock.acquire().await.unwrap());
    nothing_is_left(&fixture).await;
    for _ in 0..3 {
        fixture.redis.freeze().await.unwrap();
        let acquiring = lock.clone();
        let acquiring = tokio::spawn(async move { acquiring.acquire().await });
        // Longer than a call may take, so that it is made again.
        tokio::time::sleep(quick * 3).await;
        fixture.redis.thaw().await.unwrap();
        let guard = soon("it is held", acquiring).await.unwrap().unwrap();
        let holders = lock.holders().await.unwrap();
        assert_eq!(holders.iter().map(|holder| holder.token).collect::<Vec<_>>(), [guard.token()]);
        assert!(lock.waiters().await.unwrap().is_empty());
        assert!(guard.release().await);
        nothing_is_left(&fixture).await;
    }
}

/// Acquires and gives back, for the token alone.
async fn token(group: &GroupConnector) -> FencingToken {
    let guard = soon("a lock that is free", group.lock("token").acquire()).await.unwrap();
    let token = guard.token();
    guard.release().await;
    token
}

/// Tokens rise when everything is flushed and when the server comes back empty.
#[tokio::test]
async fn tokens_rise_over_flush_and_empty_restart() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let mut last = token(&group).await;
    for restart in [false, true] {
        let guard = group.lock("x").acquire().await.unwrap();
        assert!(guard.token() > last);
        if restart {
            fixture.redis.restart_empty().await.unwrap();
        } else {
            say::<()>(&fixture, &["FLUSHALL"]).await;
        }
        soon("its loss", guard.lost()).await;
        assert!(!guard.is_held() && guard.valid_for().is_zero());
        let error = guard.fenced().set("x", &1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
        let next = token(&group).await;
        assert!(next > guard.token());
        assert!(!guard.is_held(), "never again");
        assert!(!guard.release().await);
        last = next;
    }
}

/// Acquirers that would wait for each other for ever give up, each in its own time.
#[tokio::test]
async fn deadlocked_acquirers_time_out() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.connect().await, fixture.connect().await);
    let (a, b) = (one.lock("a").acquire().await.unwrap(), two.lock("b").acquire().await.unwrap());
    let (first, second) = (one.lock("b"), two.lock("a"));
    let (first, second) = tokio::join!(
        first.acquire_timeout(Duration::from_millis(300)),
        second.acquire_timeout(Duration::from_millis(400))
    );
    assert!(first.unwrap().is_none() && second.unwrap().is_none());
    assert!(a.is_held() && b.is_held());
    drop((a, b));
    nothing_is_left(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_locks_are_one_heartbeat() {
    let fixture = Fixture::new().await;
    let (beat, ttl) = (Duration::from_millis(250), TTL * 60);
    let group = fixture.builder().ttl(ttl).heartbeat(beat).connect().await.unwrap();
    let locks: Vec<_> = (0..1000).map(|number| group.lock(format!("x{number}"))).collect();
    let guards = futures_util::future::try_join_all(locks.iter().map(Lock::acquire)).await.unwrap();
    assert_eq!(keys(&fixture, &["locks/"]).await.len(), 1000);
    let mut connection = fixture.connection().await;
    let (renewed, deadlines) = (calls(&mut connection, "pexpire").await, calls(&mut connection, "zadd").await);
    let mut beats = 0;
    eventually("five heartbeats", async || {
        beats = calls(&mut connection, "pexpire").await - renewed;
        beats >= 5
    })
    .await;
    assert!(beats <= 6, "{beats} leases renewed for 5 heartbeats");
    assert_eq!(calls(&mut connection, "zadd").await - deadlines, beats, "one deadline for each");
    assert!(guards.iter().all(LockGuard::is_held));
}

/// A thousand locks of a killed process are handed on or free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_process_frees_a_thousand_locks() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let mut holder = Locker::start(&fixture, "holder", TTL * 2).await;
    (0..1000).for_each(|number| holder.say(&format!("acquire x{number}")));
    holder.wait_for("held x999").await;
    let mut waiting = Vec::new();
    for number in 0..100 {
        waiting.push(enqueue(&group.lock(format!("x{number}")), 1).await);
    }
    holder.signal("-KILL");
    let mut guards = Vec::new();
    for waiting in waiting {
        guards.push(soon("it is handed on", waiting).await.unwrap().unwrap());
    }
    eventually("the others to be free", async || keys(&fixture, &["locks/"]).await.len() == 100).await;
    drop(guards);
    nothing_is_left(&fixture).await;
}

/// A place that a server has brought back from before is given back as soon as it is served.
#[tokio::test]
async fn restored_queue_entry_is_released() {
    let fixture = Fixture::new().await;
    // Whatever waits for the next audit waits for minutes.
    let long = Duration::from_secs(60);
    let (group, other) =
        (fixture.builder().ttl(long).connect().await.unwrap(), fixture.builder().ttl(long).connect().await.unwrap());
    let held = other.lock("l").acquire().await.unwrap();
    let waiting = enqueue(&group.lock("l"), 1).await;
    let entry = queue(&fixture, "l").await.remove(0);
    // One who waited once, in the same session, before the one who waits now.
    let session = entry.split(' ').next().unwrap();
    let stale = entry.splitn(3, ' ').nth(2).map(|rest| format!("{session} 999 {rest}")).unwrap();
    let owned = fixture.key(&format!("owned/{session}"));
    say::<()>(&fixture, &["ZADD", &fixture.key("queues/l"), "1", &stale]).await;
    say::<()>(&fixture, &["SADD", &owned, &format!("queues/l {stale}")]).await;

    assert!(held.release().await);
    let guard = soon("it is handed on by who does not want it", waiting).await.unwrap().unwrap();
    assert!(guard.release().await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn waiter_keeps_its_place_through_a_suspension() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let long = Duration::from_secs(10);
    // It vouches for half of that once its connection is closed.
    let doubting = GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(long).grace(Duration::from_secs(2));
    let (doubting, other) = (doubting.connect().await.unwrap(), fixture.builder().ttl(long).connect().await.unwrap());
    let held = other.lock("l").acquire().await.unwrap();
    let own = doubting.lock("own").acquire().await.unwrap();
    let first = enqueue(&doubting.lock("l"), 1).await;
    let before = queue(&fixture, "l").await;
    let second = enqueue(&other.lock("l").as_member("second"), 2).await;
    // Only who has been seen is suspended so long before its lease is over.
    eventually("it is seen", async || other.status().sessions_seen == 1).await;

    proxy.refuse();
    proxy.reset(Line::Heartbeat);
    soon("it is suspended", own.suspended()).await;
    proxy.heal();
    assert!(soon("it is held again", own.held()).await);
    assert_eq!(queue(&fixture, "l").await[0], before[0], "the same place");

    held.release().await;
    let first = soon("the first", first).await.unwrap().unwrap();
    assert!(first.is_held() && !second.is_finished());
    first.release().await;
    own.release().await;
    let _second = soon("the second", second).await.unwrap().unwrap();
}

/// A place of a lost session is given back also when what tells of it is lost too.
#[tokio::test]
async fn queue_entry_of_lost_session_is_released() {
    let fixture = Fixture::new().await;
    let (holder, group) = (fixture.connect().await, fixture.connect().await);
    let held = holder.lock("x").acquire().await.unwrap();
    let waiting = enqueue(&group.lock("x"), 1).await;
    let before = queue(&fixture, "x").await.remove(0);
    let session = before.split(' ').next().unwrap();
    // As an eviction may do it: no sweep finds the place by any of these.
    let [lease, owned] = ["leases", "owned"].map(|folder| fixture.key(&format!("{folder}/{session}")));
    say::<()>(&fixture, &["ZREM", &fixture.key("leases"), session]).await;
    say::<()>(&fixture, &["DEL", &lease, &owned]).await;
    eventually("only the next session waits", async || {
        let now = queue(&fixture, "x").await;
        now.len() == 1 && now[0] != before
    })
    .await;
    assert!(held.release().await);
    let guard = soon("the next session has it", waiting).await.unwrap().unwrap();
    assert!(guard.release().await);
    nothing_is_left(&fixture).await;
}
