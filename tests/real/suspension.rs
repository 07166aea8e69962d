//! Guards are held, suspended or lost: an outage in which nobody could have taken anything costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use group_redis::testing::{FaultProxy, Line};
use group_redis::{ErrorKind, GroupConnector, State};
use tokio::time::timeout;

use super::locker::Locker;
use super::locks_bad_days::say;
use super::support::{Fixture, PATIENCE, Recorder, eventually};

/// How long the server is away, as for an upgrade.
const OUTAGE: Duration = Duration::from_secs(2);

async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: it did not happen within {PATIENCE:?}"))
}

/// With the default settings but for the group: presence is on, the ttl is 7.5 s.
async fn connect(fixture: &Fixture) -> GroupConnector {
    GroupConnector::builder(fixture.redis.url()).group(&fixture.group).connect().await.unwrap()
}

/// A restart within the ttl costs no lock, no leader and no value.
#[tokio::test]
async fn restart_within_the_ttl_loses_nothing() {
    let fixture = Fixture::new().await;
    let (group, watcher) = (connect(&fixture).await, connect(&fixture).await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let guard = group.lock("l").acquire().await.unwrap();
    let permit = group.semaphore("s", 2).acquire().await.unwrap();
    let reentrant = group.lock("r").reentrant();
    let outer = reentrant.acquire().await.unwrap();
    let leadership = group.elect("boss").campaign().await.unwrap();
    group.ephemeral().set("endpoint", &8080).await.unwrap();
    let (tokens, term) = ([guard.token(), permit.token(), outer.token()], leadership.term());
    let incarnation = me.incarnation().unwrap();

    let outage = fixture.redis.restart_with_data_after(OUTAGE);
    let suspension = async {
        soon("the guard is suspended", guard.suspended()).await;
        soon("the lead is suspended", leadership.suspended()).await;
        soon("the membership is suspended", me.suspended()).await;
        assert!(!guard.is_held() && !permit.is_held() && !outer.is_held() && !leadership.is_leader() && !me.is_held());
        assert_eq!((guard.valid_for(), leadership.valid_for()), (Duration::ZERO, Duration::ZERO));
        assert!(guard.cancellation_token().is_cancelled(), "work that asks for a token now is not to begin");
        assert!(matches!(group.state().get(), State::Suspended { .. }), "{}", group.state().get());
    };
    tokio::join!(outage, suspension).0.unwrap();

    assert!(soon("the guard is held again", guard.held()).await);
    assert!(soon("the lead is held again", leadership.held()).await);
    assert!(permit.is_held() && outer.is_held());
    assert_eq!(([guard.token(), permit.token(), outer.token()], leadership.term()), (tokens, term));
    assert!(guard.lost().now_or_never().is_none() && leadership.lost().now_or_never().is_none());
    assert!(!guard.cancellation_token().is_cancelled());
    assert_eq!(soon("the membership is held again", me.held()).await, Some(incarnation));
    assert!(me.lost().now_or_never().is_none());
    assert_eq!(group.ephemeral().get::<u16>("endpoint").await.unwrap(), Some(8080));
    let inner = soon("an inner guard", reentrant.acquire()).await.unwrap();
    assert_eq!(inner.token(), outer.token(), "it shares the hold that lived");
    let holder = watcher.lock("l").holder().await.unwrap().expect("a holder");
    assert_eq!(holder.token, guard.token(), "the server says the same");
    guard.fenced().set("written", "after").await.unwrap();
    let mut state = group.state();
    soon("connected", state.wait_for(|state| state == State::Connected)).await;
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
    for held in [guard, permit] {
        assert!(held.release().await);
    }
    group.close().await.unwrap();
    watcher.close().await.unwrap();
}

#[tokio::test]
async fn outage_beyond_the_ttl_loses_guards() {
    let fixture = Fixture::new().await;
    let group = fixture.builder().connect().await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    fixture.redis.stop().await.unwrap();
    soon("lost", guard.lost()).await;
    assert!(!guard.is_held() && !guard.held().await);
    fixture.redis.start_again().await.unwrap();
    let next = soon("the next", group.lock("l").acquire()).await.unwrap();
    assert!(next.token() > guard.token());
    assert!(!guard.is_held() && !guard.held().await, "lost is lost");
    group.close().await.unwrap();
}

/// The holder's connections are cut, and an operator breaks its lock meanwhile: the server says so when it is back.
#[tokio::test]
async fn lock_broken_while_suspended_is_lost() {
    let fixture = Fixture::new().await;
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    // A long grace, so that the lease lives through the cut.
    let grace = Duration::from_secs(4);
    let builder = |url: &str| GroupConnector::builder(url).group(&fixture.group).grace(grace);
    let (group, operator) =
        (builder(proxy.url()).connect().await.unwrap(), builder(fixture.redis.url()).connect().await.unwrap());
    let (broken, kept) = (group.lock("l").acquire().await.unwrap(), group.lock("k").acquire().await.unwrap());
    // Only who has been seen is suspended so long before its lease is over.
    eventually("the holder is seen", async || operator.status().sessions_seen == 1).await;
    proxy.refuse();
    proxy.reset(Line::Any);
    soon("suspended", broken.suspended()).await;
    assert_eq!(operator.lock("l").break_lock().await.unwrap(), 1);
    proxy.heal();
    soon("lost", broken.lost()).await;
    assert!(!broken.held().await && !broken.is_held());
    assert!(soon("the other lock is held again", kept.held()).await);
    group.close().await.unwrap();
    operator.close().await.unwrap();
}

#[tokio::test]
async fn work_is_cancelled_or_pauses_when_suspended() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let working = |lock: group_redis::Lock| {
        let begun = begun.clone();
        async move {
            lock.run(|context| async move {
                begun.fetch_add(1, Ordering::SeqCst);
                context.suspended().await;
                assert!(!context.is_held());
                // Only work that pauses comes here: the other one is dropped where it stands.
                (context.held().await, context.token())
            })
            .await
        }
    };
    let cancelled = tokio::spawn(working(group.lock("cancelled")));
    let pausing = tokio::spawn(working(group.lock("pausing").through_suspension()));
    let election = group.elect("boss");
    let terms = Arc::new(std::sync::Mutex::new(Vec::new()));
    let leading = {
        let terms = terms.clone();
        tokio::spawn(async move {
            election
                .run_as_leader(|context| {
                    let terms = terms.clone();
                    async move {
                        let terms_so_far = {
                            let mut terms = terms.lock().unwrap();
                            terms.push(context.token());
                            terms.len()
                        };
                        if terms_so_far == 1 {
                            std::future::pending::<()>().await;
                        }
                    }
                })
                .await
        })
    };
    eventually("all work has begun", async || begun.load(Ordering::SeqCst) == 2 && !terms.lock().unwrap().is_empty())
        .await;
    let dropping = async {
        let error = soon("the work is dropped", cancelled).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Suspended);
        assert!(!pausing.is_finished());
    };
    tokio::join!(fixture.redis.restart_with_data_after(OUTAGE), dropping).0.unwrap();
    let (was_held_again, _) = soon("the work goes on", pausing).await.unwrap().unwrap();
    assert!(was_held_again);
    soon("the leader works again", leading).await.unwrap().unwrap();
    let terms = terms.lock().unwrap().clone();
    assert_eq!(terms.len(), 2);
    assert_eq!(terms[0], terms[1], "in the same term");
    group.close().await.unwrap();
}

/// A process that was frozen does not know yet that its connection was closed: it says no until it has looked.
#[tokio::test]
async fn frozen_holder_whose_connection_was_closed_says_no() {
    let fixture = Fixture::new().await;
    let group = connect(&fixture).await;
    let mut holder = Locker::start(&fixture, "a", Duration::from_millis(7500)).await;
    holder.ask("ask l", "held l").await;
    let presence = fixture.key("presence/") + "*";
    let is_seen = async || !say::<Vec<String>>(&fixture, &["PUBSUB", "CHANNELS", &presence]).await.is_empty();
    eventually("others see the holder", is_seen).await;

    holder.signal("-STOP");
    say::<u64>(&fixture, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let guard = soon("the lock passes on", group.lock("l").acquire()).await.unwrap();
    holder.signal("-CONT");
    assert_eq!(holder.wait_for("answered l").await, ["false"], "held under token {} meanwhile", guard.token());
}
