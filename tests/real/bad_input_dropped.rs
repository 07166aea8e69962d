//! Futures that are dropped at every await: the connector works on, and the server has one of the two states allowed.

use std::future::poll_fn;
use std::task::Poll;

use group_redis::{ErrorKind, Event, State};
use tokio::time::timeout;

use crate::bad_input::ask;
use crate::support::{Fixture, PATIENCE, Recorder, TTL, eventually};

/// Polls a future whenever it is woken, that many times, and drops it: right after the last poll or, if `woken`, when
/// it has something to do that it never gets to do.
async fn cut<F: Future>(future: F, polls: usize, woken: bool) -> Option<F::Output> {
    let (mut future, mut left) = (Box::pin(future), polls);
    let cutting = poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 && !woken => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    timeout(PATIENCE, cutting).await.expect("a future that is woken")
}

/// Runs a round for every number of polls until the future is no longer cut short.
async fn at_every_await(mut round: impl AsyncFnMut(usize, bool) -> bool) {
    for woken in [false, true] {
        let mut polls = 0;
        while !round(polls, woken).await {
            polls += 1;
            assert!(polls < 100, "it never completes");
        }
        assert!(polls > 1, "it has no await");
    }
}

#[tokio::test]
async fn dropped_calls_leave_one_of_two_states() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    let anchor = group.join("anchor").text("0").await.unwrap();
    at_every_await(async |polls, woken| {
        let me = group.join("a").await.unwrap();
        seen.wait_for_names(&["a", "anchor"]).await;
        let done = match woken {
            true => cut(me.leave(), polls, woken).await,
            false => cut(group.leave("a"), polls, woken).await,
        };
        if polls == 0 {
            assert!(watcher.sync().await.unwrap().contains("a"), "it was never polled");
            assert!(group.leave("a").await.unwrap());
        }
        seen.wait_for_names(&["anchor"]).await;
        assert_eq!(ask::<u8>(&fixture, &["EXISTS", &fixture.key("members/a")]).await, 0);
        done.is_some()
    })
    .await;
    let mut n = 0;
    at_every_await(async |polls, woken| {
        n += 1;
        anchor.update_text(format!("{n} before")).await.unwrap();
        let (old, new) = (format!("{n} before"), format!("{n} after"));
        let done = cut(anchor.update_text(&new), polls, woken).await;
        // A request that was sent is done before this one, which asks for the same member.
        anchor.add_tags([format!("{n}")]).await.unwrap();
        let text = group.member("anchor").unwrap().text().unwrap().to_owned();
        assert!(text == new || polls == 0 && text == old, "{text} after {polls} polls of {new}");
        let has = |view: &group_redis::View| view.get("anchor").is_some_and(|member| member.has_tag(&n.to_string()));
        let view = watcher.wait_for(PATIENCE, has).await.unwrap();
        assert_eq!(view.get("anchor").unwrap().text(), Some(&*text));
        done.is_some()
    })
    .await;
    at_every_await(async |polls, woken| {
        let done = cut(group.sync(), polls, woken).await;
        assert_eq!(group.sync().await.unwrap().len(), 1);
        done.is_some()
    })
    .await;
    assert_eq!(seen.read(|record| record.snapshots), 1);
}

/// Many leaves that are polled once and dropped all leave.
#[tokio::test]
async fn leave_polled_once_leaves() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    for n in 0..300 {
        group.join(format!("m-{n}")).await.unwrap();
    }
    // The documentation says: "Once polled, it leaves even if it is dropped."
    let mut leaves: Vec<_> = (0..300).map(|n| Box::pin(group.leave(format!("m-{n}")))).collect();
    poll_fn(|context| {
        for leave in &mut leaves {
            let _ = leave.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    drop(leaves);
    watcher.wait_for(PATIENCE, group_redis::View::is_empty).await.unwrap();
}

#[tokio::test]
async fn dropped_close_closes_dropped_connect_leaves_nothing() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    at_every_await(async |polls, woken| {
        let group = fixture.connect().await;
        group.join("a").await.unwrap();
        seen.wait_for_names(&["a"]).await;
        let done = cut(group.close(), polls, woken).await;
        if polls == 0 {
            assert!(group.sync().await.unwrap().contains("a"), "it was never polled");
            group.close().await.unwrap();
        }
        seen.wait_for_names(&[]).await;
        timeout(PATIENCE, group.state().wait_for(|state| state == State::Closed)).await.expect("closed");
        timeout(PATIENCE, group.close()).await.expect("an answer").unwrap();
        assert_eq!(group.sync().await.unwrap_err().kind(), ErrorKind::Closed);
        done.is_some()
    })
    .await;
    let ours = async || {
        let list: String = ask(&fixture, &["CLIENT", "LIST"]).await;
        list.lines().count()
    };
    // The watcher's two, and the one that asks.
    eventually("only the watcher is connected", async || ours().await == 3).await;
    at_every_await(async |polls, woken| {
        let done = cut(fixture.builder().ttl(TTL).connect(), polls, woken).await;
        let completed = done.is_some();
        drop(done);
        eventually("the connections are gone", async || ours().await == 3).await;
        let leases: Vec<String> = ask(&fixture, &["ZRANGE", &fixture.key("leases"), "0", "-1"]).await;
        assert!(leases.is_empty(), "{leases:?}");
        completed
    })
    .await;
    assert_eq!(watcher.sync().await.unwrap().len(), 0);
    assert_eq!(watcher.status().reconnects, 0);
}

#[tokio::test]
async fn a_dropped_next_loses_no_event() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let mut events = watcher.events();
    let Some(Event::Snapshot(first)) = events.next().await else { panic!("the first event is a snapshot") };
    assert!(first.is_empty());
    let (mut joined, mut cuts) = (0, 0);
    for n in 0..60 {
        let joining = tokio::spawn(std::future::IntoFuture::into_future(group.join(format!("m-{n}"))));
        match cut(events.next(), n % 3, n % 2 == 1).await {
            Some(Some(Event::Joined(member))) => {
                assert_eq!(member.id(), &*format!("m-{joined}"), "none is missing, none comes twice");
                joined += 1;
            }
            Some(other) => panic!("{other:?}"),
            None => cuts += 1,
        }
        joining.await.unwrap().unwrap();
    }
    assert!(joined > 0 && cuts > 0, "{joined} {cuts}");
    while joined < 60 {
        let Event::Joined(member) = timeout(PATIENCE, events.next()).await.expect("an event").unwrap() else {
            panic!("only joins")
        };
        assert_eq!(member.id(), &*format!("m-{joined}"));
        joined += 1;
    }
    assert_eq!(watcher.sync().await.unwrap().len(), 60);
}
