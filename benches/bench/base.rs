//! What a user would write with the redis crate alone.

use std::sync::LazyLock;

use futures_util::StreamExt;
use group_redis::redis::aio::{MultiplexedConnection, PubSub};
use group_redis::redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Script, cmd};

use crate::clock;
use crate::watch::Tally;
use crate::way::{Figures, Outcome, Way, figures, say};

/// As the connector's own connections are: without Nagle's delay.
fn client(url: &str) -> Outcome<Client> {
    let info = url.into_connection_info()?;
    let settings = info.tcp_settings().clone().set_nodelay(true);
    Ok(Client::open(info.set_tcp_settings(settings))?)
}

pub(crate) async fn connection(url: &str) -> Outcome<MultiplexedConnection> {
    // A server that is filled, or that others keep busy, may take its time: the harness has a limit of its own.
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client(url)?.get_multiplexed_async_connection_with_config(&patient).await?)
}

/// Hears of every change of a key of that group.
pub(crate) async fn subscription(url: &str, group: &str) -> Outcome<PubSub> {
    let mut subscription = client(url)?.get_async_pubsub().await?;
    subscription.psubscribe(format!("__keyspace@0__:{group}/*")).await?;
    Ok(subscription)
}

pub(crate) async fn ping(connection: &mut MultiplexedConnection) -> Outcome<()> {
    Ok(cmd("PING").query_async::<()>(connection).await?)
}

pub(crate) async fn set(connection: &mut MultiplexedConnection, key: &str) -> Outcome<()> {
    Ok(cmd("SET").arg(key).arg("value").query_async::<()>(connection).await?)
}

pub(crate) async fn del(connection: &mut MultiplexedConnection, key: &str) -> Outcome<()> {
    Ok(cmd("DEL").arg(key).query_async::<()>(connection).await?)
}

/// The least that a lock can be: without a queue, a lease or a fencing token.
pub(crate) async fn lock_and_unlock(connection: &mut MultiplexedConnection) -> Outcome<()> {
    static UNLOCK: LazyLock<Script> =
        LazyLock::new(|| Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])"));
    let mut lock = cmd("SET");
    lock.arg("simplest").arg("nonce").arg("NX").arg("PX").arg(30_000).query_async::<()>(connection).await?;
    Ok(UNLOCK.key("simplest").arg("nonce").invoke_async::<()>(connection).await?)
}

/// A process that watches the keys.
pub(crate) async fn watch(url: &str, group: &str, mut tally: Tally) -> Outcome<()> {
    let mut subscription = subscription(url, group).await?;
    say("ready")?;
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        match message.get_payload_bytes() {
            b"set" => tally.count("joined")?,
            b"del" => tally.count("left")?,
            _ => {}
        }
    }
    Ok(())
}

/// The seconds of a core that the server has used.
pub(crate) async fn used_by_server(connection: &mut MultiplexedConnection) -> Outcome<f64> {
    let text: String = cmd("INFO").arg("cpu").query_async(connection).await?;
    let used = |name: &str| {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<f64>().ok();
        text.lines().find_map(of).ok_or_else(|| format!("the server does not say {name}"))
    };
    Ok(used("used_cpu_user")?
        + used("used_cpu_sys")?
        + used("used_cpu_user_children")?
        + used("used_cpu_sys_children")?)
}

/// `PING`s one after the other.
pub(crate) struct Pings {
    connection: MultiplexedConnection,
    count: usize,
}

impl Pings {
    pub(crate) async fn begin(url: &str, count: usize) -> Outcome<Self> {
        Ok(Self { connection: connection(url).await?, count })
    }
}

impl Way for Pings {
    async fn round(&mut self) -> Outcome<Figures> {
        let mut took = Vec::new();
        for _ in 0..self.count {
            let began = clock::now();
            ping(&mut self.connection).await?;
            took.push(clock::now() - began);
        }
        Ok(figures([("ping", took)]))
    }
}
