//! Instances of a service that share a Redis join a group, see each other join, leave and crash within milliseconds, hold
//! locks, keep data that dies with its owner, and elect a leader.
//!
//! ```no_run
//! use group_redis::{Error, Event, GroupConnector};
//!
//! # async fn example() -> Result<(), Error> {
//! let group = GroupConnector::builder("redis://127.0.0.1/").group("workers").connect().await?;
//! let me = group.join("worker-1").metadata(&("10.0.0.7", 8080)).tag("blue").await?;
//!
//! println!("the oldest is {:?}", group.members().oldest());
//! let mut events = group.events();
//! while let Some(event) = events.next().await {
//!     if let Event::Left { member, cause } = event {
//!         println!("{} is gone: {cause}", member.id());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it offers
//! | you want to | use |
//! |---|---|
//! | join, leave, carry metadata and tags | [`GroupConnector::join`], which answers a [`Membership`] |
//! | read the members from memory | [`GroupConnector::members`], which answers a [`View`] |
//! | follow joins, updates and leaves | [`GroupConnector::events`], a stream of [`Event`]s |
//! | hold a lock, a shared lock, a permit of a semaphore | [`GroupConnector::lock`], [`GroupConnector::semaphore`]: a [`LockGuard`] |
//! | lead | [`GroupConnector::elect`]: a [`Leadership`] |
//! | keep data that dies with its owner | [`GroupConnector::ephemeral`]: [`Ephemeral`], with [`Watch`] |
//! | keep data that stays | [`GroupConnector::persistent`]: [`Persistent`] |
//! | write only while you hold a lock | [`LockGuard::fenced`]: [`Fenced`] |
//! | know how the connector is doing | [`GroupConnector::state`], [`GroupConnector::status`] |
//!
//! # How it works
//! A connector with members, locks or values holds one lease, which one small script renews. Keyspace notifications say that a
//! key may have changed. They are hints: one read says what is there now, a state machine says what has changed, and a cache
//! and a stream of events tell it to you. When a lease runs out, the first connector that checks it takes its members out of
//! the group, hands its locks on, and deletes its values; every watcher is told at once. When a process ends, its connections
//! close, and its lease is shortened to its grace. A reconciliation at every ttl is the fallback.
//!
//! # What it guarantees, and what it does not
//! - When faults stop, every view equals the server's members within the ttl, or the backoff cap where that is longer,
//!   and 250 ms.
//! - A process that is killed is reported after its [grace](GroupConnectorBuilder::grace) and a few milliseconds. One that is
//!   frozen or cut off is reported within its ttl and 50 ms (p99), whatever else the server holds.
//! - A member whose heartbeats reach Redis with gaps shorter than the ttl is not reported to have left.
//! - The [`Event`]s fold to exactly the [`View`].
//! - A guard, a leadership and a membership stop saying that they are held before another session may take over.
//! - A lock goes to the waiter that asked first. Each grant has a higher [`FencingToken`] than all before it, and each join a
//!   higher [`Incarnation`].
//! - The group is as available as the one Redis that it uses. A failover to a replica that lags behind can undo a join or a
//!   grant.
//! - Neither a lock nor a membership is mutual exclusion by itself: where two writers do harm, let the resource check the
//!   token.
//!
//! `docs/GUARANTEES.md` says it in full, `docs/ARCHITECTURE.md` how the crate is built, and `docs/PROTOCOL.md` what stands in
//! Redis.
//!
//! # Features
//! `tls` for `rediss://` URLs. `testing` for tests: a throw-away Redis server, and a proxy (`FaultProxy`) that breaks the
//! connections to one. None is on by default.

mod backoff;
#[cfg(group_redis_bench)]
#[doc(hidden)]
pub mod bench;
mod cache;
mod clock;
mod connector;
mod data;
mod engine;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod lock;
mod membership;
mod model;
mod mutant;
mod proto;
mod scripts;
mod settings;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod wire;

pub use cache::{Event, Events, MemberChange, MemberChanges, State, StateWatch, View, ViewIter};
pub use connector::{GroupConnector, GroupConnectorBuilder, Status};
pub use data::{DataValue, Ephemeral, MAX_VALUE, Persistent, Watch, WatchEvent};
pub use error::{Error, ErrorKind};
pub use lock::{
    Election, Fenced, Leader, LeaderWatch, Leadership, Lock, LockContext, LockGuard, LockHolder, LockWaiter, NamedLocks,
};
pub use membership::{Join, Membership};
pub use model::{FencingToken, Incarnation, LeaveCause, MAX_METADATA, Member, MemberId, Revision};
pub use redis;
pub use settings::{Credentials, EventSource, Heartbeats, Notifications, OnConflict, OnLost, Replication, Tls};

/// The code of the documents is compiled with the documentation tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/GUARANTEES.md")]
    struct Guarantees;

    #[doc = include_str!("../docs/SETTINGS.md")]
    struct Settings;

    #[doc = include_str!("../docs/SECURITY-ACL.md")]
    struct SecurityAcl;

    #[doc = include_str!("../docs/FROM-CLOJURE.md")]
    struct FromClojure;
}
