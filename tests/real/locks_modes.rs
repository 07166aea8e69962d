//! Locks that are shared: by guards of one member, by readers, by the holders of permits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use group_redis::{ErrorKind, LockGuard};

use crate::locker::Locker;
use crate::locks_bad_days::{enqueue, nothing_is_left, queue, soon};
use crate::support::{Fixture, TTL, eventually};

#[tokio::test]
async fn reentrant_guards_share_one_hold() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let mine = group.lock("x").as_member("me").reentrant();
    let first = mine.acquire().await.unwrap();
    let second = soon("it is mine already", mine.acquire()).await.unwrap();
    let third = mine.try_acquire().await.unwrap().expect("it is mine already");
    assert!(first.token() == second.token() && second.token() == third.token());

    let other = group.lock("x").as_member("other").reentrant();
    assert!(other.try_acquire().await.unwrap().is_none(), "reentrant for one member only");
    assert!(group.lock("x").as_member("me").try_acquire().await.unwrap().is_none(), "who does not say so is refused");
    let waiting = enqueue(&other, 1).await;
    assert!(first.release().await);
    drop(second);
    assert_eq!(other.holder().await.unwrap().unwrap().token, third.token(), "one guard is enough to hold it");
    assert_eq!(queue(&fixture, "x").await.len(), 1);
    let token = third.token();
    assert!(third.release().await);
    let guard = soon("the other member has it", waiting).await.unwrap().unwrap();
    assert!(guard.token() > token);
    drop(guard);
    nothing_is_left(&fixture).await;
    assert!(mine.acquire().await.unwrap().token() > token, "a new hold is a new token");
}

/// Two first acquisitions of one member share one place in the queue, and one hold.
#[tokio::test]
async fn concurrent_reentrant_acquisitions_share_one_hold() {
    let fixture = Fixture::new().await;
    let (holder, group) = (fixture.connect().await, fixture.connect().await);
    let guard = holder.lock("x").acquire().await.unwrap();
    let mine = group.lock("x").reentrant();
    let first = enqueue(&mine, 1).await;
    let acquiring = mine.clone();
    let second = tokio::spawn(async move { acquiring.acquire().await });
    guard.release().await;
    let first = soon("the first has it", first).await.unwrap().unwrap();
    let second = soon("the second has it too", second).await.unwrap().unwrap();
    assert_eq!(first.token(), second.token());
    assert_eq!(mine.holders().await.unwrap().len(), 1);
    assert!(first.release().await && second.release().await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn acquirer_that_gives_up_blocks_nobody() {
    let fixture = Fixture::new().await;
    let (holder, group) = (fixture.connect().await, fixture.connect().await);
    let guard = holder.lock("x").acquire().await.unwrap();
    let mine = group.lock("x").reentrant();
    let first = enqueue(&mine, 1).await;
    assert!(mine.acquire_timeout(Duration::from_millis(100)).await.unwrap().is_none(), "it stood at the gate");
    let acquiring = mine.clone();
    let second = tokio::spawn(async move { acquiring.acquire().await });
    first.abort();
    eventually("the first to be gone", async || first.is_finished()).await;
    eventually("the second to wait", async || queue(&fixture, "x").await.len() == 1).await;
    guard.release().await;
    assert!(soon("the second has it", second).await.unwrap().unwrap().release().await);
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn a_waiting_writer_keeps_later_readers_out() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.connect().await, fixture.connect().await);
    let mut readers = Vec::new();
    for number in 0..10 {
        let group = if number % 2 == 0 { &one } else { &two };
        readers.push(soon("a reader among readers", group.lock("x").read().acquire()).await.unwrap());
    }
    let mut tokens: Vec<_> = readers.iter().map(LockGuard::token).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 10, "each has a token of its own");
    assert!(one.lock("x").try_acquire().await.unwrap().is_none(), "no writer beside readers");
    let writer = enqueue(&one.lock("x"), 1).await;
    assert!(two.lock("x").read().try_acquire().await.unwrap().is_none(), "the writer was first");
    let (late, later) = (enqueue(&two.lock("x").read(), 2).await, enqueue(&one.lock("x").read(), 3).await);
    let shares: Vec<_> = one.lock("x").waiters().await.unwrap().into_iter().map(|waiter| waiter.shares).collect();
    assert_eq!(shares, [false, true, true]);
    let last = readers.pop().unwrap();
    for reader in readers {
        assert!(reader.release().await);
    }
    assert_eq!(one.lock("x").holders().await.unwrap().len(), 1);
    assert_eq!(queue(&fixture, "x").await.len(), 3, "not before the last reader has gone");
    assert!(last.release().await);
    let writer = soon("the writer has it", writer).await.unwrap().unwrap();
    assert_eq!(queue(&fixture, "x").await.len(), 2, "the readers wait for the writer");
    assert!(writer.release().await);
    let late = soon("the reader has it", late).await.unwrap().unwrap();
    let later = soon("both readers have it", later).await.unwrap().unwrap();
    assert!(late.is_held() && later.is_held());
    drop((late, later));
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn readers_do_not_starve_a_writer() {
    let fixture = Fixture::new().await;
    let (readers, writers) = (fixture.connect().await, fixture.connect().await);
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (lock, stop, reads) = (readers.lock("x").read(), stop.clone(), reads.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let guard = lock.acquire().await.unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(3)).await;
                guard.release().await;
            }
        }));
    }
    let write = writers.lock("x");
    for round in 1..=10 {
        eventually("it is read", async || reads.load(Ordering::Relaxed) > round * 8).await;
        soon("the writer has it", write.acquire()).await.unwrap().release().await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        soon("a reader ends", task).await.unwrap();
    }
    nothing_is_left(&fixture).await;
}

