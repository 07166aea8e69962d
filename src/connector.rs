//! The public face: a connector to one group, and its builder.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Client, IntoConnectionInfo};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::{self, Config, EventSource, Heartbeats, Notifications, OnConflict, OnLost};
use crate::data::{Ephemeral, Persistent, Stall, shelf};
use crate::direct::Direct;
use crate::driver::{Caller, Driver, LinkReport, Publish};
use crate::election::Election;
use crate::error::{Error, ErrorKind};
use crate::events::Events;
use crate::lock::{Holds, Lock, Locks, NamedLocks};
use crate::member::{Member, MemberId};
use crate::membership::Join;
use crate::proto::Request;
use crate::state::{State, StateWatch};
use crate::transport::{Dialer, Keeper, Letterbox};
use crate::view::{View, ViewReader, view};

/// A connector to one group: joins it, watches it, and answers who is in it from memory.
///
/// A clone is the same connector. It has one task and two connections, and a third one for heartbeats as soon as it
/// has a member: who only watches holds no lease.
///
/// # Dropping it is not immediate
/// When the last clone is dropped the members are given back in the background, if the runtime lives on. Where that
/// matters, before a process exits for instance, call [`close`](Self::close); else the lease has to run out.
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
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    caller: Caller,
    view: ViewReader,
    state: watch::Receiver<State>,
    link: watch::Receiver<LinkReport>,
    locks: Arc<Locks>,
    stall: Arc<Stall>,
    tracker: TaskTracker,
    _shutdown: DropGuard,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.locks.let_go();
    }
}

