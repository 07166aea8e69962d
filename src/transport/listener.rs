//! The listening connection, for hints and inbox messages, by any source. A task of its own pings it and the asking
//! one.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::commands::{Context, subscribe};
use super::flags;
use super::link::{Dialer, Opened, Role, connecting, within};
use super::topology::{Primary, demoted};
use crate::error::{Error, ErrorKind};
use crate::mutant;
use crate::proto::Topic;
use crate::scripts::Channels;
use crate::settings::{Config, EventSource};
use crate::wire::{InboxMessage, News, Notice, invalidated, keyevent, keyspace};

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
    wanted: Wanted,
    done: oneshot::Sender<Result<(), Error>>,
}

#[derive(Debug)]
enum Wanted {
    Channels(Vec<String>),
    Pattern(String),
    /// A channel of the shard.
    ShardChannel(String),
    /// Keys that begin so.
    Prefixes(Vec<String>),
}

/// How many subscriptions may wait for their turn.
const SUBSCRIPTIONS: usize = 16;

/// How many pushes may wait to be received.
const PUSHES: usize = 1 << 16;

/// What is received.
pub(super) enum Received {
    Notice(Notice),
    InboxMessage(InboxMessage),
}

/// Where what is received comes from.
enum MessageReader {
    Messages(PubSubStream),
    Pushes(mpsc::Receiver<PushInfo>),
    /// Nothing may be subscribed to.
    Deaf,
}

/// The other side of it: what subscribes and pings.
enum SubscriptionWriter {
    Messages(PubSubSink),
    Pushes(MultiplexedConnection),
    Mute,
}

pub(super) struct Listener {
    source: EventSource,
    context: Arc<Context>,
    database: i64,
    reader: MessageReader,
    /// What came together with what was received last.
    pending: VecDeque<Received>,
    inbox_works: bool,
    broken: oneshot::Receiver<Error>,
    subscriptions: mpsc::Sender<Subscription>,
    _pinging: DropGuard,
}

impl Listener {
    /// Connects, sees to the server's flags and subscribes. Every step has its timeout.
    pub(super) async fn open(dialer: &Dialer, asking: Opened, source: EventSource) -> Result<Self, Error> {
        let Opened { connection: mut commands, login, primary } = asking;
        let (context, limit) = (dialer.context().clone(), dialer.config().command_timeout);
        timeout(limit, flags::ensure(&mut commands, dialer.config(), source))
            .await
            .unwrap_or_else(|_| Err(Error::no_answer("CONFIG", limit)))?;
        let (mut reader, mut writer) = connect(dialer, &primary, source).await?;
        let inbox_works = writer
            .try_subscribe(&of_ours(&context.inbox, primary.channels), dialer.config())
            .await?
            .inspect_err(
                |error| tracing::warn!(%error, "grants of locks do not come by themselves: they are asked for"),
            )
            .is_ok();
        if !inbox_works && source == EventSource::Poll {
            (reader, writer) = (MessageReader::Deaf, SubscriptionWriter::Mute);
        }
        let left_out = usize::from(mutant::is_again("no_resubscribe"));
        if matches!(source, EventSource::Keyspace | EventSource::Keyevent) {
            let news = of_ours(&context.news, primary.channels);
            if let Err(error) = writer.try_subscribe(&news, dialer.config()).await? {
                tracing::warn!(%error, "scripts do not tell what they change: each change is read");
            }
        }
        for wanted in sources(&context, source, dialer.database()).into_iter().skip(left_out) {
            writer.subscribe(&wanted, dialer.config()).await?;
        }
        let (report, broken) = oneshot::channel();
        let (subscriptions, wanted) = mpsc::channel(SUBSCRIPTIONS);
        let pinging = CancellationToken::new();
        let tracker = dialer.tracker();
        tracker.spawn(pinging.clone().run_until_cancelled_owned(ping(
            writer,
            Opened { connection: commands, login, primary },
            wanted,
            context.canary.clone(),
            dialer.config().clone(),
            report,
        )));
        let (database, pending, _pinging) = (dialer.database(), VecDeque::new(), pinging.drop_guard());
        Ok(Self { source, context, database, reader, pending, inbox_works, broken, subscriptions, _pinging })
    }

