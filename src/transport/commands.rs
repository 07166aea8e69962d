//! The commands of the core, each as one call to the server.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ScriptInvocation, Value};

use super::deadlines::Deadlines;
use super::locks::Batchers;
use super::replies;
use crate::error::{Error, ErrorKind};
use crate::model::SessionId;
use crate::proto::{Command, Contest, Reply};
use crate::scripts;
use crate::settings::Config;
use crate::wire::{Keys, encode, record_head, record_tail};

/// How many member keys one sweep or close may take, so that no call stops the server for long.
const SWEEP_KEYS: usize = 500;
const SWEEP_LEASES: usize = 64;
/// How many members a sweep draws, to check that the index of leases lists their sessions: few, since a large group
/// sweeps often.
const SWEEP_DRAWN: usize = 2;
const EXTEND_KEYS: usize = 500;
const CLOSE_KEYS: usize = 1000;
const LIST_ENTRIES: usize = 500;
/// How many probers a group has, and how many sessions they probe at most.
const PROBERS: usize = 2;
const PROBED: usize = 2000;
/// How many bytes of records one read may bring.
const READ_BYTES: usize = 4 << 20;
/// How long the lease of a closed session says so.
const LAST_WORD: Duration = Duration::from_secs(5);
/// The canary's two lives: one to run out, one to be cut short.
const CANARY_SHORT: Duration = Duration::from_millis(2);
const CANARY_LONG: Duration = Duration::from_secs(5);

/// What every call needs besides the connection.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Config,
    /// The server's address and database, as errors say it.
    pub(super) server: Arc<str>,
    pub(super) keys: Keys,
    pub(super) connector: String,
    pub(super) canary: String,
    pub(super) inbox: String,
    /// The start of a lease's value, which names its holder.
    pub(super) holder: String,
    pub(super) deadlines: Deadlines,
}

impl Context {
    /// What a call answers, if it does so in time and before the connector is closed.
    pub(super) async fn within<T>(
        &self,
        name: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.deadlines.is_stopped() {
            return Err(Error::closed());
        }
        let answer = self.deadlines.limit(limit, call).await.unwrap_or_else(|| {
            if self.deadlines.is_stopped() {
                return Err(Error::closed_unanswered(name));
            }
            Err(Error::no_answer(name, limit))
        });
        answer.map_err(|error| error.at(&self.server))
    }
}

