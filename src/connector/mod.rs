//! The public face: a connector to one group.

mod builder;
mod status;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Client;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

pub use builder::GroupConnectorBuilder;
use builder::Server;
pub use status::Status;

use crate::cache::Events;
use crate::cache::{State, StateWatch};
use crate::cache::{View, ViewReader};
use crate::clock;
use crate::data::{DataAccess, Ephemeral, Persistent};
use crate::engine::{Caller, LinkReport};
use crate::error::{Error, ErrorKind};
use crate::lock::Election;
use crate::lock::{Lock, Locks, NamedLocks};
use crate::membership::Join;
use crate::model::{Member, MemberId};
use crate::proto::Request;
use crate::settings::{CallTimeout, Config};

/// A connector to one group. It joins the group, watches it, and reads its members from memory.
///
/// A clone is the same connector. It has one task and two connections, and a third one for heartbeats as soon as it
/// has a member, a lock or a value. A connector that only watches has no lease.
///
/// # The runtime that it lives on
/// Its tasks run on the tokio runtime on which it was made, by [`connect`](GroupConnectorBuilder::connect) or
/// [`connect_lazy`](GroupConnectorBuilder::connect_lazy). It may be used from any other, and from any thread, as long as
/// that one is running: a connector in a `static` needs a runtime that lives as long. A runtime of the current thread
/// runs only within its `block_on`.
///
/// When that runtime ends, or the connector's task panics, the connector is [`Closed`](State::Closed) at once: its calls
/// and streams end with [`ErrorKind::Closed`], its guards and memberships say that they are lost, and its views say by
/// their state that they are the last. Nothing can be given back any more, and no heartbeat is sent: what it held ends
/// as that of a process that has died. [`status`](Self::status) says why.
///
/// # Dropping it is not immediate
/// When the last clone is dropped the members are given back in the background, if the runtime lives on. Call
/// [`close`](Self::close) before a process exits: otherwise its members stay until presence or the ttl ends them.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), group_redis::Error> {
/// use group_redis::GroupConnector;
///
/// let group = GroupConnector::builder("redis://127.0.0.1/").group("workers").connect().await?;
/// let me = group.join("worker-1").await?;
/// assert!(group.members().contains("worker-1"));
/// me.leave().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GroupConnector {
    pub(crate) inner: Arc<Inner>,
    timeout: CallTimeout,
}

/// What the clones of a connector share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) caller: Caller,
    /// The server's address and database, as errors say it.
    pub(crate) server: Arc<str>,
    pub(crate) view: ViewReader,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) link: watch::Receiver<LinkReport>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) data: Arc<DataAccess>,
    pub(crate) tracker: TaskTracker,
    pub(crate) _shutdown: DropGuard,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.locks.let_go();
    }
}

impl GroupConnector {
    pub(crate) fn new(inner: Inner) -> Self {
        let timeout = inner.config.request_timeout().into();
        Self { inner: Arc::new(inner), timeout }
    }

    /// Begins with a URL: `redis://`, `redis+sentinel://host,host/master`, `redis+cluster://` (each with `rediss` for TLS,
    /// feature `tls`) or `redis+unix://`, with user, password and database where needed. It is checked when connecting.
    ///
    /// A URL of one node of a cluster leads to the node that serves the group. A replica is refused, unless
    /// [`follow_replica`](GroupConnectorBuilder::follow_replica) is set.
    ///
    /// The default group is `default-group`.
    pub fn builder(url: impl Into<String>) -> GroupConnectorBuilder {
        GroupConnectorBuilder::new(Server::Url(url.into()))
    }

    /// Begins with the URL in the environment variable `REDIS_URL`.
    pub fn from_env() -> GroupConnectorBuilder {
        GroupConnectorBuilder::new(Server::Environment)
    }

    /// Begins with a client of the [redis](crate::redis) crate, for what a URL cannot say.
    ///
    /// Only its address and credentials are used: the connections are the connector's own.
    pub fn from_client(client: Client) -> GroupConnectorBuilder {
        GroupConnectorBuilder::new(Server::Client(Box::new(client)))
    }

