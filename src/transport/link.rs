//! The two connections of a connector: one that listens, one that asks.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batcher::BatchRunner;
use super::commands::{Commands, Context};
use super::deadlines::Deadlines;
use super::listener::{Listener, Received};
use super::locks::Batchers;
use super::login::{Login, Logins};
use super::opener::Opener;
use super::replication::Acknowledgements;
use super::topology::{Primary, Sentinels, Servers, Topology, mode};
use crate::error::{Error, ErrorKind, one_line};
use crate::proto::Topic;
use crate::scripts::{ScriptContext, ms};
use crate::settings::{Config, CredentialsSource, EventSource, Replication, Tls};
use crate::wire::{InboxMessage, Notice};

/// Where inbox messages go as they come: there is nothing to decide, and the waiting task needs them at once.
pub(crate) type InboxSink = Arc<dyn Fn(InboxMessage) + Send + Sync>;

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Commands,
    Events,
    Heartbeat,
    Replication,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Events => "events",
            Self::Heartbeat => "heartbeat",
            Self::Replication => "replication",
        }
    }
}

/// Into how many parts the time to connect is cut at the most, where several servers are tried.
const MOST_SHARES: u32 = 4;

/// Where the servers are, and how they are got into.
pub(crate) struct Access {
    pub(crate) servers: Servers,
    pub(crate) tls: Option<Tls>,
    pub(crate) credentials: Option<CredentialsSource>,
}

/// Makes links: knows where the server is and what to ask of it.
#[derive(Clone)]
pub(crate) struct Dialer {
    topology: Arc<Topology>,
    opener: Opener,
    logins: Logins,
    context: Arc<Context>,
    inbox_sink: InboxSink,
    runner: BatchRunner,
    tracker: TaskTracker,
}

/// A connection to the primary, and what it has logged in with.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    pub(super) login: Login,
    pub(super) primary: Primary,
}

/// A connection that asks, and what listens, as soon as it has been told to.
pub(crate) struct Link {
    commands: Commands,
    login: Login,
    /// Cancelled when nothing waits for replicas any more.
    unacknowledging: CancellationToken,
    primary: Primary,
    dialer: Dialer,
    listener: Option<Listener>,
    /// What is to take its place comes by here.
    fresh: mpsc::Receiver<Listener>,
    relisten: mpsc::Sender<Listener>,
}

impl Dialer {
    pub(crate) fn new(
        access: Access,
        config: Config,
        connector: &str,
        inbox_sink: InboxSink,
        tracker: TaskTracker,
    ) -> Result<Self, Error> {
        let servers = access.servers.with(|info| {
            let settings = tcp_settings(info.tcp_settings(), &config);
            info.set_tcp_settings(settings)
        });
        let keys = config.keys();
        let (canary, inbox, news) = (keys.canary(connector), keys.inbox(connector), keys.news());
        let host = serde_json::Value::from(gethostname::gethostname().to_string_lossy().into_owned());
        let grace = config.grace().map_or_else(String::new, |grace| format!("\"grace\":{},", ms(grace)));
        let holder = format!("{{\"host\":{host},\"pid\":{},{grace}\"since\":", std::process::id());
        let (connector, ttl, safety) = (connector.to_owned(), config.ttl, config.safety());
        let context = Arc::new(Context {
            server: server(&servers).into(),
            scripts: Arc::new(ScriptContext {
                keys,
                connector,
                holder,
                ttl,
                safety,
                is_sharded: AtomicBool::default(),
            }),
            canary,
            inbox,
            news,
            deadlines: Deadlines::new(config.command_timeout),
            config,
        });
        let opener = Opener::new(access.tls);
        let (follows_replicas, limit) = (context.config.follow_replica, context.config.connect_timeout);
        let topology = Arc::new(Topology::new(servers, opener.clone(), follows_replicas, limit));
        let logins = Logins::new(access.credentials, &context.config, tracker.clone());
        let (watched, followed) = (context.clone(), topology.clone());
        let (kept, stop) = (logins.clone(), topology.stopped());
        tracker.spawn(async move { watched.deadlines.watch().await });
        tracker.spawn(async move { kept.keep(stop).await });
        tracker.spawn(async move { followed.follow_sentinels().await });
        Ok(Self { topology, opener, logins, context, inbox_sink, runner: BatchRunner::new(tracker.clone()), tracker })
    }

    /// Ends every call: a caller that still waits gets no answer.
    pub(crate) fn stop(&self) {
        self.context.deadlines.stop();
        self.topology.stop();
    }

    pub(crate) fn config(&self) -> &Config {
        &self.context.config
    }

    /// A client whose connections tell the server what they are for, as `CLIENT LIST` shows.
    pub(super) async fn client(
        &self,
        info: &ConnectionInfo,
        role: Role,
        protocol: ProtocolVersion,
    ) -> Result<(Client, Login), Error> {
        let (credentials, login) = self.logins.log_in().await?;
        let mut settings = info.redis_settings().clone().set_protocol(protocol);
        if let Some(credentials) = credentials {
            settings = settings.set_username(credentials.user()).set_password(credentials.secret());
        }
        let settings =
            settings.set_lib_name(format!("redis-rs(group-redis-{})", role.name()), env!("CARGO_PKG_VERSION"));
        Ok((self.opener.client(info.clone().set_redis_settings(settings))?, login))
    }

