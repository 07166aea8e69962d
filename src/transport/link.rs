//! The two connections of a connector: one that listens, one that asks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionInfo};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::combine::Road;
use super::commands::{Commands, Context};
use super::flags;
use super::locks::Combines;
use super::overdue::Overdue;
use crate::config::{Config, EventSource};
use crate::error::{Error, ErrorKind};
use crate::proto::Topic;
use crate::wire::{Letter, Notice, keyevent, keyspace};

/// The events that a keyevent source listens to.
const EVENTS: [&str; 11] = [
    "set",
    "del",
    "expired",
    "evicted",
    "expire",
    "persist",
    "rename_from",
    "rename_to",
    "restore",
    "copy_to",
    "append",
];

/// What is to be listened to, and where to say that it is.
struct Subscription {
    channel: String,
    is_pattern: bool,
    done: oneshot::Sender<Result<(), Error>>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Commands,
    Events,
    Heartbeat,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Events => "events",
            Self::Heartbeat => "heartbeat",
        }
    }
}

/// How many subscriptions may wait for their turn.
const SUBSCRIPTIONS: usize = 16;

/// Where letters go as they come: the task that waits for one has no time to lose, and nothing is to be decided.
pub(crate) type Letterbox = Arc<dyn Fn(Letter) + Send + Sync>;

/// Makes links: knows where the server is and what to ask of it.
#[derive(Clone)]
pub(crate) struct Dialer {
    info: Arc<ConnectionInfo>,
    context: Arc<Context>,
    letterbox: Letterbox,
    road: Road,
    tracker: TaskTracker,
}

/// A connection that asks and one that listens; a task of its own pings both.
pub(crate) struct Link {
    commands: Commands,
    database: i64,
    letterbox: Letterbox,
    stream: PubSubStream,
    broken: oneshot::Receiver<Error>,
    subscriptions: mpsc::Sender<Subscription>,
    _pinging: DropGuard,
}

impl Dialer {
    pub(crate) fn new(
        client: &Client,
        config: Config,
        connector: &str,
        letterbox: Letterbox,
        tracker: TaskTracker,
    ) -> Result<Self, Error> {
        let info = client.get_connection_info().clone();
        let settings = tcp_settings(info.tcp_settings(), &config);
        let info = Arc::new(info.set_tcp_settings(settings));
        let keys = config.keys();
        let host = serde_json::Value::from(gethostname::gethostname().to_string_lossy().into_owned());
        let holder = format!("{{\"host\":{host},\"pid\":{},\"since\":", std::process::id());
        let context = Context {
            canary: keys.canary(connector),
            inbox: keys.inbox(connector),
            holder,
            keys,
            overdue: Overdue::new(config.command_timeout),
            config,
        };
        let context = Arc::new(context);
        let watched = context.clone();
        tracker.spawn(async move { watched.overdue.watch().await });
        Ok(Self { info, context, letterbox, road: Road::new(tracker.clone()), tracker })
    }

    /// Nothing is asked any more: who still waits for an answer waits in vain.
    pub(crate) fn stop(&self) {
        self.context.overdue.stop();
    }

    pub(crate) fn config(&self) -> &Config {
        &self.context.config
    }

    /// A client whose connections tell the server what they are for, as `CLIENT LIST` shows.
    fn client(&self, role: Role) -> Result<Client, Error> {
        let settings = self.info.redis_settings().clone();
        let settings =
            settings.set_lib_name(format!("redis-rs(group-redis-{})", role.name()), env!("CARGO_PKG_VERSION"));
        let info = self.info.as_ref().clone().set_redis_settings(settings);
        Client::open(info).map_err(|error| Error::from_redis("opening the client", error))
    }

    /// One more connection for commands.
    pub(super) async fn connection(&self, role: Role) -> Result<MultiplexedConnection, Error> {
        let (client, limit) = (self.client(role)?, self.config().connect_timeout);
        // The timeouts are ours: redis would count them for each part of a call.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&settings);
        within("connecting", limit, connecting).await
    }

    pub(super) fn commands(&self, connection: MultiplexedConnection) -> Commands {
        Commands { connection, context: self.context.clone(), combines: Arc::new(Combines::new(self.road.clone())) }
    }

