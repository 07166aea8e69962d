//! What a server says of itself: whether it is a primary, and which run of it this is.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{Value, from_redis_value_ref};

use super::cluster;
use crate::error::Error;
use crate::scripts::Channels;

#[derive(Debug, PartialEq)]
pub(in crate::transport) enum Mode {
    Primary,
    /// Of this one, if it says.
    Replica {
        of: Option<(String, u16)>,
    },
    Sentinel,
    /// A node of a cluster.
    Node {
        owner: Owner,
        /// Where the primaries are.
        primaries: Vec<(String, u16)>,
        channels: Channels,
    },
}

impl Mode {
    /// By what channels messages go there.
    pub(in crate::transport) fn channels(&self) -> Channels {
        match self {
            Self::Node { channels, .. } => *channels,
            _ => Channels::Plain,
        }
    }
}

/// Who serves the group's slot of a cluster.
#[derive(Debug, PartialEq)]
pub(in crate::transport) enum Owner {
    ThisNode,
    /// `None`: at the host of the node that was asked.
    Other {
        host: Option<String>,
        port: u16,
    },
    Nobody,
}

/// Asks a server what it is. One round trip; one more for a replica, to learn of whom, and for a node of a cluster, to
/// learn who serves this key.
pub(in crate::transport) async fn mode(connection: &mut MultiplexedConnection, key: &str) -> Result<Mode, Error> {
    let Hello { mode, role, version } = hello(connection).await?;
    match (mode.as_deref(), is_replica(role.as_deref())) {
        (Some("sentinel"), _) => Ok(Mode::Sentinel),
        (Some("cluster"), _) => cluster::node(connection, key, channels_of(version.as_deref())).await,
        (_, true) => Ok(Mode::Replica { of: primary_of(connection).await }),
        (_, false) => Ok(Mode::Primary),
    }
}

/// Asks a primary whether it is one still; a node of a cluster, whether it serves this key still. Answers why not. One
/// round trip, and one more in a cluster.
pub(in crate::transport) async fn demoted(
    connection: &mut MultiplexedConnection,
    key: &str,
) -> Result<Option<Error>, Error> {
    let Hello { mode, role, .. } = hello(connection).await?;
    if is_replica(role.as_deref()) {
        return Ok(Some(Error::replica_there(primary_of(connection).await).while_reconnecting()));
    }
    if mode.as_deref() == Some("cluster") {
        return Ok(cluster::moved(connection, key).await.map(|error| Error::from_redis("EXISTS", error)));
    }
    Ok(None)
}

#[derive(Default)]
struct Hello {
    mode: Option<String>,
    role: Option<String>,
    version: Option<String>,
}

/// Those of a node of this version: before Redis 7.0 there are no others.
fn channels_of(version: Option<&str>) -> Channels {
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 7) { Channels::Sharded } else { Channels::Plain }
}

fn is_replica(role: Option<&str>) -> bool {
    matches!(role, Some("replica" | "slave"))
}

/// Needs no right. A server that does not know it, as some proxies do, counts as a primary.
async fn hello(connection: &mut MultiplexedConnection) -> Result<Hello, Error> {
    let hello: HashMap<String, Value> = match redis::cmd("HELLO").query_async(connection).await {
        Ok(hello) => hello,
        Err(error) => {
            let error = Error::connecting("HELLO", error);
            if error.is_of_the_link() {
                return Err(error);
            }
            tracing::debug!(%error, "the server does not say whether it is a primary");
            return Ok(Hello::default());
        }
    };
    let says = |field: &str| hello.get(field).and_then(|value| from_redis_value_ref::<String>(value).ok());
    Ok(Hello { mode: says("mode"), role: says("role"), version: says("version") })
}

/// Which run of the server this is, if it says.
pub(super) async fn run(connection: &mut MultiplexedConnection) -> Option<String> {
    field(&info(connection, "server").await?, "run_id")
}

async fn primary_of(connection: &mut MultiplexedConnection) -> Option<(String, u16)> {
    let info = info(connection, "replication").await?;
    Some((field(&info, "master_host")?, field(&info, "master_port")?.parse().ok()?))
}

async fn info(connection: &mut MultiplexedConnection, section: &str) -> Option<String> {
    redis::cmd("INFO").arg(section).query_async(connection).await.ok()
}

fn field(info: &str, name: &str) -> Option<String> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}
