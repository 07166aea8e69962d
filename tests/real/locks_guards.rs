//! What a guard is good for, how it ends, and what nobody may lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::poll;
use group_redis::{ErrorKind, LockGuard};

use crate::locks_bad_days::{enqueue, nothing_is_left, queue, say, soon};
use crate::support::{Fixture, TTL, eventually};

/// A broken lock is lost at once and the next has it.
#[tokio::test]
async fn broken_lock_is_lost_and_handed_on() {
    let fixture = Fixture::new().await;
    let (group, operator) = (fixture.builder().ttl(TTL * 60).connect().await.unwrap(), fixture.connect().await);
    let guard = group.lock("x").acquire().await.unwrap();
    let next = enqueue(&operator.lock("x").as_member("next"), 1).await;
    assert_eq!(operator.lock("x").break_lock().await.unwrap(), 1);
    soon("its loss", guard.lost()).await;
    assert!(!guard.is_held() && guard.valid_for().is_zero());
    assert_eq!(guard.fenced().set("x", &1).await.unwrap_err().kind(), ErrorKind::Lost);
    let next = soon("the next has it", next).await.unwrap().unwrap();
    assert!(!guard.release().await);
    assert!(next.is_held() && next.token() == operator.lock("x").holder().await.unwrap().unwrap().token);
    assert!(next.release().await);
    assert_eq!(operator.lock("x").break_lock().await.unwrap(), 0, "free");

    let readers = [group.lock("x").read().acquire().await.unwrap(), operator.lock("x").read().acquire().await.unwrap()];
    assert_eq!(group.lock("x").break_lock().await.unwrap(), 2);
    for reader in &readers {
        soon("its loss", reader.lost()).await;
    }
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn holders_and_waiters_are_listed() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    assert!(group.lock("x").holder().await.unwrap().is_none() && group.lock("x").waiters().await.unwrap().is_empty());
    // The server is on this machine: its clock is ours.
    let before = SystemTime::now();
    let guard = group.lock("x").as_member("a b/ü").acquire().await.unwrap();
    let waiting = enqueue(&group.lock("x").as_member("w"), 1).await;
    let after = SystemTime::now();
    let near = |time: SystemTime| time >= before - Duration::from_millis(2) && time <= after;
    let holder = group.lock("x").holder().await.unwrap().unwrap();
    assert_eq!((holder.member.as_str(), holder.token, holder.since), ("a b/ü", guard.token(), guard.since()));
    assert!(near(holder.since), "{before:?} {holder:?} {after:?}");
    let lease: String = say(&fixture, &["GET", &fixture.key(&format!("leases/{}", holder.session))]).await;
    assert!(lease.contains(&format!("\"pid\":{}", std::process::id())), "{lease}");
    let waiters = group.lock("x").waiters().await.unwrap();
    assert_eq!((waiters.len(), waiters[0].member.as_str(), waiters[0].shares), (1, "w", false));
    assert!(near(waiters[0].since) && waiters[0].since >= holder.since, "{waiters:?}");
    waiting.abort();
}

