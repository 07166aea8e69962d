//! Asking a server whether it is there and what it is.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};
use tokio::time::{Instant, sleep, timeout};

use super::TestRedisError;

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

pub(super) async fn connect(
    url: &str,
    connect: Duration,
    response: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let settings =
        AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(response));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&settings).await
}

/// Waits until the server answers PING, asking before each try whether there is still a server to ask.
pub(super) async fn wait_until_ready(
    url: &str,
    mut is_there: impl AsyncFnMut() -> Result<(), TestRedisError>,
) -> Result<Identity, TestRedisError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        is_there().await?;
        let why = match timeout(QUESTION, ask(url)).await {
            Ok(Ok(identity)) => return Ok(identity),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "none".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(TestRedisError::Timeout("an answer to PING", PATIENCE, why));
        }
        sleep(PAUSE).await;
    }
}

async fn ask(url: &str) -> Result<Identity, RedisError> {
    let mut connection = connect(url, QUESTION, QUESTION).await?;
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
