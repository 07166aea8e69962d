//! Many tasks of one connector at the same moment, whose calls go as one.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, poll};
use group_redis::{Error, ErrorKind, GroupConnector, LockGuard};

use group_redis::testing::{FaultProxy, Flow, Line};

use crate::locks_bad_days::{keys, nothing_is_left, queue, say, soon};
use crate::scripts::Caller;
use crate::support::{Fixture, PATIENCE, TTL, calls, eventually};

type Acquiring = BoxFuture<'static, Result<LockGuard, Error>>;

/// A connector that has a session, so that the next acquisition is the next call. Nothing of its audits comes between.
async fn connect(fixture: &Fixture) -> GroupConnector {
    let group = fixture.builder().ttl(TTL * 60).command_timeout(TTL * 30).connect().await.unwrap();
    assert!(group.lock("first").acquire().await.unwrap().release().await);
    group
}

fn acquiring(group: &GroupConnector, name: impl AsRef<str>) -> Acquiring {
    let lock = group.lock(name);
    async move { lock.acquire().await }.boxed()
}

/// Asks for all of them within one turn of the scheduler: the first is under way, the others wait to go together.
async fn ask_all(fixture: &Fixture, asking: &mut [Acquiring]) {
    say::<()>(fixture, &["CLIENT", "PAUSE", "10000", "WRITE"]).await;
    for acquiring in asking {
        assert!(poll!(acquiring).is_pending());
    }
}

async fn answer(fixture: &Fixture) {
    say::<()>(fixture, &["CLIENT", "UNPAUSE"]).await;
}

#[tokio::test]
async fn batch_is_granted_in_order() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let mut asking: Vec<_> = (0..150).map(|number| acquiring(&group, format!("x{number}"))).collect();
    ask_all(&fixture, &mut asking).await;
    answer(&fixture).await;
    let guards = soon("all of them", join_all(asking)).await;
    let guards: Vec<_> = guards.into_iter().map(Result::unwrap).collect();
    let tokens: Vec<_> = guards.iter().map(|guard| guard.token().get()).collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    // One call grants one token after the other; two calls are microseconds apart.
    let together = tokens.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    assert!(together > 100, "{together} of 150 went with the one before: {tokens:?}");
    let released = join_all(guards.into_iter().map(LockGuard::release)).await;
    assert!(released.iter().all(|released| *released), "{released:?}");
    nothing_is_left(&fixture).await;
}

/// One lock that many ask for at once is held by one after the other.
#[tokio::test]
async fn batch_for_one_lock_takes_turns() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    // The first goes before it, so those that go together find both locks free, and each asked for many times.
    let names = (0..42).map(|number| if number < 1 { "before".to_owned() } else { format!("x{}", number % 2) });
    let mut asking: Vec<_> = names.map(|name| acquiring(&group, name)).collect();
    ask_all(&fixture, &mut asking).await;
    answer(&fixture).await;
    let mut last = [0, 0];
    for (number, acquiring) in asking.into_iter().enumerate() {
        let guard = soon("its turn", acquiring).await.unwrap();
        if number >= 1 {
            assert!(guard.token().get() > last[number % 2], "{number}");
            last[number % 2] = guard.token().get();
        }
        assert!(guard.release().await);
    }
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn request_dropped_before_its_batch_is_unsent() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let mut asking: Vec<_> = (0..9).map(|number| acquiring(&group, format!("x{number}"))).collect();
    ask_all(&fixture, &mut asking).await;
    let mut kept = Vec::new();
    for (number, acquiring) in asking.into_iter().enumerate() {
        // Also the one that began the call that waits, and the last that joined it.
        if [2, 5, 8].contains(&number) {
            drop(acquiring);
        } else {
            kept.push(acquiring);
        }
    }
    answer(&fixture).await;
    let guards = soon("those that were kept", join_all(kept)).await;
    let names = [0, 1, 3, 4, 6, 7].map(|number| format!("x{number}"));
    assert_eq!(keys(&fixture, &["locks/"]).await, names.each_ref().map(|name| fixture.key(&format!("locks/{name}"))));
    for (name, guard) in names.iter().zip(&guards) {
        let holder = group.lock(name).holder().await.unwrap().unwrap();
        assert_eq!(holder.token, guard.as_ref().unwrap().token(), "the answer of another is not its own");
    }
    drop(guards);
    nothing_is_left(&fixture).await;
}

/// Where all requests are dropped before the call goes, there is no call, and nobody is harmed.
#[tokio::test]
async fn empty_batch_is_no_call() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let mut asking: Vec<_> = (0..9).map(|number| acquiring(&group, format!("x{number}"))).collect();
    ask_all(&fixture, &mut asking).await;
    drop(asking);
    let mut later = [acquiring(&group, "later")];
    assert!(poll!(&mut later[0]).is_pending());
    answer(&fixture).await;
    let [later] = later;
    let guard = soon("who came later", later).await.unwrap();
    assert!(guard.release().await);
    nothing_is_left(&fixture).await;
}

