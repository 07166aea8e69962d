//! The commands of the core, each as one call to the server.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::deadlines::Deadlines;
use super::locks::Batchers;
use super::replication::Acknowledgements;
use crate::error::{Error, ErrorKind};
use crate::model::MemberId;
use crate::proto::{Command, Reply};
use crate::scripts::{Channels, ScriptCall, ScriptContext, member, ms, number, presence, session, value};
use crate::settings::Config;

/// The canary's two lives: one to run out, one to be cut short.
const CANARY_SHORT: Duration = Duration::from_millis(2);
const CANARY_LONG: Duration = Duration::from_secs(5);

/// What every call needs besides the connection.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Config,
    /// The server's address and database, as errors say it.
    pub(super) server: Arc<str>,
    pub(super) scripts: Arc<ScriptContext>,
    pub(super) canary: String,
    pub(super) inbox: String,
    pub(super) news: String,
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
    /// `None`: no replicas are to be waited for.
    pub(super) acknowledgements: Option<Acknowledgements>,
    /// How long a call may take.
    pub(super) limit: Duration,
}

impl Commands {
    /// The same, where a call may take so long instead of the command timeout.
    pub(crate) fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Invokes a script, in bounded time.
    pub(crate) async fn invoke<T>(mut self, call: &ScriptCall<'_, T>) -> Result<T, Error> {
        let (context, limit) = (self.context.clone(), self.limit);
        context.within(call.name(), limit, self.invoke_unbounded(call)).await
    }

    /// Invokes a script, for as long as it takes.
    pub(super) async fn invoke_unbounded<T>(&mut self, call: &ScriptCall<'_, T>) -> Result<T, Error> {
        call.answer(call.invocation().invoke_async(&mut self.connection).await)
    }

    /// Runs one command, in bounded time.
    pub(crate) async fn run(self, command: Command) -> Result<Reply, Error> {
        let context = self.context.clone();
        let (scripts, server) = (&context.scripts, &context.server);
        let call = match command {
            Command::Open { session } => session::open(scripts, &session),
            Command::Extend { session, cursor } => session::extend(scripts, &session, cursor),
            Command::Close { session } => session::close(scripts, &session),
            Command::Sweep => session::sweep(scripts),
            Command::Join { id, session, opening, contest, nonce, draft } => {
                member::join(scripts, &id, &session, opening, contest, nonce, &draft)
                    .map_err(|error| error.at(server))?
            }
            Command::Update { id, session, incarnation, joined_at_ms, nonce, draft } => {
                member::update(scripts, &id, &session, incarnation, joined_at_ms, nonce, &draft)
                    .map_err(|error| error.at(server))?
            }
            Command::Leave { id, session, incarnation } => member::leave(scripts, &id, &session, incarnation),
            Command::Renew { session, ids } => member::renew(scripts, &session, &ids),
            Command::List { known, after } => member::list(scripts, known, after),
            Command::Read { wanted } => member::read(scripts, wanted),
            Command::ReadValues { paths } => value::read(scripts, paths).map(Reply::from),
            Command::ListValues { known, after } => {
                value::list(scripts, "ephemerals", "", known, after).map(Reply::from)
            }
            Command::AskToProbe { place } => presence::probers(scripts, place),
            Command::Shorten { sessions } => presence::shorten(scripts, &sessions),
            Command::Release { queue_entry } => {
                let (limit, releasing) = (self.limit, self.release(&queue_entry));
                return context.within("release", limit, releasing).await.map(Reply::Released);
            }
            Command::Probe { sessions } => {
                let channels = sessions.iter().map(|session| scripts.keys.presence(session.as_str()));
                return self.subscribed("probing the presence of sessions", channels).await;
            }
            Command::CheckProbers { probers } => {
                let channels = probers.iter().map(|prober| scripts.keys.inbox(prober));
                return self.subscribed("checking on the probers", channels).await;
            }
            Command::Touch { ids } => return self.touch(&ids).await,
            Command::PlantCanary => return self.plant_canary().await,
            Command::TouchCanary => return self.touch_canary().await,
            Command::Subscribe { .. } => return Err(not_here("subscription").at(server)),
            Command::Listen { .. } => return Err(not_here("listening").at(server)),
        };
        self.invoke(&call).await
    }

