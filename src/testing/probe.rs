//! Asking a server whether it is there and what it is.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::time::{Instant, sleep, timeout};

use super::TestRedisError;
use super::backend::SERVER;
use crate::{Error, ErrorKind};

/// How long a server may take to answer after its start.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How often to ask again for what is not there yet.
pub(super) const PAUSE: Duration = Duration::from_millis(5);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(2);

/// What a server says of itself.
pub(super) struct Identity {
    /// `redis-server` or `valkey-server`.
    pub(super) name: &'static str,
    pub(super) version: String,
    /// Its process id, as the server sees it.
    pub(super) pid: Option<u32>,
}

/// Who is known to have the port that is asked.
#[derive(Clone, Copy)]
pub(super) enum Port {
    /// Nobody is, yet.
    Unknown,
    /// This process, if anybody.
    Wanted(u32),
    /// This process.
    Held(u32),
    /// Only the server that is asked can have it.
    Reserved,
}

impl Port {
    pub(super) fn of(pid: Option<u32>, is_held: bool) -> Self {
        match pid {
            None => Self::Unknown,
            Some(pid) if is_held => Self::Held(pid),
            Some(pid) => Self::Wanted(pid),
        }
    }

    /// Whether an answer that comes from there is the server's, whatever it is.
    fn is_sure(self) -> bool {
        matches!(self, Self::Held(_) | Self::Reserved)
    }

    fn is_answered_by(self, answering: Option<u32>) -> bool {
        match self {
            Self::Unknown => false,
            Self::Wanted(pid) | Self::Held(pid) => answering == Some(pid),
            Self::Reserved => true,
        }
    }
}

/// Waits until this is so, asking again and again. Where it does not come in time, the error has what is said of it then.
pub(super) async fn until(
    what: &'static str,
    limit: Duration,
    mut come: impl AsyncFnMut() -> bool,
    said: impl AsyncFnOnce() -> String,
) -> Result<(), TestRedisError> {
    let deadline = Instant::now() + limit;
    while !come().await {
        if Instant::now() >= deadline {
            return Err(TestRedisError::Timeout(what, limit, said().await));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

pub(super) async fn connect(
    client: &Client,
    connect: Duration,
    response: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let settings =
        AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(response));
    client.get_multiplexed_async_connection_with_config(&settings).await
}

/// Waits until the server answers PING, asking before each try whether there is still a server to ask, and who has the
/// port. What another server there answers counts for nothing.
pub(super) async fn wait_until_ready(
    client: &Client,
    mut is_there: impl AsyncFnMut() -> Result<Port, TestRedisError>,
) -> Result<Identity, TestRedisError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let port = is_there().await?;
        let why = match timeout(QUESTION, ask(client)).await {
            Ok(Ok(identity)) if port.is_answered_by(identity.pid) => return Ok(identity),
            Ok(Ok(identity)) => {
                let another = format!("process {} answers instead", identity.pid.unwrap_or_default());
                if port.is_sure() {
                    let cure = format!("{another}; a program that {SERVER} names has to `exec` the server");
                    return Err(TestRedisError::refused("knowing the server", cure));
                }
                another
            }
            Ok(Err(error)) if port.is_sure() => lasting(error)?,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "none".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(TestRedisError::Timeout("an answer to PING", PATIENCE, why));
        }
        sleep(PAUSE).await;
    }
}

/// An answer that no waiting changes is an error; of any other, the words.
fn lasting(error: RedisError) -> Result<String, TestRedisError> {
    let words = error.to_string();
    let judged = Error::connecting("asking the server", error);
    if judged.is_retryable() {
        return Ok(words);
    }
    let cure = "give the login by `.password(..)` or `.user(..)`, or in the URL of a shared server";
    let judged = if judged.kind() == ErrorKind::Denied { judged.cured_by(cure) } else { judged };
    Err(TestRedisError::refused("reaching the server", judged))
}

async fn ask(client: &Client) -> Result<Identity, RedisError> {
    let mut connection = connect(client, QUESTION, QUESTION).await?;
    // A server that still loads its data refuses PING, not INFO.
    redis::cmd("PING").query_async::<()>(&mut connection).await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let valkey = field("valkey_version:");
    Ok(Identity {
        name: if valkey.is_some() { "valkey-server" } else { "redis-server" },
        version: valkey.or_else(|| field("redis_version:")).unwrap_or_default().to_owned(),
        pid: field("process_id:").and_then(|pid| pid.parse().ok()),
    })
}