    pub(super) fn inbox_works(&self) -> bool {
        self.inbox_works
    }

    /// Listens to one topic more; answers when the server has confirmed it.
    pub(super) fn subscribe(&self, topic: &Topic) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (keys, db, subscriptions) = (&self.context.scripts.keys, self.database, self.subscriptions.clone());
        let wanted = match (self.source, topic) {
            (EventSource::Keyspace, Topic::Ephemerals) => {
                Some(Wanted::Pattern(format!("__keyspace@{db}__:{}", keys.at("ephemerals", "*"))))
            }
            (EventSource::Keyspace, Topic::Leader(lock)) => {
                Some(Wanted::Channels(vec![format!("__keyspace@{db}__:{}", keys.at("locks", lock))]))
            }
            (EventSource::Tracking, Topic::Ephemerals) => Some(Wanted::Prefixes(vec![keys.at("ephemerals", "")])),
            // One prefix must not begin another, so it is all the locks.
            (EventSource::Tracking, Topic::Leader(_)) => Some(Wanted::Prefixes(vec![keys.at("locks", "")])),
            (EventSource::Keyevent | EventSource::Poll, _) => None,
        };
        async move {
            let Some(wanted) = wanted else { return Ok(()) };
            let (done, said) = oneshot::channel();
            let gone = || Error::new(ErrorKind::Connection, "the subscription's connection was given up");
            subscriptions.send(Subscription { wanted, done }).await.map_err(|_| gone())?;
            said.await.unwrap_or_else(|_| Err(gone()))
        }
    }

    /// What is received next, or why there will be nothing.
    ///
    /// Cancel safe: something is taken only when it is returned.
    pub(super) async fn next(&mut self) -> Result<Received, Error> {
        loop {
            if let Some(received) = self.pending.pop_front() {
                return Ok(received);
            }
            let raw = tokio::select! {
                raw = self.reader.next() => raw,
                error = &mut self.broken => {
                    let ended = || Error::new(ErrorKind::Connection, "nobody watches over the connection any more");
                    return Err(error.unwrap_or_else(|_| ended()));
                }
            };
            match raw {
                Some(RawMessage::Message(message)) => {
                    let received = self.message(message.get_channel_name().as_bytes(), message.get_payload_bytes());
                    self.pending.extend(received);
                }
                Some(RawMessage::Push(PushInfo { kind: PushKind::Invalidate, data })) => self.invalidated(&data),
                Some(RawMessage::Push(PushInfo { kind: PushKind::SUnsubscribe, .. })) => {
                    return Err(Error::new(ErrorKind::Connection, "the slot of this group has moved to another node"));
                }
                // A pattern's message names the pattern first.
                Some(RawMessage::Push(PushInfo {
                    kind: PushKind::Message | PushKind::PMessage | PushKind::SMessage,
                    data,
                })) => {
                    if let [.., Value::BulkString(channel), Value::BulkString(payload)] = &data[..] {
                        let received = self.message(channel, payload);
                        self.pending.extend(received);
                    }
                }
                Some(RawMessage::Push(push)) if push.kind != PushKind::Disconnection => {}
                Some(RawMessage::Push(_)) | None => {
                    return Err(Error::new(ErrorKind::Connection, "the subscription's connection was closed"));
                }
            }
        }
    }

    fn message(&self, channel: &[u8], payload: &[u8]) -> Option<Received> {
        let context = &self.context;
        if channel == context.inbox.as_bytes() {
            return InboxMessage::parse(payload).map(Received::InboxMessage);
        }
        if channel == context.news.as_bytes() {
            return News::parse(payload).map(Notice::News).map(Received::Notice);
        }
        let parse = match self.source {
            EventSource::Keyspace => keyspace,
            EventSource::Keyevent => keyevent,
            EventSource::Tracking | EventSource::Poll => return None,
        };
        parse(&context.scripts.keys, &context.canary, channel, payload).map(Received::Notice)
    }

    /// The keys that have changed; none is named where all may have.
    fn invalidated(&mut self, data: &[Value]) {
        match data {
            [Value::Array(keys)] => {
                let context = &self.context;
                let notices = keys.iter().filter_map(|key| match key {
                    Value::BulkString(key) => invalidated(&context.scripts.keys, &context.canary, key),
                    _ => None,
                });
                self.pending.extend(notices.map(Received::Notice));
            }
            _ => self.pending.push_back(Received::Notice(Notice::Everything)),
        }
    }
}