/// A dead writer at the head of the queue keeps no reader out.
#[tokio::test]
async fn dead_writer_blocks_no_reader() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let reader = group.lock("x").read().acquire().await.unwrap();
    let mut writer = Locker::start(&fixture, "writer", TTL).await;
    writer.say("wait x 1");
    eventually("the writer waits", async || queue(&fixture, "x").await.len() == 1).await;
    let second = enqueue(&group.lock("x").read(), 2).await;
    writer.signal("-KILL");
    let second = soon("the reader has it beside the first", second).await.unwrap().unwrap();
    assert!(reader.is_held() && second.is_held());
    drop((reader, second));
    nothing_is_left(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_permits_are_never_four_holders() {
    let fixture = Fixture::new().await;
    let groups = [fixture.connect().await, fixture.connect().await];
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for task in 0..20 {
        let (semaphore, now, most) = (groups[task % 2].semaphore("s", 3), now.clone(), most.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                let guard = semaphore.acquire().await.unwrap();
                let holders = now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(holders, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(guard.is_held());
                now.fetch_sub(1, Ordering::SeqCst);
                assert!(guard.release().await);
            }
        }));
    }
    for task in tasks {
        soon("twenty rounds", task).await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3, "no more than three, and all three are used");
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn permit_of_a_killed_process_returns() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let mut worker = Locker::start(&fixture, "w", TTL).await;
    worker.ask("permit s 3", "held s").await;
    let semaphore = group.semaphore("s", 3);
    let guards = [semaphore.acquire().await.unwrap(), semaphore.acquire().await.unwrap()];
    assert!(semaphore.try_acquire().await.unwrap().is_none());
    assert!(group.lock("s").try_acquire().await.unwrap().is_none(), "not beside permits");
    let waiting = enqueue(&semaphore, 1).await;
    worker.signal("-KILL");
    let third = soon("its permit", waiting).await.unwrap().unwrap();
    assert_eq!(semaphore.holders().await.unwrap().len(), 3);
    drop((guards, third));
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn zero_permits_are_refused_before_any_io() {
    let fixture = Fixture::new().await;
    fixture.redis.stop().await.unwrap();
    let group = fixture.builder().connect_lazy().unwrap();
    let error = group.semaphore("s", 0).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("\"s\""), "{error}");
}
