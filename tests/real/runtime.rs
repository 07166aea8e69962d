//! A connector lives on the runtime that it was made on, and is closed as soon as that has ended.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use group_redis::{Error, ErrorKind, Event, GroupConnector, LeaveCause, LockGuard, Membership, State};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::locks_bad_days::soon;
use crate::support::{Fixture, Recorder, eventually};

/// Longer than anything here is waited for: what ends by a timeout of its own has not ended.
const LONG: Duration = Duration::from_secs(300);

/// What was made on a runtime of its own.
struct Made {
    group: GroupConnector,
    me: Membership,
    guard: LockGuard,
}

fn many_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn make(fixture: &Fixture) -> (Runtime, Made) {
    let runtime = many_threads();
    let builder = fixture.builder().ttl(LONG).connect_timeout(LONG).command_timeout(LONG);
    let making = async {
        let group = builder.connect().await.unwrap();
        let me = group.join("me").await.unwrap();
        let guard = group.lock("held").acquire().await.unwrap();
        drop(group.elect("held").campaign().await.unwrap());
        assert!(group.locks().lock("named").await.unwrap());
        group.ephemeral().set("x", &1).await.unwrap();
        group.persistent().set("x", &1).await.unwrap();
        (group, me, guard)
    };
    let (group, me, guard) = soon("it is made", runtime.spawn(making)).await.unwrap();
    (runtime, Made { group, me, guard })
}

fn is_closed<T: Debug>(what: &str, result: Result<T, Error>) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error:?}");
    assert!(!error.is_retryable(), "{what}: {error:?}");
}

/// Every call that may be made of a connector whose runtime has ended.
async fn everything_is_closed(made: &Made) {
    let Made { group, me, guard } = made;
    let mut state = group.state();
    assert_eq!(soon("the state", state.wait_for(|state| state == State::Closed)).await, State::Closed);
    assert_eq!((group.members().state(), group.status().state), (State::Closed, State::Closed));
    let reason = group.status().error.expect("a reason");
    assert!(reason.kind() == ErrorKind::Closed && reason.to_string().contains("runtime"), "{reason}");
    assert!(!group.status().notifications_arrive && !group.status().grants_arrive);

    let (ephemeral, persistent, locks) = (group.ephemeral(), group.persistent(), group.locks());
    let (lock, election) = (group.lock("l"), group.elect("e"));
    is_closed("join", soon("join", group.join("other").into_future()).await);
    is_closed("join", soon("join as host", group.join_as_host().into_future()).await);
    is_closed("leave", soon("leave", group.leave("me")).await);
    is_closed("sync", soon("sync", group.sync()).await);
    is_closed("wait_for", soon("wait_for", group.wait_for(LONG, |view| view.len() == 7)).await);
    is_closed("wait_for", soon("wait_for what is so", group.wait_for(LONG, |_| true)).await);
    is_closed("try_acquire", soon("try_acquire", lock.try_acquire()).await);
    is_closed("acquire", soon("acquire", lock.acquire()).await);
    is_closed("acquire", soon("acquire reentrant", lock.clone().reentrant().acquire()).await);
    is_closed("acquire", soon("acquire a reader's", lock.clone().read().acquire()).await);
    is_closed("acquire", soon("acquire a permit", group.semaphore("s", 2).acquire()).await);
    is_closed("acquire_timeout", soon("acquire_timeout", lock.acquire_timeout(LONG)).await);
    is_closed("run", soon("run", lock.run(async |_| ())).await);
    is_closed("holder", soon("holder", lock.holder()).await);
    is_closed("holders", soon("holders", lock.holders()).await);
    is_closed("waiters", soon("waiters", lock.waiters()).await);
    is_closed("break_lock", soon("break_lock", lock.break_lock()).await);
    is_closed("named lock", soon("named lock", locks.lock("l")).await);
    is_closed("named lock", soon("named reentrant lock", locks.reentrant_lock("named")).await);
    assert!(!soon("named release", locks.release("named")).await.unwrap());
    is_closed("campaign", soon("campaign", election.campaign()).await);
    is_closed("leader", soon("leader", election.leader()).await);
    is_closed("candidates", soon("candidates", election.candidates()).await);
    is_closed("run_as_leader", soon("run_as_leader", election.run_as_leader(async |_| ())).await);
    is_closed("set", soon("set", ephemeral.set("x", &1)).await);
    is_closed("set_for", soon("set_for", ephemeral.set_for("x", &1, LONG)).await);
    is_closed("get", soon("get", ephemeral.get::<u8>("x")).await);
    is_closed("read", soon("read", ephemeral.read("x")).await);
    is_closed("list", soon("list", ephemeral.list("")).await);
    is_closed("get_all", soon("get_all", ephemeral.get_all("")).await);
    is_closed("del", soon("del", ephemeral.del("x")).await);
    is_closed("set", soon("set what stays", persistent.set("x", &1)).await);
    is_closed("compare_and_set", soon("compare_and_set", persistent.compare_and_set("x", None, &1)).await);
    is_closed("get", soon("get what stays", persistent.get::<u8>("x")).await);
    is_closed("del", soon("del what stays", persistent.del("x")).await);
    is_closed("list", soon("list what stays", persistent.list("")).await);

    let mut events = group.events();
    assert!(matches!(soon("the last view", events.next()).await, Some(Event::Snapshot(view)) if view.len() == 1));
    assert!(soon("no more events", events.next()).await.is_none());
    assert!(soon("no more values", ephemeral.watch("").unwrap().next()).await.is_none());
    assert!(soon("no more leaders", election.watch().unwrap().next()).await.is_none());
    assert!(soon("no more states", state.changed()).await.is_none());

    assert!(!me.is_held() && me.incarnation().is_none());
    assert_eq!(soon("lost", me.lost()).await, LeaveCause::Expired);
    assert_eq!(soon("held", me.held()).await, None);
    soon("suspended", me.suspended()).await;
    is_closed("update", soon("update", me.update(&1)).await);
    is_closed("update_text", soon("update_text", me.update_text("x")).await);
    is_closed("add_tags", soon("add_tags", me.add_tags(["x"])).await);
    is_closed("remove_tags", soon("remove_tags", me.remove_tags(["x"])).await);
    is_closed("rejoin", soon("rejoin", me.rejoin()).await);

    assert!(!guard.is_held() && guard.valid_for().is_zero() && guard.cancellation_token().is_cancelled());
    soon("the lock is lost", guard.lost()).await;
    soon("the lock is suspended", guard.suspended()).await;
    assert!(!soon("the lock is held", guard.held()).await);
    is_closed("fenced set", soon("fenced set", guard.fenced().set("x", &1)).await);
    is_closed("fenced eval", soon("fenced eval", guard.fenced().eval::<u8>("return 1", &[], &[])).await);
    is_closed("fenced del", soon("fenced del", guard.fenced().del("x")).await);
}