impl GroupConnector {
    /// Begins with a URL: `redis://`, `rediss://` (feature `tls`) or `redis+unix://`, with user, password and
    /// database where needed. It is checked when connecting.
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
        Join::new(self.inner.caller.clone(), MemberId::new(name))
    }

    /// Joins the group under the name of this host.
    pub fn join_as_host(&self) -> Join {
        self.join(gethostname::gethostname().to_string_lossy())
    }

    /// Takes the member of that name out of the group, if it is this connector's; answers whether it was.
    ///
    /// One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] before any I/O; [`ErrorKind::Timeout`]: it is given up all the same, and its
    /// record runs out with the lease; [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Once polled, it leaves even if it is dropped.
    pub async fn leave(&self, name: impl AsRef<str>) -> Result<bool, Error> {
        self.inner.caller.leave(MemberId::new(name)?).await
    }

    /// The lock of that name. Nothing happens before it is acquired.
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
        Lock::new(self.inner.locks.clone(), name.as_ref())
    }

    /// The semaphore of that name: a lock that so many may hold at once. All who ask should ask for the same number.
    pub fn semaphore(&self, name: impl AsRef<str>, permits: u32) -> Lock {
        Lock::semaphore(self.inner.locks.clone(), name.as_ref(), permits)
    }

    /// Locks by name, without guards.
    pub fn locks(&self) -> NamedLocks {
        NamedLocks::new(self.inner.locks.clone())
    }

    /// Data that dies with this connector, at the latest.
    pub fn ephemeral(&self) -> Ephemeral {
        Ephemeral::new(self.inner.stall.clone())
    }

    /// Data that stays.
    pub fn persistent(&self) -> Persistent {
        Persistent::new(self.inner.stall.clone())
    }

    /// Takes part in the choice of a leader for this role. Nothing happens before one of its calls.
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
        Election::new(self.inner.stall.clone(), self.inner.locks.clone(), role.as_ref())
    }

    /// Who is in the group, as far as this connector knows at this moment: one atomic load, no round trip, no lock,
    /// the same cost at any size.
    #[must_use]
    pub fn members(&self) -> Arc<View> {
        self.inner.view.load()
    }

    /// The member of that name, looked up in a concurrent map. No round trip.
    ///
    /// To ask about several members at one moment, take [`members`](Self::members).
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Arc<Member>> {
        self.inner.view.member(name)
    }

    /// A view that is at least as new as this call: one round trip where nothing has changed unseen, a few where
    /// something has.
    ///
    /// A member whose lease runs out in this very moment may be in it still, and leave a few milliseconds later.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server cannot be asked in time; [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn sync(&self) -> Result<Arc<View>, Error> {
        self.inner.caller.call(Request::Sync).await?;
        Ok(self.members())
    }

    /// Waits until the view is as wished, and answers that view. No round trip: it looks at each view once.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it was not within `limit`; [`ErrorKind::Closed`].
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
    pub async fn wait_for(&self, limit: Duration, wish: impl FnMut(&View) -> bool) -> Result<Arc<View>, Error> {
        match timeout(limit, self.inner.view.wait_for(wish)).await {
            Ok(Some(view)) => Ok(view),
            Ok(None) => Err(Error::closed()),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("the group was not as wished within {limit:?}; it has {} members", self.members().len()),
            )),
        }
    }

    /// What happens in the group, from a snapshot on. Any number of subscribers; none slows another down.
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

    /// Follows how the connector stands with its Redis.
    #[must_use]
    pub fn state(&self) -> StateWatch {
        StateWatch::new(self.inner.state.clone())
    }

    /// What an operator wants to know of this connector. No I/O.
    #[must_use]
    pub fn status(&self) -> Status {
        let link = self.inner.link.borrow();
        let hearing = &link.hearing;
        Status {
            state: *self.inner.state.borrow(),
            source: hearing.source,
            source_since: hearing.since.map(clock::instant),
            source_reason: hearing.reason.clone(),
            notifications_arrive: hearing.is_proven,
            grants_arrive: hearing.letters,
            last_canary: hearing.canary_at.map(clock::instant),
            round_trip: hearing.round_trip,
            event_lag: hearing.event_lag,
            sweep_lag: hearing.sweep_lag,
            reconnects: link.reconnects,
            error: link.error.clone(),
        }
    }

    /// Gives everything back in one script, and waits until every task of the connector has ended.
    ///
    /// Calling it again, also from another clone, does nothing more.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server could not be reached: the connector is closed all the same, and its
    /// members expire with the lease.
    ///
    /// # Cancel safety
    /// Once polled, the connector closes even if it is dropped.
    pub async fn close(&self) -> Result<(), Error> {
        let closed = match self.inner.caller.release(Request::Close).await {
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            answer => answer.map(drop),
        };
        self.inner.tracker.wait().await;
        closed
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

/// How a connector stands, for operators.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The link state.
    pub state: State,
    /// Where hints come from now: the source that is wanted, or what had to take its place.
    pub source: EventSource,
    /// Since when; `None` before the first source has proven itself.
    pub source_since: Option<Instant>,
    /// Why it is not the one that is wanted; `None` where it is.
    pub source_reason: Option<String>,
    /// Whether changes are told by messages. If not, they are seen at the next poll interval.
    pub notifications_arrive: bool,
    /// Whether grants of locks come by messages. If not, who waits for a lock asks at each poll interval.
    pub grants_arrive: bool,
    /// When a canary last came home: a key of the connector's own, written to prove that its events arrive.
    pub last_canary: Option<Instant>,
    /// How long the server took to answer that write.
    pub round_trip: Option<Duration>,
    /// How long after the sending of that write its first event came. About a round trip where all is well.
    pub event_lag: Option<Duration>,
    /// How late after an owner's deadline the last sweep was sent.
    pub sweep_lag: Option<Duration>,
    /// How many links have broken and been made anew.
    pub reconnects: u64,
    /// Why there is no link, while there is none.
    pub error: Option<Error>,
}

enum Server {
    Url(String),
    Environment,
    Client(Box<Client>),
}

/// Settings of a [`GroupConnector`]. All are checked together, before any I/O.
#[must_use = "a builder does nothing until it connects"]
pub struct GroupConnectorBuilder {
    server: Server,
    draft: config::Draft,
}

impl GroupConnectorBuilder {
    fn new(server: Server) -> Self {
        Self { server, draft: config::Draft::default() }
    }