    /// Whether a subscription has to be a connection that can do more than to subscribe.
    pub(super) fn subscribes_by_resp3(&self) -> bool {
        self.logins.has_source() || self.opener.needs_settings()
    }

    /// One more connection for commands, to the primary.
    pub(super) async fn connection(&self, role: Role) -> Result<Opened, Error> {
        let (opened, ()) =
            self.connection_with(role, ProtocolVersion::RESP2, || (AsyncConnectionConfig::new(), ())).await?;
        Ok(opened)
    }

    /// One more connection to the primary. Servers are tried in turn, each with settings of its own, and what belongs to
    /// them.
    pub(super) async fn connection_with<T>(
        &self,
        role: Role,
        protocol: ProtocolVersion,
        settings: impl Fn() -> (AsyncConnectionConfig, T),
    ) -> Result<(Opened, T), Error> {
        let mut search = self.topology.search().await?;
        let limit =
            self.config().connect_timeout / u32::try_from(search.left()).unwrap_or(u32::MAX).clamp(1, MOST_SHARES);
        let mut failed = None;
        while let Some(info) = search.next() {
            let opening = async {
                let (settings, with) = settings();
                let (mut connection, login) = self.connect(&info, role, protocol, settings, limit).await?;
                let mode = mode(&mut connection, &self.context.canary).await?;
                search.judge(&self.topology, &info, &mode)?;
                let primary = self.topology.settle(info.clone(), &mut connection, &search, mode.channels()).await?;
                self.context.scripts.set_channels(primary.channels);
                Ok((Opened { connection, login, primary }, with))
            };
            let opened = timeout(limit + self.config().command_timeout, opening).await;
            match opened.unwrap_or_else(|_| Err(Error::not_connected(limit))) {
                Ok(opened) => return Ok(opened),
                // What may pass at one of them may pass.
                Err(error)
                    if failed.as_ref().is_none_or(|before: &Error| error.is_retryable() || !before.is_retryable()) =>
                {
                    failed = Some(error.at(&named(&info).into()));
                }
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::Config, "there is no server to connect to")))
    }

    /// One more connection to the server that the link goes to, and what it has logged in with.
    pub(super) async fn connect(
        &self,
        info: &ConnectionInfo,
        role: Role,
        protocol: ProtocolVersion,
        settings: AsyncConnectionConfig,
        limit: Duration,
    ) -> Result<(MultiplexedConnection, Login), Error> {
        let (client, login) = self.client(info, role, protocol).await?;
        let settings = self.opener.complete(settings, info).set_connection_timeout(Some(limit));
        let connection = connecting(limit, client.get_multiplexed_async_connection_with_config(&settings)).await?;
        Ok((connection, login))
    }

    /// The server's address and database.
    pub(crate) fn server(&self) -> &Arc<str> {
        &self.context.server
    }

    /// What the arguments of the scripts say of this connector.
    pub(crate) fn scripts(&self) -> &Arc<ScriptContext> {
        &self.context.scripts
    }

    pub(super) fn commands(&self, connection: MultiplexedConnection) -> Commands {
        let (context, batchers) = (self.context.clone(), Arc::new(Batchers::new(self.runner.clone())));
        Commands { connection, limit: context.config.command_timeout, context, batchers, acknowledgements: None }
    }

    /// Connects to ask. What listens comes later, by [`Link::listen`].
    pub(crate) async fn dial(&self) -> Result<Box<Link>, Error> {
        let opened = self.connection(Role::Commands).await.map_err(|error| error.at(self.server()))?;
        let Opened { connection, login, primary } = opened;
        let (relisten, fresh) = mpsc::channel(1);
        let mut commands = self.commands(connection);
        let unacknowledging =
            self.acknowledge(&mut commands, &primary).await.map_err(|error| error.at(self.server()))?;
        Ok(Box::new(Link {
            commands,
            unacknowledging,
            login,
            primary,
            dialer: self.clone(),
            listener: None,
            fresh,
            relisten,
        }))
    }

    /// Lets these commands wait for replicas, if they are to. Answers what is cancelled when they cannot any more.
    async fn acknowledge(&self, commands: &mut Commands, primary: &Primary) -> Result<CancellationToken, Error> {
        if self.config().replication == Replication::Async {
            return Ok(CancellationToken::new());
        }
        let (settings, limit) = (AsyncConnectionConfig::new(), self.config().connect_timeout);
        let opening = self.connect(&primary.info, Role::Replication, ProtocolVersion::RESP2, settings, limit);
        let (connection, login) = opening.await?;
        let opened = Opened { connection, login, primary: primary.clone() };
        let key = self.context.scripts.keys.at("acknowledgements", &self.context.scripts.connector);
        let Some((acknowledgements, acknowledging, broken)) = Acknowledgements::over(opened, key, self.config()) else {
            return Ok(CancellationToken::new());
        };
        commands.acknowledgements = Some(acknowledgements);
        self.tracker.spawn(acknowledging.run());
        Ok(broken)
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    pub(super) fn database(&self) -> i64 {
        self.topology.primary().redis_settings().db()
    }
}

