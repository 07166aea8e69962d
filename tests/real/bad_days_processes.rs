//! What goes wrong with processes: they are killed, leave, freeze, or make no progress.

use group_redis::{GroupConnector, LeaveCause};

use crate::bad_days::lease;
use crate::support::{Fixture, Recorder, TTL, eventually};
use crate::worker::Worker;

#[tokio::test]
async fn killed_process_expires_with_its_lease() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    let worker = Worker::start(&fixture, "w", TTL, 1, 3).await;
    seen.wait_for_names(&["w-0", "w-1", "w-2"]).await;
    worker.signal("-KILL");
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("w-1")), Some(LeaveCause::Expired));
    let mut connection = fixture.connection().await;
    for key in ["members", "leases"] {
        let left: u64 = redis::cmd("ZCARD").arg(fixture.key(key)).query_async(&mut connection).await.unwrap();
        assert_eq!(left, 0, "{key} has been swept");
    }
}

#[tokio::test]
async fn leave_of_a_process_is_seen() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    let mut worker = Worker::start(&fixture, "w", TTL, 1, 1).await;
    seen.wait_for_names(&["w"]).await;
    worker.leave();
    worker.wait_for("left").await;
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("w")), Some(LeaveCause::Left));
}

/// It is told of the loss, and comes back as another incarnation.
#[tokio::test]
async fn process_frozen_past_its_ttl_rejoins() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    let mut worker = Worker::start(&fixture, "w", TTL, 1, 1).await;
    seen.wait_for_names(&["w"]).await;
    let first = watcher.member("w").unwrap().incarnation();
    worker.signal("-STOP");
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("w")), Some(LeaveCause::Expired));
    worker.signal("-CONT");
    worker.wait_for("lost w expired").await;
    worker.wait_for("held w").await;
    seen.wait_for_names(&["w"]).await;
    assert!(watcher.member("w").unwrap().incarnation() > first);
}

#[tokio::test]
async fn process_frozen_within_its_ttl_stays() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    let worker = Worker::start(&fixture, "w", TTL * 4, 1, 1).await;
    seen.wait_for_names(&["w"]).await;
    let first = watcher.member("w").unwrap().incarnation();
    worker.signal("-STOP");
    // Seen from the server: half the lease has run out.
    let mut connection = fixture.connection().await;
    let session = lease(&fixture, &mut connection).await;
    let mut left = async || redis::cmd("PTTL").arg(&session).query_async::<i64>(&mut connection).await.unwrap();
    eventually("half the lease to run out", async || left().await < 2000).await;
    worker.signal("-CONT");
    eventually("a heartbeat", async || left().await > 3500).await;
    assert_eq!(watcher.sync().await.unwrap().get("w").unwrap().incarnation(), first);
    assert_eq!(seen.read(|record| record.leaves), 0, "{}", seen.history());
}

#[tokio::test]
async fn busy_runtime_keeps_membership_hung_loses_it() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    let url = fixture.redis.url().to_owned();
    let group = fixture.group.clone();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let hung = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let builder = GroupConnector::builder(url).group(group).ttl(TTL).stall_tolerance(TTL * 3);
            let group = builder.connect().await.unwrap();
            let me = group.join("hung").await.unwrap();
            // From here on the runtime makes no progress at all.
            let _ = held.recv();
            me.lost().await;
            me.held().await.unwrap();
            told.await.unwrap();
            group.close().await.unwrap();
        });
    });
    seen.wait_for_names(&["hung"]).await;
    seen.wait_for_names(&[]).await;
    let lived = seen.read(|record| {
        let at = |wanted: fn(&crate::support::Told) -> bool| {
            record.told.iter().find(|(_, told)| wanted(told)).map(|(at, _)| *at).expect("told")
        };
        at(|told| matches!(told, crate::support::Told::Left(..)))
            - at(|told| matches!(told, crate::support::Told::Joined(_)))
    });
    assert!(lived > TTL * 3, "it lived on its heartbeats for the tolerance, not for one ttl: {lived:?}");
    drop(hold);
    seen.wait_for_names(&["hung"]).await;
    tell.send(()).unwrap();
    seen.wait_for_names(&[]).await;
    hung.join().unwrap();
}
