//! The calls about locks, each one round trip.

use std::time::Duration;

use redis::{ScriptInvocation, Value};

use super::batcher::{Ask, BatchRunner, Batcher};
use super::commands::Commands;
use super::replies::{number, text};
use crate::error::Error;
use crate::model::{FencingToken, MemberId};
use crate::proto::Acquired;
use crate::scripts;
use crate::wire::{Grant, HoldId, LockRecord, QueueEntry, waiting};

/// The holders and the waiters of a lock.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub(crate) holders: Vec<LockRecord>,
    /// For each: whether it wants to share the lock, its member, and since when, in the server's microseconds.
    pub(crate) waiters: Vec<(bool, MemberId, u64)>,
}

/// What goes together with its like.
pub(super) struct Batchers {
    runner: BatchRunner,
    acquire: Batcher<Acquired>,
    release: Batcher<bool>,
}

impl Batchers {
    pub(super) fn new(runner: BatchRunner) -> Self {
        Self {
            runner,
            acquire: Batcher::new("acquire", &scripts::LOCK_ACQUIRE, acquired),
            release: Batcher::new("release", &scripts::LOCK_RELEASE, is_one),
        }
    }
}

impl Commands {
    /// Tries to hold the lock; where `queues`, stands in its queue otherwise.
    pub(crate) async fn acquire(&self, queue_entry: &QueueEntry, queues: bool) -> Result<Acquired, Error> {
        let entry = queue_entry.text(self.context.config.safety());
        let argument = if queues { format!("wait {entry}") } else { format!("try {entry}") };
        self.batched(&self.batchers.acquire, &queue_entry.hold_id, argument).await
    }

    /// Gives the lock back, or the place in its queue. Answers whether it was held.
    pub(crate) async fn release(&self, queue_entry: &QueueEntry) -> Result<bool, Error> {
        let entry = queue_entry.text(self.context.config.safety());
        self.batched(&self.batchers.release, &queue_entry.hold_id, entry).await
    }

    async fn batched<A: Send + 'static>(
        &self,
        batcher: &Batcher<A>,
        hold_id: &HoldId,
        argument: String,
    ) -> Result<A, Error> {
        let key = self.context.keys.at("locks", &hold_id.name);
        batcher
            .ask(&self.connection, &self.context, &self.batchers.runner, &hold_id.session, Ask { key, argument })
            .await
    }

    /// Takes the lock from its holders. Answers from how many.
    pub(crate) async fn break_lock(mut self, name: &str) -> Result<u64, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::LOCK_BREAK.key(keys.at("locks", name));
        script.key(keys.at("shared", name)).arg(keys.prefix()).arg(name);
        self.ask("break", &script, number).await
    }

    /// The holders and the waiters of the lock.
    pub(crate) async fn inspect(mut self, name: &str) -> Result<Inspection, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::LOCK_INSPECT.key(keys.at("locks", name));
        script.key(keys.at("shared", name)).key(keys.at("queues", name)).arg(keys.prefix());
        self.ask("inspection of the lock", &script, inspection).await
    }

    /// Invokes a script in bounded time, and reads its answer.
    pub(super) async fn ask<T>(
        &mut self,
        name: &str,
        script: &ScriptInvocation<'_>,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, Error> {
        let (context, limit) = (self.context.clone(), self.limit);
        let asking = async { read(&self.invoke(name, script).await?).ok_or_else(|| Error::unexpected(name)) };
        context.within(name, limit, asking).await
    }
}

pub(super) fn is_one(value: &Value) -> Option<bool> {
    number(value).map(|number| number == 1)
}

fn acquired(value: &Value) -> Option<Acquired> {
    let mut words = std::str::from_utf8(text(value)?).ok()?.split(' ');
    Some(match words.next()? {
        "held" => Acquired::Held(Grant {
            token: FencingToken::new(words.next()?.parse().ok()?),
            since_ms: words.next()?.parse().ok()?,
        }),
        "busy" => Acquired::Busy,
        "queued" => Acquired::Queued {
            before: words.next()?.parse().ok()?,
            again: words.next()?.parse().ok().map(Duration::from_millis),
        },
        "lost" => Acquired::Lost,
        _ => return None,
    })
}

fn inspection(value: &Value) -> Option<Inspection> {
    let Value::Array(parts) = value else { return None };
    let [Value::Array(holders), Value::Array(waiters)] = &parts[..] else { return None };
    // What is no record of a lock holds nothing; what is no entry waits for nothing.
    let holders = holders.iter().filter_map(|holder| LockRecord::parse(text(holder)?)).collect();
    let waiter = |pair: &[Value]| {
        let (shared, member) = waiting(text(&pair[0])?)?;
        Some((shared, member, number(&pair[1])?))
    };
    Some(Inspection { holders, waiters: waiters.chunks_exact(2).filter_map(waiter).collect() })
}