async fn everything_is_given_up(made: Made) {
    let Made { group, me, guard } = made;
    assert!(!soon("release", guard.release()).await);
    is_closed("leave", soon("leave by the handle", me.leave()).await);
    is_closed("close", soon("close", group.close()).await);
    is_closed("close", soon("close again", group.clone().close()).await);
}

#[test]
fn ended_runtime_closes_every_call() {
    many_threads().block_on(async {
        let fixture = Fixture::new().await;
        let (runtime, made) = make(&fixture).await;
        runtime.shutdown_background();
        everything_is_closed(&made).await;
        everything_is_given_up(made).await;
    });
}

type Waiting = Pin<Box<dyn Future<Output = (&'static str, bool)> + Send>>;

/// What waits or is under way, while the server stands still, when the runtime ends: it is told so, whatever it waits for.
#[test]
fn ended_runtime_ends_what_waits() {
    many_threads().block_on(async {
        let fixture = Fixture::new().await;
        if !fixture.redis.is_own() {
            return;
        }
        let (runtime, Made { group, me, guard }) = make(&fixture).await;
        let second = soon("a second member", group.join("second").into_future()).await.unwrap();
        let (mut events, mut values) = (group.events(), group.ephemeral().watch("").unwrap());
        let mut leaders = group.elect("held").watch().unwrap();
        soon("the first view", events.next()).await.unwrap();
        soon("the first values", values.next()).await.unwrap();
        soon("the first leader", leaders.next()).await.unwrap();
        fixture.redis.freeze().await.unwrap();

        fn closed<T>(result: Result<T, Error>) -> bool {
            result.is_err_and(|error| error.kind() == ErrorKind::Closed)
        }
        let g = || group.clone();
        let (persistent, ephemeral, lock) = (group.persistent(), group.ephemeral(), group.lock("held"));
        let (p, e, l) = (persistent.clone(), ephemeral.clone(), lock.clone());
        let (p2, e2, election) = (persistent.clone(), ephemeral.clone(), group.elect("held"));
        let (join, sync, wait, locks) = (g(), g(), g(), group.locks());
        let token = guard.cancellation_token();
        let waiting: Vec<Waiting> = vec![
            Box::pin(async move { ("events", events.next().await.is_none()) }),
            Box::pin(async move { ("values", values.next().await.is_none()) }),
            Box::pin(async move { ("leaders", leaders.next().await.is_none()) }),
            Box::pin(async move { ("join", closed(join.join("other").await)) }),
            Box::pin(async move { ("leave", closed(second.leave().await)) }),
            Box::pin(async move { ("sync", closed(sync.sync().await)) }),
            Box::pin(async move { ("wait_for", closed(wait.wait_for(LONG, |view| view.len() == 7).await)) }),
            Box::pin(async move { ("acquire", closed(l.acquire().await)) }),
            Box::pin(async move { ("try_acquire", closed(lock.try_acquire().await)) }),
            Box::pin(async move { ("campaign", closed(election.campaign().await)) }),
            Box::pin(async move { ("named lock", closed(locks.lock("l").await)) }),
            Box::pin(async move { ("ephemeral set", closed(e.set("y", &1).await)) }),
            Box::pin(async move { ("ephemeral get", closed(e2.get::<u8>("y").await)) }),
            Box::pin(async move { ("persistent set", closed(p.set("y", &1).await)) }),
            Box::pin(async move { ("persistent get", closed(p2.get::<u8>("y").await)) }),
            Box::pin(async move { ("fenced set", closed(guard.fenced().set("y", &1).await)) }),
            Box::pin(async move { ("update", closed(me.update(&1).await)) }),
            Box::pin(async move {
                token.cancelled().await;
                ("the lock is lost", true)
            }),
        ];
        let mut tasks = JoinSet::new();
        let count = waiting.len();
        let (begun, begins) = tokio::sync::watch::channel(0);
        for mut future in waiting {
            let begun = begun.clone();
            tasks.spawn(async move {
                assert!(futures_util::poll!(&mut future).is_pending());
                begun.send_modify(|begun| *begun += 1);
                future.await
            });
        }
        soon("all have begun", begins.clone().wait_for(|begun| *begun == count)).await.unwrap();
        runtime.shutdown_background();
        let mut wrong = Vec::new();
        while let Some(ended) = soon(&format!("{} more end", tasks.len()), tasks.join_next()).await {
            let (what, is_right) = ended.unwrap();
            wrong.extend((!is_right).then_some(what));
        }
        assert!(wrong.is_empty(), "{wrong:?}");
        fixture.redis.thaw().await.unwrap();
    });
}

/// Heartbeats run on a thread of their own: they do not keep alive what nobody looks after.
#[test]
fn ended_runtime_leaves_its_members_to_die() {
    many_threads().block_on(async {
        let fixture = Fixture::new().await;
        for with_presence in [true, false] {
            let builder = || fixture.builder().ttl(if with_presence { LONG } else { Duration::from_secs(1) });
            let watcher = builder().connect().await.unwrap();
            let seen = Recorder::new(&watcher);
            // A runtime of the current thread, on a thread of its own.
            let (ending, ends) = tokio::sync::oneshot::channel::<()>();
            let (making, made) = tokio::sync::oneshot::channel();
            let builder = if with_presence { builder() } else { builder().without_presence() };
            let thread = std::thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let group = builder.connect().await.unwrap();
                    let me = group.join("me").await.unwrap();
                    let guard = group.lock("l").acquire().await.unwrap();
                    making.send((group, me, guard)).ok().unwrap();
                    ends.await.unwrap();
                });
            });
            let (group, me, guard) = soon("it is made", made).await.unwrap();
            seen.wait_for_names(&["me"]).await;
            if with_presence {
                eventually("it is seen", async || watcher.status().sessions_seen == 1).await;
            }
            ending.send(()).unwrap();
            thread.join().unwrap();
            assert!(!me.is_held() && !guard.is_held() && group.state().get() == State::Closed);
            seen.wait_for_names(&[]).await;
            assert_eq!(seen.read(|record| record.left("me")), Some(LeaveCause::Expired));
            assert!(soon("the lock is free", watcher.lock("l").acquire()).await.unwrap().token() > guard.token());
            watcher.close().await.unwrap();
        }
    });
}