/// Runs commands over one connection. A clone is the same connection.
#[derive(Clone)]
pub(crate) struct Commands {
    pub(super) connection: MultiplexedConnection,
    pub(super) context: Arc<Context>,
    pub(super) batchers: Arc<Batchers>,
    /// How long a call may take.
    pub(super) limit: Duration,
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Commands {
    /// The same, where a call may take so long instead of the command timeout.
    pub(crate) fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Runs one command, in bounded time.
    pub(crate) async fn run(mut self, command: Command) -> Result<Reply, Error> {
        let name = name(&command);
        let context = self.context.clone();
        context.within(name, self.limit, self.call(name, command)).await
    }

    async fn call(&mut self, name: &'static str, command: Command) -> Result<Reply, Error> {
        let context = self.context.clone();
        let (keys, config) = (&context.keys, &context.config);
        match command {
            Command::Open { session } => {
                let mut script = scripts::SESSION_OPEN.key(keys.lease(session.as_str()));
                script
                    .key(keys.leases())
                    .key(keys.owned(session.as_str()))
                    .arg(session.as_str())
                    .arg(&context.holder)
                    .arg(ms(config.ttl))
                    .arg(ms(config.safety()));
                replies::reply(name, self.invoke(name, &script).await?, replies::opened)
            }
            Command::Extend { session, cursor } => self.extend(&session, cursor).await,
            Command::Subscribe { .. } | Command::Listen { .. } => {
                Err(Error::new(ErrorKind::Server, format!("{name} is for the connection that listens")))
            }
            Command::ReadValues { paths } => self.clone().read_values(&paths).await,
            Command::ListValues { known, after } => self.clone().list_values("ephemerals", "", known, after).await,
            Command::Release { queue_entry } => self.release(&queue_entry).await.map(Reply::Released),
            Command::Join { id, session, opening, contest, nonce, draft } => {
                let tail = record_tail(&draft).map_err(|error| {
                    Error::caused_by(ErrorKind::InvalidMetadata, format!("the record of {id:?} is no JSON"), error)
                })?;
                let mut script = scripts::MEMBER_JOIN.key(keys.member(id.as_str()));
                script
                    .key(keys.members())
                    .key(keys.lease(session.as_str()))
                    .key(keys.leases())
                    .key(keys.owned(session.as_str()))
                    .key(keys.revision())
                    .arg(keys.prefix())
                    .arg(encode(id.as_str()))
                    .arg(session.as_str())
                    .arg(if opening { "open" } else { "opened" })
                    .arg(&context.holder)
                    .arg(ms(config.ttl))
                    .arg(ms(config.safety()))
                    .arg(match contest {
                        Contest::Take => "take",
                        Contest::Yield => "yield",
                        Contest::Rejoin => "rejoin",
                    })
                    .arg(nonce)
                    .arg(tail);
                replies::reply(name, self.invoke(name, &script).await?, replies::joined)
            }
            Command::Update { id, session, incarnation, joined_at_ms, nonce, draft } => {
                let tail = record_tail(&draft).map_err(|error| {
                    Error::caused_by(ErrorKind::InvalidMetadata, format!("the record of {id:?} is no JSON"), error)
                })?;
                let mut script = scripts::MEMBER_UPDATE.key(keys.member(id.as_str()));
                script
                    .key(keys.lease(session.as_str()))
                    .key(keys.revision())
                    .arg(record_head(incarnation, &session))
                    .arg(nonce)
                    .arg(joined_at_ms)
                    .arg(tail);
                replies::reply(name, self.invoke(name, &script).await?, replies::updated)
            }
            Command::Leave { id, session, incarnation } => {
                let mut script = scripts::MEMBER_LEAVE.key(keys.member(id.as_str()));
                script
                    .key(keys.members())
                    .key(keys.owned(session.as_str()))
                    .key(keys.revision())
                    .arg(encode(id.as_str()))
                    .arg(session.as_str())
                    .arg(incarnation.map(|incarnation| incarnation.to_string()).unwrap_or_default());
                replies::reply(name, self.invoke(name, &script).await?, replies::left)
            }
            Command::Close { session } => {
                let mut script = scripts::SESSION_CLOSE.key(keys.lease(session.as_str()));
                script
                    .key(keys.leases())
                    .key(keys.members())
                    .key(keys.owned(session.as_str()))
                    .key(keys.revision())
                    .arg(keys.prefix())
                    .arg(session.as_str())
                    .arg(CLOSE_KEYS)
                    .arg(ms(LAST_WORD.min(config.safety())));
                replies::reply(name, self.invoke(name, &script).await?, replies::closed)
            }
            Command::Renew { session, ids } => {
                let mut script = scripts::MEMBER_RENEW.key(keys.owned(session.as_str()));
                script.arg(keys.prefix()).arg(session.as_str()).arg(ms(config.safety()));
                for id in &ids {
                    script.arg(encode(id.as_str()));
                }
                replies::reply(name, self.invoke(name, &script).await?, replies::renewed)
            }
            Command::Sweep => {
                let mut script = scripts::SESSION_SWEEP.key(keys.leases());
                script.key(keys.members()).key(keys.revision()).arg(keys.prefix());
                script.arg(SWEEP_KEYS).arg(SWEEP_LEASES).arg(SWEEP_DRAWN);
                replies::reply(name, self.invoke(name, &script).await?, replies::swept)
            }
            Command::List { known, after } => {
                let mut script = scripts::MEMBER_LIST.key(keys.members());
                script.key(keys.leases()).key(keys.revision()).arg(keys.prefix());
                match known {
                    Some(known) => script.arg(known.revision.get()).arg(known.count),
                    None => script.arg("").arg(""),
                };
                script.arg(after.map_or_else(|| "-inf".to_owned(), |after| format!("({after}"))).arg(LIST_ENTRIES);
                replies::reply(name, self.invoke(name, &script).await?, replies::listed)
            }
            Command::Read { wanted } => {
                let mut script = scripts::MEMBER_READ.key(keys.members());
                script.key(keys.leases()).key(keys.revision()).arg(keys.prefix()).arg(READ_BYTES);
                for (id, session) in &wanted {
                    script.arg(encode(id.as_str())).arg(session.as_ref().map_or("", |session| session.as_str()));
                }
                let value = self.invoke(name, &script).await?;
                replies::reply(name, value, |items| replies::found(items, &wanted))
            }
            Command::Touch { ids } => {
                let touched: Vec<_> = ids.iter().map(|id| keys.member(id.as_str())).collect();
                self.query(name, redis::cmd("EXISTS").arg(touched)).await
            }
            Command::AskToProbe { place } => {
                let mut script = scripts::PRESENCE_PROBERS.key(keys.leases());
                script
                    .key(keys.probers())
                    .key(keys.asks())
                    .arg(keys.prefix())
                    .arg(&context.connector)
                    .arg(ms(place))
                    .arg(PROBERS)
                    .arg(PROBED);
                replies::reply(name, self.invoke(name, &script).await?, replies::probing)
            }
            Command::Probe { sessions } => {
                self.subscribed(name, sessions.iter().map(|session| keys.presence(session.as_str()))).await
            }
            Command::CheckProbers { probers } => {
                self.subscribed(name, probers.iter().map(|prober| keys.inbox(prober))).await
            }
            Command::Shorten { sessions } => {
                let mut script = scripts::PRESENCE_SHORTEN.key(keys.leases());
                script.arg(keys.prefix());
                for (session, absent) in &sessions {
                    script.arg(session.as_str()).arg(absent.map_or_else(String::new, |absent| ms(absent).to_string()));
                }
                replies::reply(name, self.invoke(name, &script).await?, replies::shortened)
            }
            Command::PlantCanary => {
                let mut plant = redis::cmd("SET");
                plant.arg(&context.canary).arg(1).arg("PX").arg(ms(CANARY_SHORT));
                self.query(name, &plant).await
            }
            Command::TouchCanary => {
                let mut touch = redis::pipe();
                touch.cmd("EXISTS").arg(&context.canary);
                touch.cmd("SET").arg(&context.canary).arg(1).arg("PX").arg(ms(CANARY_LONG));
                touch.cmd("DEL").arg(&context.canary);
                let done: Result<Value, _> = touch.query_async(&mut self.connection).await;
                done.map(|_| Reply::Done).map_err(|error| Error::from_redis(name, error))
            }
        }
    }

    /// Renews what the session owns, from this place on.
    pub(super) async fn extend(&mut self, session: &SessionId, cursor: u64) -> Result<Reply, Error> {
        const NAME: &str = "renewal of what the session owns";
        let context = self.context.clone();
        let (keys, config) = (&context.keys, &context.config);
        let mut script = scripts::SESSION_EXTEND.key(keys.owned(session.as_str()));
        script
            .key(keys.members())
            .key(keys.leases())
            .key(keys.ephemerals())
            .arg(keys.prefix())
            .arg(session.as_str())
            .arg(ms(config.safety()))
            .arg(cursor)
            .arg(EXTEND_KEYS);
        let value = self.invoke(NAME, &script).await?;
        replies::reply(NAME, value, |items| replies::extended(items, session))
    }

    /// Which of these channels has a subscriber.
    async fn subscribed(&mut self, name: &str, channels: impl Iterator<Item = String>) -> Result<Reply, Error> {
        let mut asking = redis::cmd("PUBSUB");
        asking.arg("NUMSUB");
        for channel in channels {
            asking.arg(channel);
        }
        let value = asking.query_async::<Value>(&mut self.connection).await;
        replies::reply(name, value.map_err(|error| Error::from_redis(name, error))?, replies::present)
    }

    async fn query(&mut self, name: &str, command: &redis::Cmd) -> Result<Reply, Error> {
        let done: Result<Value, _> = command.query_async(&mut self.connection).await;
        done.map(|_| Reply::Done).map_err(|error| Error::from_redis(name, error))
    }

    pub(super) async fn invoke(&mut self, name: &str, script: &ScriptInvocation<'_>) -> Result<Value, Error> {
        script.invoke_async(&mut self.connection).await.map_err(|error| scripts::failed(name, error))
    }
}

/// What a command is called in errors.
fn name(command: &Command) -> &'static str {
    match command {
        Command::Subscribe { .. } => "subscription",
        Command::ReadValues { .. } => "reading of values",
        Command::ListValues { .. } => "listing of values",
        Command::Open { .. } => "opening of the session",
        Command::Extend { .. } => "renewal of what the session owns",
        Command::Release { .. } => "release",
        Command::Join { .. } => "join",
        Command::Update { .. } => "update",
        Command::Leave { .. } => "leave",
        Command::Close { .. } => "close",
        Command::Renew { .. } => "renewal of the safety ttl",
        Command::Sweep => "sweep",
        Command::Touch { .. } => "touch of expired members",
        Command::List { .. } => "listing of the members",
        Command::Read { .. } => "reading of members",
        Command::PlantCanary | Command::TouchCanary => "canary",
        Command::AskToProbe { .. } => "asking for a place among the probers",
        Command::Probe { .. } => "probing the presence of sessions",
        Command::CheckProbers { .. } => "checking on the probers",
        Command::Shorten { .. } => "shortening of the leases of those who are gone",
        Command::Listen { .. } => "listening",
    }
}