    /// Connects both ways, sees to the notifications and subscribes. Every step has its timeout.
    pub(crate) async fn dial(&self) -> Result<Link, Error> {
        let limit = self.config().command_timeout;
        let mut connection = self.connection(Role::Commands).await?;
        let client = self.client(Role::Events)?;
        let listening = client.get_async_pubsub();
        let (mut sink, stream) =
            within("connecting to listen", self.config().connect_timeout, listening).await?.split();
        timeout(limit, flags::ensure(&mut connection, self.config()))
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, format!("CONFIG: no answer within {limit:?}"))))?;
        self.subscribe(&mut sink, limit).await?;
        let (report, broken) = oneshot::channel();
        let (subscriptions, wanted) = mpsc::channel(SUBSCRIPTIONS);
        let pinging = CancellationToken::new();
        self.tracker.spawn(pinging.clone().run_until_cancelled_owned(ping(
            sink,
            connection.clone(),
            wanted,
            self.config().clone(),
            report,
        )));
        let (commands, database) = (self.commands(connection), self.database());
        let letterbox = self.letterbox.clone();
        Ok(Link { commands, database, letterbox, stream, broken, subscriptions, _pinging: pinging.drop_guard() })
    }

    fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    async fn subscribe(&self, sink: &mut PubSubSink, limit: Duration) -> Result<(), Error> {
        let (context, db) = (&self.context, self.database());
        within(&format!("SUBSCRIBE {}", context.inbox), limit, sink.subscribe(&context.inbox)).await?;
        match self.config().source {
            EventSource::Keyspace => {
                let pattern = format!("__keyspace@{db}__:{}", context.keys.member_pattern());
                within(&format!("PSUBSCRIBE {pattern}"), limit, sink.psubscribe(&pattern)).await?;
                let canary = format!("__keyspace@{db}__:{}", context.canary);
                within(&format!("SUBSCRIBE {canary}"), limit, sink.subscribe(&canary)).await
            }
            EventSource::Keyevent => {
                let channels = EVENTS.map(|event| format!("__keyevent@{db}__:{event}"));
                within("SUBSCRIBE __keyevent", limit, sink.subscribe(&channels[..])).await
            }
        }
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

async fn within<T>(what: &str, limit: Duration, call: impl Future<Output = redis::RedisResult<T>>) -> Result<T, Error> {
    match timeout(limit, call).await {
        Ok(result) => result.map_err(|error| Error::from_redis(what, error)),
        Err(_) => Err(Error::uncertain(ErrorKind::Timeout, format!("{what}: no answer within {limit:?}"))),
    }
}

/// Pings both connections, and subscribes to what is wanted, until one of them does not answer.
async fn ping(
    mut sink: PubSubSink,
    mut connection: MultiplexedConnection,
    mut wanted: mpsc::Receiver<Subscription>,
    config: Config,
    report: oneshot::Sender<Error>,
) {
    let limit = config.pulse_timeout();
    let mut next = tokio::time::interval(config.heartbeat);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    next.tick().await;
    let error = loop {
        tokio::select! {
            _ = next.tick() => {}
            Some(Subscription { channel, is_pattern, done }) = wanted.recv() => {
                let limit = config.command_timeout;
                let said = if is_pattern {
                    within(&format!("PSUBSCRIBE {channel}"), limit, sink.psubscribe(&channel)).await
                } else {
                    within(&format!("SUBSCRIBE {channel}"), limit, sink.subscribe(&channel)).await
                };
                // Nobody waits for it any more when the link has been given up meanwhile.
                let _ = done.send(said);
                continue;
            }
        }
        let command = redis::cmd("PING");
        let (listening, asking) = tokio::join!(
            within("PING of the subscription", limit, sink.ping::<redis::Value>()),
            within("PING", limit, command.query_async::<redis::Value>(&mut connection)),
        );
        if let Err(error) = listening.and(asking) {
            break error;
        }
    };
    // Nobody listens any more when the link has been dropped meanwhile.
    let _ = report.send(error);
}

impl Link {
    pub(crate) fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Listens to one topic more; answers when the server has confirmed it.
    pub(crate) fn subscribe(&self, topic: Topic) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let (keys, db, subscriptions) = (&self.commands.context.keys, self.database, self.subscriptions.clone());
        let is_heard = self.commands.context.config.source == EventSource::Keyevent;
        let (path, is_pattern) = match topic {
            Topic::Ephemerals => (keys.at("ephemerals", "*"), true),
            Topic::Leader(lock) => (keys.at("locks", &lock), false),
        };
        async move {
            if is_heard {
                return Ok(());
            }
            let (done, said) = oneshot::channel();
            let gone = || Error::new(ErrorKind::Connection, "the subscription's connection was given up");
            let subscription = Subscription { channel: format!("__keyspace@{db}__:{path}"), is_pattern, done };
            subscriptions.send(subscription).await.map_err(|_| gone())?;
            said.await.unwrap_or_else(|_| Err(gone()))
        }
    }

    /// The next notification, or why there will be none. Letters are delivered meanwhile.
    ///
    /// Cancel safe: a notification is taken only when it is returned.
    pub(crate) async fn next(&mut self) -> Result<Notice, Error> {
        let context = self.commands.context.clone();
        let parse = match context.config.source {
            EventSource::Keyspace => keyspace,
            EventSource::Keyevent => keyevent,
        };
        loop {
            let message = tokio::select! {
                message = self.stream.next() => message,
                error = &mut self.broken => {
                    let ended = || Error::new(ErrorKind::Connection, "nobody watches over the connection any more");
                    return Err(error.unwrap_or_else(|_| ended()));
                }
            };
            let Some(message) = message else {
                return Err(Error::new(ErrorKind::Connection, "the subscription's connection was closed"));
            };
            let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
            if channel == context.inbox {
                if let Some(letter) = Letter::parse(payload) {
                    (self.letterbox)(letter);
                }
                continue;
            }
            if let Some(notice) = parse(&context.keys, &context.canary, channel.as_bytes(), payload) {
                return Ok(notice);
            }
        }
    }
}