    /// Which of these channels have a subscriber.
    async fn subscribed(self, name: &str, channels: impl Iterator<Item = String>) -> Result<Reply, Error> {
        let mut asking = redis::cmd("PUBSUB");
        asking.arg(match self.context.scripts.channels() {
            Channels::Plain => "NUMSUB",
            Channels::Sharded => "SHARDNUMSUB",
        });
        asking.arg(channels.collect::<Vec<_>>());
        let answer = self.send(name, asking.query_async(&mut self.connection.clone())).await?;
        present(&answer).ok_or_else(|| Error::unexpected(name).at(&self.context.server))
    }

    async fn touch(self, ids: &[MemberId]) -> Result<Reply, Error> {
        let mut touch = redis::cmd("EXISTS");
        for id in ids {
            touch.arg(self.context.scripts.keys.member(id.as_str()));
        }
        let mut connection = self.connection.clone();
        self.send("touch of expired members", touch.query_async(&mut connection)).await.map(|_| Reply::Done)
    }

    async fn plant_canary(self) -> Result<Reply, Error> {
        let mut plant = redis::cmd("SET");
        plant.arg(&self.context.canary).arg(1).arg("PX").arg(ms(CANARY_SHORT));
        self.send("canary", plant.query_async(&mut self.connection.clone())).await.map(|_| Reply::Done)
    }

    async fn touch_canary(self) -> Result<Reply, Error> {
        let canary = &self.context.canary;
        let mut touch = redis::pipe();
        touch.cmd("EXISTS").arg(canary);
        touch.cmd("SET").arg(canary).arg(1).arg("PX").arg(ms(CANARY_LONG));
        touch.cmd("DEL").arg(canary);
        self.send("canary", touch.query_async(&mut self.connection.clone())).await.map(|_| Reply::Done)
    }

    /// Sends what is no script, in bounded time.
    async fn send(&self, name: &str, sent: impl Future<Output = RedisResult<Value>>) -> Result<Value, Error> {
        let sending = async { sent.await.map_err(|error| Error::from_redis(name, error)) };
        self.context.within(name, self.limit, sending).await
    }
}

/// Subscribes a connection of RESP3 to a channel.
pub(super) async fn subscribe(
    connection: &mut MultiplexedConnection,
    channel: &str,
    channels: Channels,
) -> RedisResult<()> {
    match channels {
        Channels::Plain => connection.subscribe(channel).await,
        Channels::Sharded => redis::cmd("SSUBSCRIBE").arg(channel).query_async::<Value>(connection).await.map(drop),
    }
}

/// Channels, each with the number of its subscribers.
fn present(answer: &Value) -> Option<Reply> {
    let Value::Array(items) = answer else { return None };
    let is_present = |pair: &[Value]| Some(number(pair.get(1)?)? > 0);
    Some(Reply::Present(items.chunks(2).map(is_present).collect::<Option<_>>()?))
}

fn not_here(name: &str) -> Error {
    Error::new(ErrorKind::Server, format!("{name} is for the connection that listens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_with_a_subscriber_is_present() {
        let channels = |counts: &[i64]| {
            let pair = |count: &i64| [Value::BulkString(b"c".to_vec()), Value::Int(*count)];
            Value::Array(counts.iter().flat_map(pair).collect())
        };
        assert_eq!(present(&channels(&[1, 0])), Some(Reply::Present(vec![true, false])));
        assert_eq!(present(&channels(&[])), Some(Reply::Present(Vec::new())));
        assert_eq!((present(&channels(&[-1])), present(&Value::Int(1))), (None, None));
        assert_eq!(present(&Value::Array(vec![Value::Int(1)])), None);
    }
}