/// As in a `select!` whose other branch takes its time.
#[tokio::test]
async fn unpolled_request_delays_no_batch() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let mut parked: Vec<_> = (0..400).map(|number| acquiring(&group, format!("parked{number}"))).collect();
    for acquiring in &mut parked {
        assert!(poll!(acquiring).is_pending());
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        let asking = (0..20).map(|number| acquiring(&group, format!("x{number}")));
        let guards = soon("who came later", join_all(asking)).await.into_iter().map(Result::unwrap);
        assert!(soon("them back", join_all(guards.map(LockGuard::release))).await.into_iter().all(|held| held));
    }
    drop(soon("who came first", join_all(parked)).await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn failed_request_fails_alone_in_its_batch() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    say::<()>(&fixture, &["SET", &fixture.key("locks/x7"), "not a lock"]).await;
    say::<()>(&fixture, &["SET", &fixture.key("queues/x9"), "not a queue"]).await;
    let mut asking: Vec<_> = (0..30).map(|number| acquiring(&group, format!("x{number}"))).collect();
    ask_all(&fixture, &mut asking).await;
    answer(&fixture).await;
    let answers = soon("all of them", join_all(asking)).await;
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Ok(guard) => assert!(guard.is_held() && ![7, 9].contains(&number)),
            Err(error) => assert!([7, 9].contains(&number) && error.kind() == ErrorKind::ForeignValue, "{error:?}"),
        }
    }
    // What is wrong meanwhile with one that is given back, too.
    say::<()>(&fixture, &["SET", &fixture.key("queues/x3"), "not a queue"]).await;
    let guards = answers.into_iter().filter_map(Result::ok);
    let released = soon("all of them", join_all(guards.map(LockGuard::release))).await;
    assert_eq!(released.iter().filter(|released| !**released).count(), 1, "{released:?}");
    for path in ["locks/x7", "queues/x9", "queues/x3"] {
        say::<()>(&fixture, &["DEL", &fixture.key(path)]).await;
    }
    nothing_is_left(&fixture).await;
}

/// A session that is gone is followed by another, for all requests of the batch.
#[tokio::test]
async fn batch_of_lost_session_is_asked_again() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let lease = keys(&fixture, &["leases/"]).await.remove(0);
    let mut asking: Vec<_> = (0..30).map(|number| acquiring(&group, format!("x{number}"))).collect();
    // Those that are free, and those for which there is a queue.
    let other = fixture.builder().ttl(TTL * 60).connect().await.unwrap();
    let held = other.lock("x20").acquire().await.unwrap();
    say::<()>(&fixture, &["DEL", &lease]).await;
    ask_all(&fixture, &mut asking).await;
    answer(&fixture).await;
    let blocked = tokio::spawn(asking.remove(20));
    let guards = soon("all of them", join_all(asking)).await;
    assert!(guards.iter().all(|guard| guard.as_ref().is_ok_and(LockGuard::is_held)), "{guards:?}");
    drop(guards);
    eventually("it stands in the queue", async || queue(&fixture, "x20").await.len() == 1).await;
    assert!(held.release().await);
    drop(soon("its turn", blocked).await.unwrap().unwrap());
    nothing_is_left(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_dropped_in_batches_leave_nothing() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let tasks = (0..64_u64).map(|task| {
        let group = group.clone();
        tokio::spawn(async move {
            let (mut held, mut dropped) = (0, 0);
            for round in 0..60 {
                let number = task * 7 + round * 13;
                let lock = group.lock(format!("x{}", number % 24));
                let lock = if number % 5 == 0 { lock.read() } else { lock };
                // From what is over before the call has gone to what is mostly long enough, and some that wait.
                let short = Duration::from_micros(number * 977 % 12_000);
                let limit = if number % 4 == 0 { PATIENCE } else { short };
                match tokio::time::timeout(limit, lock.acquire()).await {
                    Ok(guard) => {
                        held += 1;
                        let guard = guard.unwrap();
                        if number % 3 > 0 {
                            assert!(guard.release().await);
                        }
                    }
                    Err(_) => dropped += 1,
                }
            }
            (held, dropped)
        })
    });
    let (mut held, mut dropped) = (0, 0);
    for task in soon("all tasks", join_all(tasks)).await {
        let counts = task.unwrap();
        held += counts.0;
        dropped += counts.1;
    }
    println!("{held} held, {dropped} dropped");
    assert!(held > 100 && dropped > 100, "{held} held, {dropped} dropped");
    nothing_is_left(&fixture).await;
}

/// A request that is dropped while the server learns the script is not asked for.
/// The server knows the script of giving back, and not that of taking: the call is sent once more when it has it. Whoever
/// has given back by then must not be in it.
#[tokio::test(flavor = "multi_thread")]
async fn request_dropped_during_script_load_is_unsent() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let patient = GroupConnector::builder(proxy.url()).group(&fixture.group).ttl(TTL * 60).command_timeout(TTL * 30);
    let group = patient.connect().await.unwrap();
    assert!(group.lock("first").acquire().await.unwrap().release().await);
    say::<()>(&fixture, &["SCRIPT", "FLUSH"]).await;
    caller.run("lock_release", &["locks/first"], &["nobody-1 1 w"]).await;
    let mut connection = fixture.connection().await;
    let mut loaded = async || calls(&mut connection, "script|load").await;
    let before = loaded().await;
    proxy.set_both(Line::Any, Flow::new().delay(TTL / 5));
    let (mut alone, mut beside) = (acquiring(&group, "x"), acquiring(&group, "y"));
    let mut both = async || {
        assert!(poll!(&mut alone).is_pending() && poll!(&mut beside).is_pending());
        loaded().await >= before + 2
    };
    eventually("both calls have had the script loaded", &mut both).await;
    drop(beside);
    let guard = soon("the other", alone).await.unwrap();
    assert!(guard.release().await);
    proxy.heal();
    nothing_is_left(&fixture).await;
}