/// One thing that came, not yet understood.
enum RawMessage {
    Message(redis::Msg),
    Push(PushInfo),
}

impl MessageReader {
    /// Cancel safe: what is not returned stays.
    async fn next(&mut self) -> Option<RawMessage> {
        match self {
            Self::Messages(stream) => stream.next().await.map(RawMessage::Message),
            Self::Pushes(pushes) => pushes.recv().await.map(RawMessage::Push),
            Self::Deaf => pending().await,
        }
    }
}

/// A connection that this source can come by.
async fn connect(
    dialer: &Dialer,
    primary: &Primary,
    source: EventSource,
) -> Result<(MessageReader, SubscriptionWriter), Error> {
    let (info, limit) = (&*primary.info, dialer.config().connect_timeout);
    let is_sharded = primary.channels == Channels::Sharded;
    if source == EventSource::Tracking || is_sharded || dialer.subscribes_by_resp3() {
        let (sender, pushes) = mpsc::channel(PUSHES);
        let sender = Mutex::new(Some(sender));
        let settings = AsyncConnectionConfig::new().set_push_sender(move |push| {
            let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            let is_sent = sender.as_ref().is_some_and(|sender| sender.try_send(push).is_ok());
            // Too many messages end the sender, and with it the link. The next link lists everything.
            sender.take_if(|_| !is_sent).map_or(Ok(()), Err)
        });
        let (connection, _) = dialer.connect(info, Role::Events, ProtocolVersion::RESP3, settings, limit).await?;
        return Ok((MessageReader::Pushes(pushes), SubscriptionWriter::Pushes(connection)));
    }
    let (client, _) = dialer.client(info, Role::Events, ProtocolVersion::RESP2).await?;
    let listening = client.get_async_pubsub();
    let (sink, stream) = connecting(limit, listening).await?.split();
    Ok((MessageReader::Messages(stream), SubscriptionWriter::Messages(sink)))
}

/// A channel of the group, as messages go where the primary is.
fn of_ours(channel: &str, channels: Channels) -> Wanted {
    match channels {
        Channels::Plain => Wanted::Channels(vec![channel.to_owned()]),
        Channels::Sharded => Wanted::ShardChannel(channel.to_owned()),
    }
}

/// What the hints of this source come by.
fn sources(context: &Context, source: EventSource, db: i64) -> Vec<Wanted> {
    match source {
        EventSource::Keyspace => vec![
            Wanted::Pattern(format!("__keyspace@{db}__:{}", context.scripts.keys.member_pattern())),
            Wanted::Channels(vec![format!("__keyspace@{db}__:{}", context.canary)]),
        ],
        EventSource::Keyevent => {
            vec![Wanted::Channels(EVENTS.map(|event| format!("__keyevent@{db}__:{event}")).to_vec())]
        }
        EventSource::Tracking => {
            vec![Wanted::Prefixes(vec![context.scripts.keys.at("members", ""), context.canary.clone()])]
        }
        EventSource::Poll => Vec::new(),
    }
}

impl SubscriptionWriter {
    /// Subscribes where that is allowed; the outer error is the connection's.
    async fn try_subscribe(&mut self, wanted: &Wanted, config: &Config) -> Result<Result<(), Error>, Error> {
        match self.subscribe(wanted, config).await {
            Err(error) if error.is_of_the_link() => Err(error),
            said => Ok(said),
        }
    }

