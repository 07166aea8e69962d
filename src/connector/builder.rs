//! The settings of a connector, and how one is made.

use std::env::VarError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{GroupConnector, Inner};
use crate::cache::view;
use crate::cache::{LockTable, State, watched};
use crate::clock;
use crate::data::DataAccess;
use crate::engine::Direct;
use crate::engine::{Caller, Driver, LinkReport, Publish};
use crate::error::{Error, ErrorKind};
use crate::lock::Locks;
use crate::settings::{
    self, Credentials, CredentialsSource, EventSource, Heartbeats, Notifications, OnConflict, OnLost, Replication, Tls,
};
use crate::transport::{Access, Dialer, InboxSink, LeaseKeeper, Sentinels, Servers};

/// Where the server is.
pub(crate) enum Server {
    Url(String),
    Environment,
    Client(Box<Client>),
}

/// Settings of a [`GroupConnector`]. All are checked together, before any I/O.
#[must_use = "a builder does nothing until it connects"]
pub struct GroupConnectorBuilder {
    server: Server,
    /// The name of the master, and the sentinels that know it.
    sentinels: Option<(String, Vec<String>)>,
    credentials: Option<CredentialsSource>,
    tls: Option<Tls>,
    draft: settings::UncheckedSettings,
}

impl GroupConnectorBuilder {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, sentinels: None, credentials: None, tls: None, draft: settings::UncheckedSettings::default() }
    }

    /// Asks these sentinels for the primary that they know by the name `master`. The address of the URL or client is not
    /// used then; its user, password, database and TLS are those of the primary.
    ///
    /// Each sentinel is `host`, `host:port` (26379 by default), or a URL with credentials and TLS of its own. The same
    /// can be said by a URL, `redis+sentinel://user:password@host,host/master/db`, where `?sentinel_user=..` and
    /// `sentinel_password=..` are for the sentinels, and `rediss+sentinel://` is for TLS to all of them.
    ///
    /// They are asked at once whenever a connection is made, and the answer of the latest election counts. When they
    /// elect another primary, the connector reconnects to that one.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), group_redis::Error> {
    /// use group_redis::GroupConnector;
    ///
    /// let hosts = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    /// let group = GroupConnector::builder("redis://app:secret@primary/").sentinels("mymaster", hosts).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sentinels<T: Into<String>>(
        mut self,
        master: impl Into<String>,
        sentinels: impl IntoIterator<Item = T>,
    ) -> Self {
        self.sentinels = Some((master.into(), sentinels.into_iter().map(Into::into).collect()));
        self
    }

    /// Asks this source for user and password, before each connection and again before they expire; those of the URL or
    /// client are not used then. For tokens of a managed service, and for passwords that are rotated.
    ///
    /// The source is polled on the runtime of the connector, and may take the connect timeout. It is a part of each
    /// reconnect: let it answer from memory, for a process that takes longer than its [`grace`](Self::grace) to come back
    /// counts as dead. While it fails, the last
    /// credentials are used as long as they have not expired. When it answers new ones, connections that are open log in
    /// anew, at the next heartbeat: no membership and no lock is lost by it. [`Credentials::expires_in`] says when
    /// to ask again: after four fifths of that time, and earlier where the connect timeout and two heartbeats need more.
    /// Needs RESP3 (Redis 6, Valkey 7.2). Sentinels keep the credentials of their own URLs.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), group_redis::Error> {
    /// use group_redis::{Credentials, GroupConnector};
    ///
    /// let source = || async {
    ///     let password = std::fs::read_to_string("/run/secrets/redis")?;
    ///     Ok::<_, std::io::Error>(Credentials::new("app", password.trim()))
    /// };
    /// let group = GroupConnector::builder("rediss://redis.internal/").credentials(source).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials<F, E>(mut self, source: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.credentials = Some(CredentialsSource::new(source));
        self
    }

    /// Certificates for a `rediss://` URL: whom to trust, and what to show. They replace those of a client.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects to the primary of the server, where the server is a replica. Default: a replica is refused, with an
    /// error that names its primary.
    pub fn follow_replica(mut self) -> Self {
        self.draft.follow_replica = true;
        self
    }

    /// The name of the group, 1 to 512 bytes. Default: `default-group`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.draft.group = group.into();
        self
    }

    /// What all keys begin with, 1 to 512 bytes: to keep environments apart in one database. Default: nothing.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.draft.namespace = Some(namespace.into());
        self
    }

    /// How long after its last heartbeat a connector counts as dead: 200 ms to a day. Default: 7.5 s.
    ///
    /// A short ttl reports a frozen process sooner. A long one forgives longer pauses of the process, its host or the
    /// network. A killed process is reported by [`grace`](Self::grace), whatever the ttl.
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
    /// A request may take this and the connect timeout together, since it waits for a broken link to come back.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.draft.command_timeout = timeout;
        self
    }

    /// The longest pause between two attempts to reconnect, of which there is no end. Default: 1 s.
    pub fn backoff_cap(mut self, cap: Duration) -> Self {
        self.draft.backoff_cap = cap;
        self
    }

    /// How often the connector compares its view with the server, in case a notification went missing. Default: the
    /// ttl. With a longer interval the view converges that much later after a loss.
    pub fn reconcile(mut self, interval: Duration) -> Self {
        self.draft.reconcile = Some(interval);
        self
    }

    /// How often the connector compares its view with the server where no source announces changes, and how often a
    /// waiter asks for its lock where no message announces grants: 10 ms to an hour. Default: 500 ms, and never more
    /// than the reconcile interval.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// use group_redis::{EventSource, GroupConnector};
    ///
    /// let builder = GroupConnector::builder("redis://127.0.0.1/")
    ///     .event_source(EventSource::Poll)
    ///     .poll(Duration::from_millis(100));
    /// # drop(builder);
    /// ```
    pub fn poll(mut self, interval: Duration) -> Self {
        self.draft.poll = interval;
        self
    }

    /// Turns presence off. Default: on.
    ///
    /// With presence, a process that ends is noticed by its connections. The sockets of a killed process close at
    /// once, and its members have left after [`grace`](Self::grace), however long the ttl. A frozen process keeps its
    /// sockets, and gets its whole ttl. In return, a process whose connections are cut, and that cannot reconnect
    /// within the grace, counts as dead too; its guards and memberships stop saying that they are held before that.
    /// Without presence, only the lease decides. With [`Heartbeats::Runtime`] there is no presence: a runtime that
    /// hangs would not notice that its connection is closed.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// use group_redis::GroupConnector;
    ///
    /// // A network that cuts connections, and may take a while to let them in again.
    /// let builder = GroupConnector::builder("redis://127.0.0.1/").ttl(Duration::from_secs(5)).without_presence();
    /// # drop(builder);
    /// ```
    pub fn without_presence(mut self) -> Self {
        self.draft.presence = false;
        self
    }

    /// How long a process whose connections are closed has to reconnect before it counts as dead: 50 ms to an hour.
    /// Default: 250 ms. Where it is as long as the ttl, the ttl decides.
    ///
    /// The lease names its grace: connectors of one group may differ. A grace that is longer than a heartbeat
    /// forgives a connection that only the server sees closed; with a shorter one the locks may be handed on before
    /// the holder knows.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// use group_redis::GroupConnector;
    ///
    /// // For a network that lets connections in again only after 2 s. A killed process is reported that much later.
    /// let builder = GroupConnector::builder("redis://127.0.0.1/").grace(Duration::from_secs(4));
    /// # drop(builder);
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.draft.grace = grace;
        self
    }

    /// What the connector does with the server's notification flags. Default: it adds the missing ones.
    pub fn notifications(mut self, policy: Notifications) -> Self {
        self.draft.notifications = policy;
        self
    }

    /// How the connector hears of changes. Default: by keyspace notifications of this group's keys.
    ///
    /// # Examples
    /// ```
    /// use group_redis::{EventSource, GroupConnector, Notifications};
    ///
    /// // Needs no setting of the server, and changes none.
    /// let builder = GroupConnector::builder("redis://127.0.0.1/")
    ///     .event_source(EventSource::Tracking)
    ///     .notifications(Notifications::Never);
    /// # drop(builder);
    /// ```
    pub fn event_source(mut self, source: EventSource) -> Self {
        self.draft.source = source;
        self
    }

    /// What a join does when its name is taken. Default: it takes the name over.
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

    /// How long the application's runtime may make no progress before the heartbeats stop, so that a hung process fails
    /// over. Default: 30 s.
    pub fn stall_tolerance(mut self, tolerance: Duration) -> Self {
        self.draft.stall_tolerance = tolerance;
        self
    }

    /// How many batches of events a subscriber may be behind before it gets a snapshot instead of them. Default: 1024.
    pub fn event_buffer(mut self, batches: usize) -> Self {
        self.draft.event_buffer = batches;
        self
    }

    /// When a join, a grant and a write of persistent data count as done. Default: as soon as the primary has them.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// use group_redis::{GroupConnector, Replication};
    ///
    /// // An error, rather than a lock that a failover may forget.
    /// let replication = Replication::Ack { replicas: 1, timeout: Duration::from_millis(500) };
    /// let builder = GroupConnector::builder("redis+sentinel://10.0.0.1,10.0.0.2/mymaster").replication(replication);
    /// # drop(builder);
    /// ```
    pub fn replication(mut self, replication: Replication) -> Self {
        self.draft.replication = replication;
        self
    }

    /// Leaves the sweep of dead sessions to other connectors. For tests of the sweep.
    #[doc(hidden)]
    pub fn without_sweep(mut self) -> Self {
        self.draft.sweeps = false;
        self
    }

    /// Connects, and answers once the members are known. The connector lives on the tokio runtime that this is called in,
    /// [and no longer](GroupConnector#the-runtime-that-it-lives-on).
    ///
    /// # Errors
    /// Before any I/O: [`ErrorKind::Config`], [`ErrorKind::InvalidName`]. Then [`ErrorKind::Connection`],
    /// [`ErrorKind::Timeout`], [`ErrorKind::Denied`], [`ErrorKind::ForeignValue`], [`ErrorKind::Config`] for a database
    /// that the server does not have, [`ErrorKind::Server`], and [`ErrorKind::Notifications`] with
    /// [`Notifications::Check`].
    ///
    /// What may pass, such as a port that refuses or a server that loads its data, is waited for, for the connect
    /// timeout and the command timeout together. What does not pass by itself is answered at once: a wrong password,
    /// a replica, a node of a cluster that serves other slots, a sentinel, no Redis at all, a certificate that is not
    /// trusted. Then [`Error::is_retryable`] is `false`. After an error nothing goes on; to keep trying, use
    /// [`connect_lazy`](Self::connect_lazy).
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
            () = tokio::time::sleep(limit) => {
                let error = connector.inner.link.borrow().error.clone();
                error.unwrap_or_else(|| Error::no_answer("connecting", limit).at(&connector.inner.server))
            }
        };
        connector.close().await.ok();
        Err(failed)
    }

    /// Connects in the background, and answers at once: for services that start before their Redis.
    ///
    /// Must be called within a tokio runtime: the connector lives on it,
    /// [and no longer](GroupConnector#the-runtime-that-it-lives-on). It keeps trying, whatever the error is: follow [`GroupConnector::state`];
    /// [`GroupConnector::status`] has the last error.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], [`ErrorKind::InvalidName`]: found before any I/O.
    pub fn connect_lazy(self) -> Result<GroupConnector, Error> {
        let config = self.draft.validate()?;
        let servers = self.server.find(self.sentinels)?;
        if self.tls.is_some() && !servers.are_by_tls() {
            let message = "certificates are for TLS, and the URL is one without it; use rediss://";
            return Err(Error::new(ErrorKind::Config, message));
        }
        tokio::runtime::Handle::try_current().map_err(|error| {
            Error::caused_by(ErrorKind::Config, "a connector needs a tokio runtime; make it within one", error)
        })?;
        let tracker = TaskTracker::new();
        let shutdown = CancellationToken::new();
        let name = uuid::Uuid::new_v4();
        // Where this connector lies in every range of jitter, once and for all.
        let jitter = f64::from(u16::from_le_bytes([name.as_bytes()[0], name.as_bytes()[1]])) / f64::from(u16::MAX);
        let name = name.simple().to_string();
        let lock_table = Arc::new(LockTable::default());
        let (caller, called) = Caller::new();
        let (addressees, lost_property) = (lock_table.clone(), caller.clone());
        let inbox_sink: InboxSink = Arc::new(move |message| {
            if !addressees.deliver(message) {
                lost_property.audit();
            }
        });
        let access = Access { servers, tls: self.tls, credentials: self.credentials };
        let dialer = Dialer::new(access, config.clone(), &name, inbox_sink, tracker.clone())?;
        let (writer, reader) = view(config.event_buffer, clock::instant(clock::now()));
        let (state, link) = (watch::Sender::new(State::Connecting), watch::Sender::new(LinkReport::default()));
        let (commands, standing) = watch::channel(None);
        let (validity, present) = watch::channel(None);
        let (contents, watched) = watched();
        let server = dialer.server().clone();
        let (report, limit) = (link.subscribe(), config.request_timeout());
        let scripts = dialer.scripts().clone();
        let direct = Direct::new(standing, present, caller.clone(), server.clone(), scripts, report, limit);
        let inner = Inner {
            caller,
            server,
            view: reader,
            state: state.subscribe(),
            link: link.subscribe(),
            locks: Locks::new(direct.clone(), lock_table.clone(), &config),
            data: DataAccess::new(direct, watched),
            tracker: tracker.clone(),
            _shutdown: shutdown.clone().drop_guard(),
            config,
        };
        let (lease_keeper, beats) = LeaseKeeper::new(dialer.clone(), tracker.clone());
        let publish = Publish { view: writer, state, link, commands, validity, lock_table, watched: contents };
        let span = tracing::debug_span!("group_redis", group = %inner.config.group, connector = %name);
        let settings = inner.config.settings(name, jitter);
        let driver = Driver::new(settings, dialer, lease_keeper, beats, called, publish, shutdown);
        tracker.spawn(driver.run().instrument(span));
        tracker.close();
        Ok(GroupConnector::new(inner))
    }
}