#[tokio::test]
async fn detached_lock_is_held_until_close() {
    let fixture = Fixture::new().await;
    let (group, other) = (fixture.connect().await, fixture.connect().await);
    let token = group.lock("x").acquire().await.unwrap().detach();
    assert_eq!(other.lock("x").holder().await.unwrap().unwrap().token, token);
    let waiting = enqueue(&other.lock("x"), 1).await;
    // Longer than the lease and the safety ttl would be without renewal.
    tokio::time::sleep(TTL * 5).await;
    assert_eq!(other.lock("x").holder().await.unwrap().unwrap().token, token);
    group.close().await.unwrap();
    assert!(soon("it is handed on", waiting).await.unwrap().unwrap().release().await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn guard_is_dropped_outside_a_runtime() {
    let fixture = Fixture::new().await;
    let group = fixture.builder().ttl(TTL * 60).connect().await.unwrap();
    let guard = group.lock("x").acquire().await.unwrap();
    std::thread::spawn(move || drop(guard)).join().unwrap();
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn guard_that_outlives_its_connector_is_lost() {
    let fixture = Fixture::new().await;
    let (group, other) = (fixture.builder().ttl(TTL * 60).connect().await.unwrap(), fixture.connect().await);
    let guard = group.lock("x").acquire().await.unwrap();
    let waiting = enqueue(&other.lock("x"), 1).await;
    drop(group);
    soon("its loss", guard.lost()).await;
    assert!(!guard.is_held());
    let next = soon("it is handed on", waiting).await.unwrap().unwrap();
    assert!(!guard.release().await);
    assert!(next.is_held());
}

struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_ends_before_its_lock() {
    let fixture = Fixture::new().await;
    let (group, other) = (fixture.builder().ttl(TTL * 60).connect().await.unwrap(), fixture.connect().await);
    let begun = Arc::new(AtomicBool::new(false));
    let start = |ended: &Arc<AtomicBool>| {
        begun.store(false, Ordering::SeqCst);
        let (lock, ended, begun) = (group.lock("x"), Ends(ended.clone()), begun.clone());
        tokio::spawn(async move {
            lock.run(|held| async move {
                let _ended = ended;
                begun.store(true, Ordering::SeqCst);
                held.cancellation_token().cancelled().await;
                // Where the work stands when the lock is lost, there it ends.
                std::future::pending::<()>().await;
            })
            .await
        })
    };
    let is_at_work = async || begun.load(Ordering::SeqCst);

    let ended = Arc::new(AtomicBool::new(false));
    let running = start(&ended);
    eventually("it is at work", is_at_work).await;
    other.lock("x").break_lock().await.unwrap();
    let error = soon("the work is cancelled", running).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(ended.load(Ordering::SeqCst));

    let ended = Arc::new(AtomicBool::new(false));
    let running = start(&ended);
    eventually("it is at work", is_at_work).await;
    running.abort();
    let guard = soon("it is given back", other.lock("x").acquire()).await.unwrap();
    assert!(ended.load(Ordering::SeqCst), "the work had ended before");
    guard.release().await;

    let lock = group.lock("x");
    let token = soon(
        "work that ends by itself",
        lock.run(async |held: group_redis::LockContext| {
            held.fenced().set("done", &true).await.unwrap();
            (held.token(), held.is_held())
        }),
    );
    assert!(token.await.unwrap().1);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn work_that_panics_gives_the_lock_back() {
    let fixture = Fixture::new().await;
    let group = fixture.builder().ttl(TTL * 60).connect().await.unwrap();
    let lock = group.lock("x");
    let panicking = tokio::spawn(async move { lock.run(|_| async { panic!("as the test wants") }).await });
    assert!(soon("the panic", panicking).await.unwrap_err().is_panic());
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn odd_names_are_locks_apart() {
    let fixture = Fixture::new().await;
    let (group, other) = (fixture.connect().await, fixture.connect().await);
    for name in [String::new(), "a".repeat(513)] {
        assert_eq!(group.lock(&name).acquire().await.unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(group.locks().lock(&name).await.unwrap_err().kind(), ErrorKind::InvalidName);
    }
    let longest = "*".repeat(512);
    let names = ["a", "a/b", "a/", "/a", "*", "{x}", "x\n", "a b", "%61", "ü", "日本", "w", "r 1", longest.as_str()];
    let mut guards = Vec::new();
    for name in names {
        let guard = group.lock(name).try_acquire().await.unwrap();
        guards.push(guard.unwrap_or_else(|| panic!("{name:?} met another")));
        let waiting = enqueue(&other.lock(name), 1).await;
        assert!(guards.pop().unwrap().release().await);
        guards.push(soon("it is handed on", waiting).await.unwrap().unwrap());
    }
    assert!(guards.iter().all(LockGuard::is_held));
    drop(guards);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn foreign_lock_keys_are_refused_and_stay() {
    let fixture = Fixture::new().await;
    let (group, other) = (fixture.connect().await, fixture.connect().await);
    let values: [&[&str]; 4] = [&["SET", "text"], &["RPUSH", "a", "b"], &["HSET", "field", "text"], &["SADD", "a"]];
    let mut wrong = Vec::new();
    for folder in ["locks", "queues", "shared"] {
        for value in values {
            let key = fixture.key(&format!("{folder}/x"));
            let words: Vec<_> = [&[value[0], key.as_str()], &value[1..]].concat();
            say::<redis::Value>(&fixture, &words).await;
            let before: Vec<u8> = say(&fixture, &["DUMP", &key]).await;
            let lock = group.lock("x");
            let calls = [
                ("try_acquire", lock.try_acquire().await.err()),
                ("acquire", soon("an answer", lock.acquire()).await.err()),
                ("reading", lock.clone().read().try_acquire().await.err()),
                ("a permit", other.semaphore("x", 3).try_acquire().await.err()),
                ("breaking", lock.break_lock().await.err()),
            ];
            for (call, error) in calls {
                let kind = error.map(|error| error.kind());
                if kind != Some(ErrorKind::ForeignValue) {
                    wrong.push(format!("{} at {folder}/x: {call} said {kind:?}", value[0]));
                }
            }
            if say::<Option<Vec<u8>>>(&fixture, &["DUMP", &key]).await != Some(before) {
                wrong.push(format!("{} at {folder}/x was overwritten", value[0]));
            }
            say::<()>(&fixture, &["DEL", &key]).await;
            nothing_is_left(&fixture).await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn dropped_acquisition_leaves_nothing() {
    let fixture = Fixture::new().await;
    let holder = fixture.builder().ttl(TTL * 60).connect().await.unwrap();
    for contended in [false, true] {
        let guard = if contended { Some(holder.lock("x").acquire().await.unwrap()) } else { None };
        let mut group = fixture.builder().ttl(TTL * 60).connect().await.unwrap();
        let mut ended = 0;
        for polls in 0..240 {
            if polls % 20 == 0 {
                // Without a session yet, there is more to be interrupted.
                group = fixture.builder().ttl(TTL * 60).connect().await.unwrap();
            }
            let (write, read, reentrant) = (group.lock("x"), group.lock("x").read(), group.lock("x").reentrant());
            let mut acquiring = Box::pin([&write, &read, &reentrant][polls % 3].acquire());
            for _ in 0..polls % 120 {
                if poll!(&mut acquiring).is_ready() {
                    ended += 1;
                    break;
                }
                std::thread::sleep(Duration::from_micros(20));
                tokio::task::yield_now().await;
            }
        }
        println!("{ended} of 240 were acquired before they were dropped");
        assert!(contended == (ended == 0), "{ended}");
        drop(guard);
        nothing_is_left(&fixture).await;
    }
}

/// After a grant that was broken unseen, the next one is waited for, and comes.
/// A grant that comes before the answer to the question, and is void by the time that both are looked at.
#[tokio::test]
async fn grant_broken_unseen_is_not_believed() {
    let fixture = Fixture::new().await;
    // Nobody asks again within the test: leases and reconciles are long.
    let connect = || fixture.builder().ttl(TTL * 60).connect();
    let (group, other) = (connect().await.unwrap(), connect().await.unwrap());
    let held = other.lock("x").acquire().await.unwrap();
    // With a session, the first poll asks.
    assert!(group.lock("first").acquire().await.unwrap().release().await);
    let lock = group.lock("x");
    let mut acquiring = Box::pin(lock.acquire());
    assert!(poll!(&mut acquiring).is_pending());
    eventually("it stands in the queue, and has not looked", async || !queue(&fixture, "x").await.is_empty()).await;
    assert!(held.release().await);
    assert_eq!(other.lock("x").break_lock().await.unwrap(), 1);
    let again = other.lock("x").acquire().await.unwrap();
    // Inbox messages come in order: when this one has come, that of x has.
    let fence = other.lock("y").acquire().await.unwrap();
    let fenced = enqueue(&group.lock("y"), 1).await;
    assert!(fence.release().await);
    soon("its turn", fenced).await.unwrap().unwrap().release().await;

    assert!(poll!(&mut acquiring).is_pending());
    eventually("it stands in the queue again", async || {
        assert!(poll!(&mut acquiring).is_pending(), "another holds it");
        !queue(&fixture, "x").await.is_empty()
    })
    .await;
    assert!(again.is_held() && again.release().await);
    let guard = soon("the next grant", acquiring).await.unwrap();
    assert!(guard.is_held() && guard.release().await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn fenced_script_has_the_users_rights() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    say::<()>(&fixture, &["ACL", "SETUSER", "default", "-incr"]).await;
    let group = fixture.connect().await;
    let guard = group.lock("x").acquire().await.unwrap();
    let fenced = guard.fenced();
    let denied = fenced.eval::<u64>("return redis.call('INCR', KEYS[1])", &["n"], &[]).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied:?}");
    assert_eq!(fenced.eval::<u64>("return redis.call('EXISTS', KEYS[1])", &["n"], &[]).await.unwrap(), 0);
}

/// The heartbeats go on while the runtime hangs; what keeps the keys of the locks does not.
#[tokio::test]
async fn hung_runtime_holds_no_lost_lock() {
    let fixture = Fixture::new().await;
    let (url, group) = (fixture.redis.url().to_owned(), fixture.group.clone());
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (tell, told) = tokio::sync::oneshot::channel();
    let hung = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let builder = group_redis::GroupConnector::builder(url).group(group).ttl(TTL);
            let group = builder.connect().await.unwrap();
            let guard = group.lock("x").acquire().await.unwrap();
            tell.send(()).unwrap();
            // From here on the runtime makes no progress at all.
            let _ = held.recv();
            guard.is_held()
        })
    });
    told.await.unwrap();
    let other = fixture.connect().await;
    let taken = other.lock("x").acquire_timeout(TTL * 6).await.unwrap();
    drop(hold);
    let vouched = hung.join().unwrap();
    assert!(taken.is_none() || !vouched, "two say that they hold it: {taken:?} and the one that hung");
}
