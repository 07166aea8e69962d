//! Moving a slot in one piece, where the server can.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::TestRedisError;

/// How a server moves a slot in one piece.
#[derive(Clone, Copy)]
pub(super) enum Migration {
    /// Valkey 9.0 and later: the owner is told.
    Export,
    /// Redis 8.4 and later: the node that is to have the slot is told.
    Import,
}

/// The servers at both ends.
pub(super) struct Ends {
    pub(super) from: MultiplexedConnection,
    pub(super) to: MultiplexedConnection,
    /// The name of the node that is to have the slot.
    pub(super) id: String,
}

/// A migration that was begun, as the server that was told calls it.
pub(super) struct Begun {
    way: Migration,
    told: MultiplexedConnection,
    task: String,
}

impl Migration {
    /// What this server can do.
    pub(super) async fn of(server: &mut MultiplexedConnection) -> Result<Self, TestRedisError> {
        for (way, command) in [(Self::Export, "cluster|migrateslots"), (Self::Import, "cluster|migration")] {
            let info = redis::cmd("COMMAND").arg("INFO").arg(command).query_async(server).await;
            let info: Vec<Value> = info.map_err(|error| failed("COMMAND INFO", error))?;
            if info.iter().any(|info| *info != Value::Nil) {
                return Ok(way);
            }
        }
        Err(TestRedisError::Lacking("move a slot in one piece: Valkey 9.0 and Redis 8.4 can"))
    }

    pub(super) async fn begin(self, slot: u16, mut ends: Ends) -> Result<Begun, TestRedisError> {
        match self {
            Self::Export => {
                let before = tasks(&mut ends.from, self).await?;
                let mut command = redis::cmd("CLUSTER");
                command.arg("MIGRATESLOTS").arg("SLOTSRANGE").arg(slot).arg(slot).arg("NODE").arg(&ends.id);
                let begun = command.query_async::<()>(&mut ends.from).await;
                begun.map_err(|error| failed("CLUSTER MIGRATESLOTS", error))?;
                let after = tasks(&mut ends.from, self).await?;
                let task = after.into_keys().find(|task| !before.contains_key(task));
                let task =
                    task.ok_or_else(|| TestRedisError::refused("moving the slot", "the server lists no task"))?;
                Ok(Begun { way: self, told: ends.from, task })
            }
            Self::Import => {
                let mut command = redis::cmd("CLUSTER");
                command.arg("MIGRATION").arg("IMPORT").arg(slot).arg(slot);
                let task = command.query_async(&mut ends.to).await;
                let task = task.map_err(|error| failed("CLUSTER MIGRATION IMPORT", error))?;
                Ok(Begun { way: self, told: ends.to, task })
            }
        }
    }
}

impl Begun {
    /// Whether it has ended. One that has failed is an error.
    pub(super) async fn has_ended(&mut self) -> Result<bool, TestRedisError> {
        let state = tasks(&mut self.told, self.way).await?.remove(&self.task).unwrap_or_default();
        match &*state {
            "success" | "completed" => Ok(true),
            "failed" | "cancelled" | "canceled" => Err(TestRedisError::refused("moving the slot", state)),
            _ => Ok(false),
        }
    }
}

/// The state of each migration that the server knows.
async fn tasks(server: &mut MultiplexedConnection, way: Migration) -> Result<HashMap<String, String>, TestRedisError> {
    let (words, name) = match way {
        Migration::Export => (&["GETSLOTMIGRATIONS"][..], "name"),
        Migration::Import => (&["MIGRATION", "STATUS", "ALL"][..], "id"),
    };
    let listed = redis::cmd("CLUSTER").arg(words).query_async::<Vec<HashMap<String, Value>>>(server).await;
    let text = |fields: &HashMap<String, Value>, field| redis::from_redis_value_ref(fields.get(field)?).ok();
    let listed = listed.map_err(|error| failed("listing the migrations", error))?;
    Ok(listed.iter().filter_map(|fields| Some((text(fields, name)?, text(fields, "state")?))).collect())
}

fn failed(what: &'static str, error: RedisError) -> TestRedisError {
    TestRedisError::Redis(what, error)
}