    /// The group, 1 to 512 bytes. Default: `default-group`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.draft.group = group.into();
        self
    }

    /// What all keys begin with, 1 to 512 bytes: to keep environments apart in one database. Default: nothing.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.draft.namespace = Some(namespace.into());
        self
    }

    /// How long after its last heartbeat a connector is taken for dead: 200 ms to a day. Default: 7.5 s.
    ///
    /// Shorter is seen sooner; longer forgives longer pauses of the process, its host or the network.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.draft.ttl = ttl;
        self
    }

    /// The pause between heartbeats: less than half the ttl. Default: a third of it.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.draft.heartbeat = Some(heartbeat);
        self
    }

    /// How long making one connection may take. Default: 2 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.draft.connect_timeout = timeout;
        self
    }

    /// How long the server may take to answer one call. Default: 1 s.
    ///
    /// A request of yours may take this and the connect timeout together, as it waits for a link to be mended.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.draft.command_timeout = timeout;
        self
    }

    /// The longest pause between two attempts to reconnect, of which there is no end. Default: 1 s.
    pub fn backoff_cap(mut self, cap: Duration) -> Self {
        self.draft.backoff_cap = cap;
        self
    }

    /// How often to compare with the server, in case a notification went missing. Default: the ttl; what is longer
    /// makes the group converge that much later after a loss.
    pub fn reconcile(mut self, interval: Duration) -> Self {
        self.draft.reconcile = Some(interval);
        self
    }

    /// How often to compare with the server where no event source serves, and how often who waits for a lock asks
    /// where no message comes: 10 ms to an hour. Default: 500 ms, and never more than the reconcile interval.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.draft.poll = interval;
        self
    }

    /// What to do with the server's notification flags. Default: add what is missing.
    pub fn notifications(mut self, policy: Notifications) -> Self {
        self.draft.notifications = policy;
        self
    }

    /// Where hints come from. Default: keyspace notifications of this group's keys.
    pub fn event_source(mut self, source: EventSource) -> Self {
        self.draft.source = source;
        self
    }

    /// What a join does when its name is taken. Default: take it over.
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.draft.on_conflict = policy;
        self
    }

    /// What becomes of the members when the lease is lost. Default: they rejoin.
    pub fn on_lost(mut self, policy: OnLost) -> Self {
        self.draft.on_lost = policy;
        self
    }

    /// Where heartbeats run. Default: on a thread of their own.
    pub fn heartbeats(mut self, place: Heartbeats) -> Self {
        self.draft.heartbeats = place;
        self
    }

    /// How long the application's runtime may make no progress before its heartbeats stop, so that a hung process
    /// fails over. Default: 30 s.
    pub fn stall_tolerance(mut self, tolerance: Duration) -> Self {
        self.draft.stall_tolerance = tolerance;
        self
    }

    /// How many batches of events a subscriber may be behind before it gets a snapshot instead. Default: 1024.
    pub fn event_buffer(mut self, batches: usize) -> Self {
        self.draft.event_buffer = batches;
        self
    }

    /// Leaves it to other connectors to sweep dead sessions out of the group. For tests of what the sweep is worth.
    #[doc(hidden)]
    pub fn without_sweep(mut self) -> Self {
        self.draft.sweeps = false;
        self
    }

    /// Connects, and answers once the members are known.
    ///
    /// # Errors
    /// Before any I/O: [`ErrorKind::Config`], [`ErrorKind::InvalidName`]. Then [`ErrorKind::Connection`],
    /// [`ErrorKind::Timeout`], [`ErrorKind::Denied`], [`ErrorKind::ForeignValue`], and
    /// [`ErrorKind::Notifications`] with [`Notifications::Check`]. After an error nothing goes on; to keep trying,
    /// use [`connect_lazy`](Self::connect_lazy).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves nothing behind.
    pub async fn connect(self) -> Result<GroupConnector, Error> {
        let connector = self.connect_lazy()?;
        let (mut state, mut link) = (connector.state(), connector.inner.link.clone());
        let limit = connector.inner.config.connect_timeout + connector.inner.config.command_timeout;
        let refused = async {
            loop {
                let error = link.borrow_and_update().error.clone();
                if let Some(error) = error.filter(|error| !error.is_retryable()) {
                    return error;
                }
                if link.changed().await.is_err() {
                    return Error::closed();
                }
            }
        };
        let failed = tokio::select! {
            state = state.wait_for(|state| state == State::Connected) => {
                if state == State::Connected {
                    return Ok(connector);
                }
                Error::closed()
            }
            error = refused => error,
            () = tokio::time::sleep(limit) => connector.inner.link.borrow().error.clone().unwrap_or_else(|| {
                Error::new(ErrorKind::Timeout, format!("the server did not answer within {limit:?}"))
            }),
        };
        connector.close().await.ok();
        Err(failed)
    }

    /// Starts to connect in the background, and answers at once: for services that start before their Redis.
    ///
    /// Must be called within a tokio runtime. Follow [`GroupConnector::state`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`], [`ErrorKind::InvalidName`]: found before any I/O.
    pub fn connect_lazy(self) -> Result<GroupConnector, Error> {
        let config = self.draft.validate()?;
        let client = self.server.client()?;
        tokio::runtime::Handle::try_current().map_err(|error| {
            Error::caused_by(ErrorKind::Config, "a connector needs a tokio runtime to be made in", error)
        })?;
        let tracker = TaskTracker::new();
        let shutdown = CancellationToken::new();
        let name = uuid::Uuid::new_v4();
        // Where this connector lies in every range of jitter, once and for all.
        let jitter = f64::from(u16::from_le_bytes([name.as_bytes()[0], name.as_bytes()[1]])) / f64::from(u16::MAX);
        let name = name.simple().to_string();
        let holds = Arc::new(Holds::default());
        let addressees = holds.clone();
        let letterbox: Letterbox = Arc::new(move |letter| addressees.deliver(letter));
        let dialer = Dialer::new(&client, config.clone(), &name, letterbox, tracker.clone())?;
        let (caller, called) = Caller::new();
        let (writer, reader) = view(config.event_buffer, clock::instant(clock::now()));
        let (state, link) = (watch::Sender::new(State::Connecting), watch::Sender::new(LinkReport::default()));
        let (commands, standing) = watch::channel(None);
        let (tenure, present) = watch::channel(None);
        let (contents, shelf) = shelf();
        let direct = Direct::new(standing, present, caller.clone(), config.request_timeout());
        let inner = Inner {
            caller,
            view: reader,
            state: state.subscribe(),
            link: link.subscribe(),
            locks: Locks::new(direct.clone(), holds.clone(), &config),
            stall: Stall::new(direct, shelf),
            tracker: tracker.clone(),
            _shutdown: shutdown.clone().drop_guard(),
            config,
        };
        let (keeper, beats) = Keeper::new(dialer.clone(), tracker.clone());
        let publish = Publish { view: writer, state, link, commands, tenure, holds, shelf: contents };
        let settings = inner.config.settings(name, jitter);
        tracker.spawn(Driver::new(settings, dialer, keeper, beats, called, publish, shutdown).run());
        tracker.close();
        Ok(GroupConnector { inner: Arc::new(inner) })
    }
}

impl Server {
    fn client(self) -> Result<Client, Error> {
        let url = match self {
            Self::Client(client) => return Ok(*client),
            Self::Url(url) => url,
            Self::Environment => std::env::var("REDIS_URL").map_err(|error| {
                Error::caused_by(ErrorKind::Config, "REDIS_URL is not set: set it, or use builder(url)", error)
            })?,
        };
        if url.starts_with("rediss:") && !cfg!(feature = "tls") {
            return Err(Error::new(ErrorKind::Config, "rediss:// needs the feature \"tls\" of group-redis"));
        }
        #[cfg(feature = "tls")]
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Whoever was first has chosen for the process; that is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        // The URL is not in the message: it may hold a password.
        let refused = |error| {
            let message = "the URL is not one of a Redis server: redis://[user:password@]host[:port][/db]";
            Error::caused_by(ErrorKind::Config, message, error)
        };
        url.into_connection_info().and_then(Client::open).map_err(refused)
    }
}

impl fmt::Debug for GroupConnectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the server: its URL may hold a password.
        f.debug_struct("GroupConnectorBuilder").field("settings", &self.draft).finish_non_exhaustive()
    }
}
