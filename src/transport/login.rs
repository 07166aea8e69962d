//! Credentials that come from a source: asked for before each connection, and again before they expire. Connections that
//! live on log in anew.
//!
//! The source runs on the runtime of the connector, whoever asks: what it has opened there would not work elsewhere.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::within;
use crate::backoff::backoff;
use crate::clock::{self, sleep_until};
use crate::error::{Error, ErrorKind};
use crate::proto::Moment;
use crate::settings::{Config, Credentials, CredentialsSource};

/// Logs the connections of one connector in.
#[derive(Clone)]
pub(super) struct Logins {
    source: Option<CredentialsSource>,
    /// How long the source may take.
    limit: Duration,
    /// How long before they expire new credentials are asked for, at the least.
    margin: Duration,
    longest_pause: Duration,
    runtime: Handle,
    tracker: TaskTracker,
    known: watch::Sender<Option<Known>>,
}

/// What the source answered last.
#[derive(Clone)]
struct Known {
    credentials: Credentials,
    asked: Moment,
}

/// One connection's side of it: what it has logged in with, or will.
#[derive(Clone)]
pub(super) struct Login(watch::Receiver<Option<Known>>);

impl Known {
    fn expires(&self) -> Option<Moment> {
        self.credentials.lifetime().map(|lifetime| self.asked + lifetime)
    }

    /// When new ones are asked for: after four fifths of their life, and earlier where that would be too late.
    fn due(&self, margin: Duration) -> Option<Moment> {
        let lifetime = self.credentials.lifetime()?;
        Some(self.asked + (lifetime - (lifetime / 5).max(margin).min(lifetime / 2)))
    }
}

impl Logins {
    /// In the runtime that this is called in.
    pub(super) fn new(source: Option<CredentialsSource>, config: &Config, tracker: TaskTracker) -> Self {
        let limit = config.connect_timeout;
        Self {
            source,
            limit,
            // A connection looks at each heartbeat whether there are new ones.
            margin: limit + 2 * config.heartbeat,
            longest_pause: config.backoff_cap,
            runtime: Handle::current(),
            tracker,
            known: watch::Sender::new(None),
        }
    }

    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// For a connection that is to be opened now.
    ///
    /// Where the source fails, the last credentials are taken as long as they have not expired.
    pub(super) async fn log_in(&self) -> Result<(Option<Credentials>, Login), Error> {
        if let Some(source) = &self.source {
            let asked = self.ask(source).await;
            let is_usable = |known: &Known| known.expires().is_none_or(|then| then > clock::now());
            match asked {
                Err(error) if self.known.borrow().as_ref().is_some_and(is_usable) => {
                    tracing::warn!(%error, "the last credentials are used");
                }
                asked => asked?,
            }
        }
        let mut seen = self.known.subscribe();
        let credentials = seen.borrow_and_update().as_ref().map(|known| known.credentials.clone());
        Ok((credentials, Login(seen)))
    }

    /// Asks the source, and tells all connections if it says something new.
    async fn ask(&self, source: &CredentialsSource) -> Result<(), Error> {
        let (asked, limit) = (clock::now(), self.limit);
        let asking = timeout(limit, source.ask());
        let answered = self.tracker.spawn_on(asking, &self.runtime).await;
        let credentials = match answered {
            Ok(Ok(Ok(credentials))) => credentials,
            Ok(Ok(Err(error))) => {
                let message = format!("the source of credentials failed: {error}");
                return Err(Error::new(ErrorKind::Connection, message).cured_by("see to the source"));
            }
            Ok(Err(_)) => {
                let message = format!("the source of credentials has not answered within {limit:?}");
                return Err(Error::new(ErrorKind::Timeout, message).cured_by("allow more by connect_timeout"));
            }
            Err(error) => {
                let message = format!("the source of credentials: {error}");
                return Err(Error::new(ErrorKind::Connection, message).cured_by("see to the source"));
            }
        };
        self.known.send_if_modified(|known| {
            // Of several that ask at once, the last to ask knows best.
            if known.as_ref().is_some_and(|known| known.asked > asked) {
                return false;
            }
            let is_new = known.as_ref().is_none_or(|known| known.credentials != credentials);
            *known = Some(Known { credentials, asked });
            is_new
        });
        Ok(())
    }

    /// Asks again before the credentials expire, until this is stopped.
    pub(super) async fn keep(&self, stop: CancellationToken) {
        let Some(source) = &self.source else { return };
        let keeping = async {
            let mut pauses = backoff(self.longest_pause);
            let mut changed = self.known.subscribe();
            loop {
                let due = changed.borrow_and_update().as_ref().and_then(|known| known.due(self.margin));
                let is_due = async {
                    match due {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    // There is always a sender: this has one.
                    _ = changed.changed() => continue,
                    () = is_due => {}
                }
                match self.ask(source).await {
                    Ok(()) => pauses = backoff(self.longest_pause),
                    Err(error) => {
                        tracing::warn!(%error, "credentials are not renewed yet");
                        sleep(pauses.next().unwrap_or(self.longest_pause)).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(keeping).await;
    }
}

impl Login {
    /// Logs the connections in anew, if there are new credentials since they were opened. One round trip then.
    pub(super) async fn renew(&mut self, connections: &mut [&mut MultiplexedConnection], limit: Duration) {
        if !self.0.has_changed().unwrap_or(false) {
            return;
        }
        let mut latest = self.0.clone();
        let Some(credentials) = latest.borrow_and_update().as_ref().map(|known| known.credentials.clone()) else {
            return;
        };
        for connection in connections.iter_mut() {
            let mut login = redis::cmd("AUTH");
            login.arg(credentials.user()).arg(credentials.secret());
            match within("AUTH", limit, login.query_async::<()>(&mut **connection)).await {
                Ok(()) => {}
                // It is tried again, unless the connection has ended.
                Err(error) if error.is_of_the_link() && error.kind() != ErrorKind::Denied => return,
                Err(error) => tracing::warn!(%error, "the server refuses the new credentials"),
            }
        }
        *self = Self(latest);
    }
}
