//! Locks between connectors of one process: what each call answers, and in which order.

use std::time::Duration;

use group_redis::LockGuard;

use crate::support::{Fixture, PATIENCE};

/// The calls and answers of the Clojure library, one by one.
#[tokio::test]
async fn named_locks_answer_as_the_original() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let locks = group.locks();
    assert!(locks.lock("lock1").await.unwrap());
    assert!(!locks.lock("lock1").await.unwrap());
    assert!(!locks.release_as("another-member", "lock1").await.unwrap());
    assert!(locks.release("lock1").await.unwrap());
    assert!(!locks.release("lock1").await.unwrap());
    assert!(locks.reentrant_lock("lock2").await.unwrap());
    assert!(locks.reentrant_lock("lock2").await.unwrap());
    assert!(!locks.reentrant_lock_as("another-member", "lock2").await.unwrap());
    assert!(!locks.lock_as("another-member", "lock2").await.unwrap());
    assert!(locks.release("lock2").await.unwrap());
    assert!(!locks.release("lock2").await.unwrap());
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

#[tokio::test]
async fn lock_is_handed_on_in_order() {
    let fixture = Fixture::new().await;
    let first = fixture.connect().await;
    let guard = first.lock("a/b c").acquire().await.unwrap();
    assert!(guard.is_held() && guard.valid_for() > Duration::ZERO);
    let mut waiting = Vec::new();
    let mut groups = Vec::new();
    for number in 0..5 {
        let group = fixture.connect().await;
        let lock = group.lock("a/b c").as_member(format!("waiter {number}"));
        let acquiring = lock.clone();
        waiting.push(tokio::spawn(async move { acquiring.acquire().await }));
        crate::support::eventually("it stands in the queue", async || {
            lock.waiters().await.unwrap().len() == number + 1
        })
        .await;
        groups.push(group);
    }
    assert!(first.lock("a/b c").try_acquire().await.unwrap().is_none());
    let mut token = guard.token();
    assert!(guard.release().await);
    for (number, waiting) in waiting.into_iter().enumerate() {
        let guard: LockGuard = soon("the next has it", waiting).await.unwrap().unwrap();
        assert_eq!(guard.member(), &format!("waiter {number}").as_str());
        assert!(guard.token() > token);
        token = guard.token();
        let holder = groups[number].lock("a/b c").holder().await.unwrap().unwrap();
        assert_eq!((holder.token, holder.member.as_str()), (token, format!("waiter {number}").as_str()));
        assert!(guard.release().await);
    }
    assert_eq!(first.lock("a/b c").holder().await.unwrap(), None);
}