    async fn subscribe(&mut self, wanted: &Wanted, config: &Config) -> Result<(), Error> {
        let limit = config.command_timeout;
        match (self, wanted) {
            (Self::Messages(sink), Wanted::Channels(channels)) => {
                within(&format!("SUBSCRIBE {}", channels.join(" ")), limit, sink.subscribe(channels)).await
            }
            (Self::Messages(sink), Wanted::Pattern(pattern)) => {
                within(&format!("PSUBSCRIBE {pattern}"), limit, sink.psubscribe(pattern)).await
            }
            (Self::Pushes(connection), Wanted::Channels(channels)) => {
                within(&format!("SUBSCRIBE {}", channels.join(" ")), limit, connection.subscribe(channels)).await
            }
            (Self::Pushes(connection), Wanted::ShardChannel(channel)) => {
                within(&format!("SSUBSCRIBE {channel}"), limit, subscribe(connection, channel, Channels::Sharded)).await
            }
            (Self::Pushes(connection), Wanted::Pattern(pattern)) => {
                within(&format!("PSUBSCRIBE {pattern}"), limit, connection.psubscribe(pattern)).await
            }
            (Self::Pushes(connection), Wanted::Prefixes(prefixes)) => {
                let mut tracking = redis::cmd("CLIENT");
                tracking.arg("TRACKING").arg("ON").arg("BCAST");
                for prefix in prefixes {
                    tracking.arg("PREFIX").arg(prefix);
                }
                let said = within("CLIENT TRACKING", limit, tracking.query_async::<()>(connection)).await;
                said.or_else(|error| if error.to_string().contains("overlaps") { Ok(()) } else { Err(error) })
            }
            (Self::Mute, _) => Ok(()),
            (_, wanted) => Err(Error::new(ErrorKind::Server, format!("{wanted:?} does not come by this source"))),
        }
    }

    async fn ping(&mut self, config: &Config) -> Result<(), Error> {
        let (what, limit) = ("PING of the subscription", config.pulse_timeout());
        match self {
            Self::Messages(sink) => within(what, limit, sink.ping::<Value>()).await.map(drop),
            Self::Pushes(connection) => {
                within(what, limit, redis::cmd("PING").query_async::<Value>(connection)).await.map(drop)
            }
            Self::Mute => Ok(()),
        }
    }
}

/// Pings both connections, and subscribes to what is wanted, until one of them does not answer.
async fn ping(
    mut writer: SubscriptionWriter,
    asking: Opened,
    mut wanted: mpsc::Receiver<Subscription>,
    key: String,
    config: Config,
    report: oneshot::Sender<Error>,
) {
    let limit = config.pulse_timeout();
    let Opened { connection: mut commands, mut login, primary: Primary { replaced, .. } } = asking;
    let mut next = tokio::time::interval(config.heartbeat);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    next.tick().await;
    let error = loop {
        tokio::select! {
            _ = next.tick() => {}
            Some(Subscription { wanted, done }) = wanted.recv() => {
                // It has no receiver any more if the link has been given up meanwhile.
                let _ = done.send(writer.subscribe(&wanted, &config).await);
                continue;
            }
        }
        match &mut writer {
            SubscriptionWriter::Pushes(listening) => login.renew(&mut [&mut commands, listening], limit).await,
            _ => login.renew(&mut [&mut commands], limit).await,
        }
        // The asking connection is asked whether the server is a primary still: one that may be written to as a replica
        // would answer everything else as before.
        let (listening, asking) = tokio::join!(writer.ping(&config), timeout(limit, demoted(&mut commands, &key)));
        match listening.and(asking.unwrap_or_else(|_| Err(Error::no_answer("HELLO", limit)))) {
            Ok(None) => {}
            // For heartbeats too.
            Ok(Some(why)) => {
                replaced.cancel();
                break why;
            }
            Err(error) => break error,
        }
    };
    // It has no receiver any more if the link has been dropped meanwhile.
    let _ = report.send(error);
}
