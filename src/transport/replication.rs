//! Waits until replicas have what was written. `WAIT` blocks the connection that it comes by, so it has one of its own,
//! and one wait serves all calls that ask meanwhile (group commit, as for the batches of locks).
//!
//! A wait covers what was written before on any connection: it follows a write of its own, and replicas acknowledge the
//! stream of all writes up to there.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::commands::Commands;
use super::link::{Opened, within};
use super::login::Login;
use crate::error::Error;
use crate::scripts::ms;
use crate::settings::{Config, Replication};

/// How many calls may stand in line.
const CALLS: usize = 1024;

type Answer = Result<(), Error>;

/// The way to the one that waits for replicas. A clone is the same way.
#[derive(Clone)]
pub(super) struct Acknowledgements {
    calls: mpsc::Sender<oneshot::Sender<Answer>>,
    limit: Duration,
}

/// Waits for replicas until its connection fails, or nobody can ask any more.
pub(super) struct Acknowledging {
    connection: MultiplexedConnection,
    login: Login,
    calls: mpsc::Receiver<oneshot::Sender<Answer>>,
    replicas: u32,
    patience: Duration,
    /// What is written before each wait.
    key: String,
    config: Config,
    /// Tells the link, when it is dropped.
    _broken: DropGuard,
}

impl Acknowledgements {
    /// `None` where no replicas are to be waited for.
    pub(super) fn over(
        opened: Opened,
        key: String,
        config: &Config,
    ) -> Option<(Self, Acknowledging, CancellationToken)> {
        let Replication::Ack { replicas, timeout: patience } = config.replication else { return None };
        let Opened { connection, login, .. } = opened;
        let (asking, calls) = mpsc::channel(CALLS);
        // One wait may be under way already.
        let limit = (patience + config.command_timeout) * 2;
        let broken = CancellationToken::new();
        let _broken = broken.clone().drop_guard();
        let config = config.clone();
        let acknowledging = Acknowledging { connection, login, calls, replicas, patience, key, config, _broken };
        Some((Self { calls: asking, limit }, acknowledging, broken))
    }

    async fn ask(&self, what: &str) -> Answer {
        let asking = async {
            let (answer, answered) = oneshot::channel();
            let gone =
                || Error::unacknowledged(what, "the connection that waits for replicas has failed").of_the_link();
            self.calls.send(answer).await.map_err(|_| gone())?;
            answered.await.unwrap_or_else(|_| Err(gone()))
        };
        let limit = self.limit;
        let late = |_| Err(Error::unacknowledged(what, &format!("the server has not answered within {limit:?}")));
        timeout(limit, asking).await.unwrap_or_else(late)
    }
}

impl Acknowledging {
    pub(super) async fn run(mut self) {
        let mut next = tokio::time::interval(self.config.heartbeat);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                first = self.calls.recv() => {
                    let Some(first) = first else { return };
                    let mut waiting = vec![first];
                    while let Ok(call) = self.calls.try_recv() {
                        waiting.push(call);
                    }
                    let answer = self.wait().await;
                    let fails = answer.as_ref().is_err_and(Error::is_of_the_link);
                    for call in waiting {
                        // Whoever has given up does not want to know.
                        let _ = call.send(answer.clone());
                    }
                    if fails {
                        return;
                    }
                }
                _ = next.tick() => {
                    let limit = self.config.pulse_timeout();
                    self.login.renew(&mut [&mut self.connection], limit).await;
                    let ping = redis::cmd("PING");
                    if within("PING", limit, ping.query_async::<()>(&mut self.connection)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn wait(&mut self) -> Answer {
        let mut waiting = redis::pipe();
        waiting.cmd("SET").arg(&self.key).arg(1).arg("PX").arg(ms(self.patience).max(1)).ignore();
        waiting.cmd("WAIT").arg(self.replicas).arg(ms(self.patience).max(1));
        let limit = self.patience + self.config.command_timeout;
        let waited = within("WAIT", limit, waiting.query_async(&mut self.connection)).await;
        // Whatever was refused here, the write of the caller is done.
        let (count,): (u32,) = waited.map_err(Error::after_unanswered)?;
        if count >= self.replicas {
            return Ok(());
        }
        let (replicas, patience) = (self.replicas, self.patience);
        let why = format!("{count} of {replicas} replicas have acknowledged it within {patience:?}");
        Err(Error::unacknowledged("the write", &why))
    }
}

impl Commands {
    /// Waits until enough replicas have what was written before over this link. At once where none are to be waited for.
    pub(crate) async fn acknowledged(&self, what: &str) -> Answer {
        match &self.acknowledgements {
            None => Ok(()),
            Some(acknowledgements) => acknowledgements.ask(what).await.map_err(|error| error.at(&self.context.server)),
        }
    }
}