    /// The same connector, whose calls may take so long, from 1 ms to 1 h. What it makes keeps that timeout: joins and
    /// memberships, locks and guards, elections and data; most of them can be given another one.
    ///
    /// By default a call may take the connect timeout and the command timeout together, 3 s: time for a new link and for
    /// one answer. A longer timeout waits through longer outages. Calls that may be made twice are sent again over each
    /// new link; a write of persistent data, a fenced write and [`break_lock`](Lock::break_lock) are sent once, and wait
    /// for that answer. At the end of it a call fails with [`ErrorKind::Timeout`], and
    /// [`Error::is_unapplied`] is `true` if it was never sent: then it has changed nothing, and will not.
    ///
    /// It does not concern calls that wait as long as it takes, such as [`Lock::acquire`], or that have a limit of their
    /// own, such as [`wait_for`](Self::wait_for). A timeout out of range is refused by the calls, before any I/O, with
    /// [`ErrorKind::Config`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// use std::time::Duration;
    ///
    /// let patient = group.timeout(Duration::from_secs(30));
    /// let me = patient.join("worker-1").await?;
    /// patient.persistent().set("limits/burst", &10).await?;
    /// let holder = group.lock("nightly-report").timeout(Duration::from_millis(200)).holder().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        Self { inner: self.inner.clone(), timeout: CallTimeout::given(timeout) }
    }

    /// Joins the group under this name. Await the answer for a [`Membership`](crate::Membership), or give it
    /// metadata and tags before.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// let me = group.join("worker-1").metadata(&("10.0.0.7", 8080)).tag("blue").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self, name: impl AsRef<str>) -> Join {
        Join::new(self.inner.data.direct().clone(), MemberId::new(name), self.timeout.clone())
    }

    /// Joins the group under the name of this host.
    pub fn join_as_host(&self) -> Join {
        self.join(gethostname::gethostname().to_string_lossy())
    }

    /// Takes the member of that name out of the group, if it belongs to this connector. Answers whether it did.
    ///
    /// One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] before any I/O; otherwise as for [`Membership::leave`](crate::Membership::leave).
    ///
    /// # Cancel safety
    /// Once polled, it leaves even if it is dropped.
    pub async fn leave(&self, name: impl AsRef<str>) -> Result<bool, Error> {
        self.inner.caller.leave(MemberId::new(name)?, self.timeout.limit()?).await
    }

    /// The lock of that name. This makes no call to the server: acquire the lock to hold it.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// if let Some(guard) = group.lock("nightly-report").try_acquire().await? {
    ///     println!("ours, under token {}", guard.token());
    ///     guard.release().await;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(&self, name: impl AsRef<str>) -> Lock {
        Lock::new(self.inner.locks.clone(), name.as_ref(), &self.timeout)
    }

    /// The semaphore of that name: a lock that up to `permits` holders share. Use the same number everywhere.
    pub fn semaphore(&self, name: impl AsRef<str>, permits: u32) -> Lock {
        Lock::semaphore(self.inner.locks.clone(), name.as_ref(), &self.timeout, permits)
    }

    /// Locks by name, without guards.
    pub fn locks(&self) -> NamedLocks {
        NamedLocks::new(self.inner.locks.clone(), self.timeout.clone())
    }

    /// Ephemeral data: values that die with this connector, at the latest.
    pub fn ephemeral(&self) -> Ephemeral {
        Ephemeral::new(self.inner.data.clone(), self.timeout.clone())
    }

    /// Persistent data: values that stay.
    pub fn persistent(&self) -> Persistent {
        Persistent::new(self.inner.data.clone(), self.timeout.clone())
    }

    /// The election of a leader for this role. This makes no call to the server: campaign, or watch.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// let leadership = group.elect("scheduler").campaign().await?;
    /// println!("we lead, in term {}", leadership.term());
    /// leadership.resign().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn elect(&self, role: impl AsRef<str>) -> Election {
        Election::new(self.inner.data.clone(), self.inner.locks.clone(), role.as_ref(), &self.timeout)
    }

    /// The members of the group, as this connector knows them at this moment. It costs one atomic load at any size of
    /// the group: no round trip, no lock.
    #[must_use]
    pub fn members(&self) -> Arc<View> {
        self.inner.view.load()
    }

    /// The member of that name, looked up in a concurrent map. No round trip.
    ///
    /// To read several members as of one moment, or to see whether the view is old, use [`members`](Self::members).
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Arc<Member>> {
        self.inner.view.member(name)
    }

    /// A view that is at least as new as this call. It costs one round trip if this connector has missed no change,
    /// and a few if it has.
    ///
    /// A member whose lease runs out at this very moment may still be in the view, and leave a few milliseconds later.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server cannot be asked in time; [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn sync(&self) -> Result<Arc<View>, Error> {
        self.inner.caller.call(Request::Sync, self.timeout.limit()?).await?;
        Ok(self.members())
    }

    /// Waits until the view meets the condition, and answers that view. No round trip: it checks each view once, but not
    /// the last one of a closed connector.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if no view met it within `limit`; [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) -> Result<(), group_redis::Error> {
    /// let three = group.wait_for(std::time::Duration::from_secs(5), |view| view.len() == 3).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for(&self, limit: Duration, condition: impl FnMut(&View) -> bool) -> Result<Arc<View>, Error> {
        match tokio::time::timeout(limit, self.inner.view.wait_for(condition)).await {
            Ok(Some(view)) => Ok(view),
            Ok(None) => Err(Error::closed()),
            Err(_) => {
                let count = self.members().len();
                let message = format!("the group did not meet the condition within {limit:?}, it has {count} members");
                let error = Error::new(ErrorKind::Timeout, message).cured_by("wait longer, or see who is missing");
                Err(error.because(self.inner.link.borrow().error.as_ref()).at(&self.inner.server))
            }
        }
    }

    /// The events of the group, from a snapshot on. There may be any number of subscribers; none slows another down.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(group: group_redis::GroupConnector) {
    /// use group_redis::Event;
    ///
    /// let mut events = group.events();
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         Event::Joined(member) => println!("{} joined", member.id()),
    ///         Event::Left { member, cause } => println!("{} {cause}", member.id()),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        self.inner.view.events()
    }

    /// Follows the state of the connector's link to its Redis.
    #[must_use]
    pub fn state(&self) -> StateWatch {
        StateWatch::new(self.inner.state.clone())
    }

    /// The state of this connector, for operators. No I/O.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(group: group_redis::GroupConnector) {
    /// let status = group.status();
    /// println!("{}, served by {}, {} reconnects", status.state, status.source, status.reconnects);
    /// if let Some(reason) = status.source_reason {
    ///     println!("the wanted source does not serve: {reason}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        let link = self.inner.link.borrow();
        let source = &link.source;
        Status {
            state: *self.inner.state.borrow(),
            source: source.source,
            source_since: source.since.map(clock::instant),
            source_reason: source.reason.clone(),
            notifications_arrive: source.is_proven,
            grants_arrive: source.inbox_works,
            last_canary: source.canary_at.map(clock::instant),
            round_trip: source.round_trip,
            event_lag: source.event_lag,
            sweep_lag: source.sweep_lag,
            sessions_seen: link.seen,
            reconnects: link.reconnects,
            error: link.error.as_ref().or(link.heartbeat.as_ref()).cloned(),
        }
    }

    /// Gives everything back in one script, and waits until every task of the connector has ended.
    ///
    /// Calling it again, also from another clone, does nothing more.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server could not be reached: the connector is closed all the same, and its
    /// members expire with the lease. [`ErrorKind::Closed`] if the runtime that it was made on had ended before: nothing
    /// was given back.
    ///
    /// # Cancel safety
    /// Once polled, the connector closes even if it is dropped.
    pub async fn close(&self) -> Result<(), Error> {
        let closed = match self.inner.caller.release(Request::Close, self.timeout.limit()?).await {
            Err(error) if error.kind() == ErrorKind::Closed => self.ended(),
            answer => answer.map(drop),
        };
        self.inner.tracker.wait().await;
        closed
    }
}

impl GroupConnector {
    /// An error if the connector has ended without being closed.
    fn ended(&self) -> Result<(), Error> {
        let error = self.inner.link.borrow().error.clone();
        error.filter(|error| error.kind() == ErrorKind::Closed).map_or(Ok(()), Err)
    }
}

impl fmt::Debug for GroupConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConnector")
            .field("namespace", &self.inner.config.namespace)
            .field("group", &self.inner.config.group)
            .field("state", &*self.inner.state.borrow())
            .finish_non_exhaustive()
    }
}
