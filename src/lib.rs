//! Instances of a service that share a Redis join a group, see each other join, leave and crash as it happens, and
//! read who is there from memory.
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
//! # How it works
//! Redis keyspace notifications say that something happened to a member's key. They are hints: one read says what is
//! there now, a state machine says what has changed, and a cache and a stream of events say it to you. A connector
//! with members holds one lease, which one small script renews; when it runs out, whoever looks first takes its
//! members out of the group, and everybody is told at once. A reconciliation at every ttl is the fallback.
//!
//! # What is guaranteed, and what is not
//! - When faults stop, every view equals the server's members within the ttl, or the backoff cap where that is longer,
//!   and 250 ms.
//! - A process that dies is reported within its ttl and 50 ms (p99), whatever else the server holds.
//! - Nobody is reported to have left whose heartbeats reach Redis with gaps shorter than the ttl.
//! - The [`Event`]s fold to exactly the [`View`].
//! - A connector that cannot reach Redis says so ([`State`]), and says [`State::Lost`] before others may take over.
//! - It is as available as the one Redis that it uses, and a failover to a replica that lags behind can undo a join.
//! - A membership is not mutual exclusion: where two must not act at once, let the resource check the
//!   [`Incarnation`], which rises with every join.
//!
//! # Where to begin
//! [`GroupConnector`] connects, joins and watches; [`Membership`] is what a join answers; [`View`] is who is there;
//! [`Events`] is what happens. `docs/ARCHITECTURE.md` shows how the crate is made, `docs/PROTOCOL.md` what stands in
//! Redis.
//!
//! # Features
//! `tls` for `rediss://` URLs. `testing` for tests: a throw-away Redis server, and a proxy (`FaultProxy`) that breaks the
//! connections to one. None is on by default.

mod backoff;
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

pub use cache::{Event, Events, MemberChange, MemberChanges, State, StateWatch, View};
pub use connector::{GroupConnector, GroupConnectorBuilder, Status};
pub use data::{DataValue, Ephemeral, MAX_VALUE, Persistent, Watch, WatchEvent};
pub use error::{Error, ErrorKind};
pub use lock::{
    Election, Fenced, Leader, LeaderWatch, Leadership, Lock, LockContext, LockGuard, LockHolder, LockWaiter, NamedLocks,
};
pub use membership::{Join, Membership};
pub use model::{FencingToken, Incarnation, LeaveCause, MAX_METADATA, Member, MemberId, Revision};
pub use redis;
pub use settings::{EventSource, Heartbeats, Notifications, OnConflict, OnLost};

/// The README's code is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
