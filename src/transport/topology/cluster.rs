//! What a node of a cluster says: who serves a slot.

use futures_util::future::try_join3;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, Value, from_redis_value_ref};

use super::identity::{Mode, Owner};
use crate::error::Error;
use crate::scripts::Channels;

/// Ranges, each as first, last, primary and replicas.
type Slots = Vec<Vec<Value>>;

/// A range of slots, and its primary.
struct Range {
    first: u16,
    last: u16,
    /// `None` where it is that of the node that was asked.
    host: Option<String>,
    port: u16,
    id: String,
}

/// Asks a node who serves the slot of this key.
pub(super) async fn node(connection: &mut MultiplexedConnection, key: &str, channels: Channels) -> Result<Mode, Error> {
    let (mut first, mut second) = (connection.clone(), connection.clone());
    let (slot, slots) = (command(&["KEYSLOT", key]), command(&["SLOTS"]));
    let asked = try_join3(slot.query_async(&mut first), name(&mut second), slots.query_async(connection));
    let (slot, me, slots): (u16, _, Slots) = asked.await.map_err(|error| Error::connecting("CLUSTER SLOTS", error))?;
    let ranges: Option<Vec<_>> = slots.iter().map(|range| Range::read(range)).collect();
    let ranges = ranges.ok_or_else(|| Error::unexpected("CLUSTER SLOTS"))?;
    let range = ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
    let is_here = match (range, me) {
        (Some(range), Some(me)) => range.id == me,
        (Some(_), None) => moved(connection, key).await.is_none(),
        (None, _) => false,
    };
    let owner = match range {
        None => Owner::Nobody,
        Some(_) if is_here => Owner::ThisNode,
        Some(Range { host, port, .. }) => Owner::Other { host: host.clone(), port: *port },
    };
    let mut primaries: Vec<_> = ranges.into_iter().filter_map(|range| Some((range.host?, range.port))).collect();
    primaries.sort_unstable();
    primaries.dedup();
    Ok(Mode::Node { owner, primaries, channels })
}

/// The answer of a node that does not serve the slot of this key. Any other answer says nothing of who serves it.
pub(super) async fn moved(connection: &mut MultiplexedConnection, key: &str) -> Option<RedisError> {
    let asked = redis::cmd("EXISTS").arg(key).query_async::<Value>(connection).await;
    asked.err().filter(|error| error.code() == Some("MOVED"))
}

/// The name of the node. Redis Software, and Redis Cloud with it, has no such command.
async fn name(connection: &mut MultiplexedConnection) -> Result<Option<String>, RedisError> {
    match command(&["MYID"]).query_async(connection).await {
        Ok(name) => Ok(Some(name)),
        Err(error) if error.code().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Range {
    fn read(values: &[Value]) -> Option<Self> {
        let [first, last, Value::Array(primary), ..] = values else { return None };
        let [host, port, id, ..] = &**primary else { return None };
        // An address that the node does not know is nil, empty or a question mark.
        let host = read::<Option<String>>(host)?.filter(|host| !host.is_empty() && host != "?");
        Some(Self { first: read(first)?, last: read(last)?, host, port: read(port)?, id: read(id)? })
    }
}

fn read<T: FromRedisValue>(value: &Value) -> Option<T> {
    from_redis_value_ref(value).ok()
}

fn command(words: &[&str]) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg(words);
    command
}
