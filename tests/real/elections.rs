//! Leaders: who leads, who is next, and who is told.

use std::time::Duration;

use group_redis::{ErrorKind, FencingToken, Leader, LeaderWatch};
use tokio::sync::mpsc;

use crate::locks_bad_days::{keys, say, soon};
use crate::support::{Fixture, TTL, eventually};

async fn next(watch: &mut LeaderWatch) -> Option<Leader> {
    soon("a change of the leader", watch.next()).await.expect("the connector lives")
}

fn name(leader: &Option<Leader>) -> Option<&str> {
    leader.as_ref().map(|leader| leader.member.as_str())
}

/// Every watcher is told of it once.
#[tokio::test]
async fn next_in_order_leads() {
    let fixture = Fixture::new().await;
    let (first, second, watcher) = (fixture.connect().await, fixture.connect().await, fixture.connect().await);
    let mut early = watcher.elect("boss").watch().unwrap();
    assert_eq!(next(&mut early).await, None);
    let leading = first.elect("boss").as_member("ada").campaign().await.unwrap();
    let told = next(&mut early).await.unwrap();
    assert_eq!((told.member.as_str(), told.term), ("ada", leading.term()));
    assert_eq!(watcher.elect("boss").leader().await.unwrap(), Some(told.clone()));
    let candidate = second.elect("boss").as_member("bob");
    let campaign = tokio::spawn(async move { candidate.campaign().await });
    eventually("bob is a candidate", async || {
        watcher.elect("boss").candidates().await.unwrap().iter().any(|member| *member == "bob")
    })
    .await;
    let mut late = watcher.elect("boss").watch().unwrap();
    assert_eq!(next(&mut late).await, Some(told));

    assert!(leading.is_leader() && leading.valid_for() > Duration::ZERO);
    let term = leading.term();
    assert!(leading.resign().await);
    let successor = soon("bob leads", campaign).await.unwrap().unwrap();
    assert!(successor.term() > term);
    assert_eq!(name(&next(&mut early).await), Some("bob"));
    assert_eq!(name(&next(&mut late).await), Some("bob"));
    drop(successor);
    assert_eq!(next(&mut early).await, None);
    assert_eq!(watcher.elect("other").leader().await.unwrap(), None);
}

/// A leader whose lease runs out is followed by the next and by nobody if there is none.
#[tokio::test]
async fn leader_whose_lease_expires_is_followed() {
    let fixture = Fixture::new().await;
    let (first, second, watcher) = (fixture.connect().await, fixture.connect().await, fixture.connect().await);
    let leading = first.elect("boss").as_member("ada").campaign().await.unwrap();
    let leases = keys(&fixture, &["leases/"]).await;
    let candidate = second.elect("boss").as_member("bob");
    let campaign = tokio::spawn(async move { candidate.campaign().await });
    eventually("bob is a candidate", async || !watcher.elect("boss").candidates().await.unwrap().is_empty()).await;
    let mut watch = watcher.elect("boss").watch().unwrap();
    assert_eq!(name(&next(&mut watch).await), Some("ada"));
    say::<()>(&fixture, &["DEL", &leases[0]]).await;
    let successor = soon("bob leads", campaign).await.unwrap().unwrap();
    soon("ada is told", leading.lost()).await;
    assert!(!leading.is_leader() && successor.term() > leading.term());
    assert_eq!(name(&next(&mut watch).await), Some("bob"));
    second.close().await.unwrap();
    assert_eq!(next(&mut watch).await, None);
    let refused = successor.fenced().set("x", &1).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Lost | ErrorKind::Closed), "{refused:?}");
}

/// Work is started when the lead is won and dropped when it is lost.
#[tokio::test]
async fn work_starts_and_ends_with_the_lead() {
    let fixture = Fixture::new().await;
    let (group, operator) = (fixture.connect().await, fixture.connect().await);
    let (say_term, mut terms) = mpsc::unbounded_channel::<(FencingToken, bool)>();
    struct Working(FencingToken, mpsc::UnboundedSender<(FencingToken, bool)>);
    impl Drop for Working {
        fn drop(&mut self) {
            let _ = self.1.send((self.0, false));
        }
    }
    let election = group.elect("boss");
    let running = tokio::spawn(async move {
        election
            .run_as_leader(|leader| {
                let say_term = say_term.clone();
                async move {
                    say_term.send((leader.token(), true)).unwrap();
                    let _working = Working(leader.token(), say_term);
                    std::future::pending::<()>().await;
                }
            })
            .await
    });
    let (first, began) = soon("it leads", terms.recv()).await.unwrap();
    assert!(began);
    assert_eq!(operator.lock("elections/boss").break_lock().await.unwrap(), 1);
    assert_eq!(soon("it is dropped", terms.recv()).await.unwrap(), (first, false));
    let (second, began) = soon("it leads again", terms.recv()).await.unwrap();
    assert!(began && second > first);
    // Dropped, the work ends before the lead does.
    running.abort();
    assert_eq!(soon("it is dropped", terms.recv()).await.unwrap(), (second, false));
    let next = soon("somebody else leads", operator.elect("boss").campaign()).await.unwrap();
    assert!(next.term() > second);
    drop(next);

    let election = group.elect("boss");
    let ended = soon("work that ends", election.run_as_leader(|leader| async move { leader.token() }));
    assert!(ended.await.unwrap() > second);
    eventually("it has resigned", async || operator.elect("boss").leader().await.unwrap().is_none()).await;
}

/// Leaders are known again after the links break and the server comes back empty.
#[tokio::test]
async fn leaders_are_known_after_an_empty_restart() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let (group, watcher) = (fixture.connect().await, fixture.connect().await);
    let mut watch = watcher.elect("boss").watch().unwrap();
    assert_eq!(next(&mut watch).await, None);
    let leading = group.elect("boss").as_member("ada").campaign().await.unwrap();
    assert_eq!(name(&next(&mut watch).await), Some("ada"));
    for _ in 0..5 {
        say::<()>(&fixture, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    }
    fixture.redis.restart_empty().await.unwrap();
    soon("ada is told", leading.lost()).await;
    let again = soon("ada leads again", group.elect("boss").as_member("ada").campaign()).await.unwrap();
    assert!(again.term() > leading.term(), "tokens rise although the server has forgotten them");
    loop {
        let leader = next(&mut watch).await;
        if leader.as_ref().is_some_and(|leader| leader.term == again.term()) {
            break;
        }
    }
    assert!(tokio::time::timeout(TTL, watch.next()).await.is_err(), "nothing more is told");
}

#[tokio::test]
async fn a_role_is_a_name() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let long = "r".repeat(513);
    for role in ["", &long] {
        assert_eq!(group.elect(role).campaign().await.unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(group.elect(role).watch().unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(group.elect(role).leader().await.unwrap_err().kind(), ErrorKind::InvalidName);
    }
    let leading = group.elect("a/b {x}*\n").campaign().await.unwrap();
    let mut watch = group.elect("a/b {x}*\n").watch().unwrap();
    assert_eq!(next(&mut watch).await.map(|leader| leader.term), Some(leading.term()));
}