fn tcp_settings(given: &TcpSettings, config: &Config) -> TcpSettings {
    let probe = config.ttl.clamp(Duration::from_secs(1), Duration::from_secs(30));
    let keepalive =
        given.keepalive().cloned().unwrap_or_else(|| TcpKeepalive::new().with_time(probe).with_interval(probe));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(given.user_timeout().unwrap_or(probe * 2));
    settings
}

/// The servers as errors name them: never with a user or a password.
fn server(servers: &Servers) -> String {
    let list = |infos: &[ConnectionInfo]| infos.iter().map(|info| address(info.addr())).collect::<Vec<_>>().join(", ");
    match servers {
        Servers::Listed(infos) if infos.len() == 1 => named(&infos[0]),
        Servers::Listed(infos) => format!("{}, database {}", list(infos), infos[0].redis_settings().db()),
        Servers::Sentinels(of) => {
            let Sentinels { sentinels, master, primary } = &**of;
            let db = primary.redis_settings().db();
            format!("{} of sentinels {}, database {db}", one_line(master), list(sentinels))
        }
    }
}

/// One server as errors name it.
fn named(info: &ConnectionInfo) -> String {
    format!("{}, database {}", address(info.addr()), info.redis_settings().db())
}

pub(super) fn address(address: &ConnectionAddr) -> String {
    one_line(&match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if host.contains(':') => {
            format!("[{host}]:{port}")
        }
        address => address.to_string(),
    })
}

/// A connection in time. As long as there is none, nothing has been asked for.
pub(super) async fn connecting<T>(
    limit: Duration,
    call: impl Future<Output = redis::RedisResult<T>>,
) -> Result<T, Error> {
    match timeout(limit, call).await {
        Ok(result) => result.map_err(|error| Error::connecting("connecting", error)),
        Err(_) => Err(Error::not_connected(limit)),
    }
}

pub(super) async fn within<T>(
    what: &str,
    limit: Duration,
    call: impl Future<Output = redis::RedisResult<T>>,
) -> Result<T, Error> {
    match timeout(limit, call).await {
        Ok(result) => result.map_err(|error| Error::from_redis(what, error)),
        Err(_) => Err(Error::no_answer(what, limit)),
    }
}

impl Link {
    pub(crate) fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Listens to this source from then on; answers when the server has confirmed it, and whether inbox messages come.
    pub(crate) fn listen(&self, source: EventSource) -> impl Future<Output = Result<bool, Error>> + Send + use<> {
        let (dialer, commands, relisten) = (self.dialer.clone(), self.commands(), self.relisten.clone());
        let asking =
            Opened { connection: commands.connection, login: self.login.clone(), primary: self.primary.clone() };
        async move {
            let at = |error: Error| error.at(dialer.server());
            let listener = Listener::open(&dialer, asking, source).await.map_err(at)?;
            let inbox_works = listener.inbox_works();
            let gone = |_| Error::new(ErrorKind::Connection, "the link was given up");
            relisten.send(listener).await.map(|()| inbox_works).map_err(gone)
        }
    }

    /// Listens to one topic more; answers when the server has confirmed it.
    pub(crate) fn subscribe(&mut self, topic: &Topic) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.take_fresh();
        let subscribing = self.listener.as_ref().map(|listener| listener.subscribe(topic));
        async move {
            match subscribing {
                Some(subscribing) => subscribing.await,
                None => Err(Error::new(ErrorKind::Connection, "nothing listens yet")),
            }
        }
    }

    /// The listener stands before its answer is sent.
    fn take_fresh(&mut self) {
        if let Ok(listener) = self.fresh.try_recv() {
            self.listener = Some(listener);
        }
    }

    /// The next notification, or why there will be none. Inbox messages are delivered meanwhile.
    ///
    /// Cancel safe: a notification is taken only when it is returned.
    pub(crate) async fn next(&mut self) -> Result<Notice, Error> {
        loop {
            let received = async {
                match &mut self.listener {
                    Some(listener) => listener.next().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.primary.replaced.cancelled() => {
                    let message = "the server is not the primary any more";
                    return Err(Error::new(ErrorKind::Connection, message).at(self.dialer.server()));
                }
                () = self.unacknowledging.cancelled() => {
                    let message = "the connection that waits for replicas has failed";
                    return Err(Error::new(ErrorKind::Connection, message).at(self.dialer.server()));
                }
                // The link itself holds the other end.
                Some(listener) = self.fresh.recv() => self.listener = Some(listener),
                received = received => match received.map_err(|error| error.at(self.dialer.server()))? {
                    Received::Notice(notice) => return Ok(notice),
                    Received::InboxMessage(message) => (self.dialer.inbox_sink)(message),
                },
            }
        }
    }
}