impl Server {
    fn find(self, sentinels: Option<(String, Vec<String>)>) -> Result<Servers, Error> {
        #[cfg(feature = "tls")]
        crate::transport::choose_cryptography();
        let servers = match self {
            Self::Client(client) => Servers::Listed(vec![client.get_connection_info().clone()]),
            Self::Url(url) => Servers::parse(&url)?,
            Self::Environment => Servers::parse(&std::env::var("REDIS_URL").map_err(|error| {
                let message = match error {
                    VarError::NotPresent => "REDIS_URL is not set: set it, or use builder(url)",
                    // Its source would show the whole URL, and with it a password.
                    VarError::NotUnicode(_) => "REDIS_URL is not valid UTF-8: percent-encode what is not ASCII in it",
                };
                Error::new(ErrorKind::Config, message)
            })?)?,
        };
        match sentinels {
            None => Ok(servers),
            Some((master, urls)) => {
                let sentinels = Sentinels::new(master, &urls, servers.primary().clone())?;
                Ok(Servers::Sentinels(Box::new(sentinels)))
            }
        }
    }
}

impl fmt::Debug for GroupConnectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the server: its URL may hold a password.
        f.debug_struct("GroupConnectorBuilder").field("settings", &self.draft).finish_non_exhaustive()
    }
}
