//! The connection over which heartbeats go, and by which others see the session.

use std::convert::Infallible;
use std::future::pending;

use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::commands::Commands;
use super::link::{Dialer, Role, within};
use crate::error::Error;
use crate::model::SessionId;
use crate::scripts::presence;

/// A connection for heartbeats. Where it is subscribed to the session's channel, its being there is our presence.
pub(super) struct HeartbeatConnection {
    pub(super) commands: Commands,
    pub(super) is_present: bool,
    is_marked: bool,
    /// Whether it was closed.
    pub(super) closed: CancellationToken,
}

/// A connection that did not come to stand.
pub(super) struct Unopened {
    pub(super) error: Error,
    /// Whether others may have seen the session by it.
    pub(super) may_be_seen: bool,
}

impl From<Error> for Unopened {
    fn from(error: Error) -> Self {
        Self { error, may_be_seen: false }
    }
}

impl HeartbeatConnection {
    pub(super) async fn open(dialer: &Dialer, session: &SessionId, presence: bool) -> Result<Self, Unopened> {
        let closed = CancellationToken::new();
        if !presence {
            let commands = dialer.commands(dialer.connection(Role::Heartbeat).await?);
            return Ok(Self { commands, is_present: false, is_marked: false, closed });
        }
        let ended = closed.clone();
        let settings = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                ended.cancel();
            }
            Ok::<_, Infallible>(())
        });
        let connection = match dialer.connection_with(Role::Heartbeat, ProtocolVersion::RESP3, settings).await {
            Err(error) if !error.is_of_the_link() => {
                tracing::debug!(%error, "no RESP3: a crash of this process is seen when its lease runs out");
                let commands = dialer.commands(dialer.connection(Role::Heartbeat).await?);
                return Ok(Self { commands, is_present: false, is_marked: false, closed });
            }
            connection => connection?,
        };
        let channel = dialer.scripts().keys.presence(session.as_str());
        let mut subscriber = connection.clone();
        let subscribing = subscriber.subscribe(&channel);
        let is_present =
            match within(&format!("SUBSCRIBE {channel}"), dialer.config().pulse_timeout(), subscribing).await {
                Ok(()) => true,
                Err(error) if error.is_of_the_link() => return Err(Unopened { error, may_be_seen: true }),
                Err(error) => {
                    tracing::warn!(%error, "a crash of this process is seen only when its lease runs out");
                    false
                }
            };
        Ok(Self { commands: dialer.commands(connection), is_present, is_marked: false, closed })
    }

    /// Lets any prober judge the session, once for this connection. Without an answer it is tried again.
    pub(super) async fn mark(&mut self, session: &SessionId) {
        if !self.is_present || self.is_marked {
            return;
        }
        let marked = self.commands.mark(session).await;
        self.is_marked = marked.as_ref().err().is_none_or(|error| !error.is_of_the_link());
        if !matches!(marked, Ok(true)) {
            tracing::debug!(?marked, "only a prober that sees this process now will see its crash");
        }
    }

    /// Whether others see the session by it.
    pub(super) fn is_seen(&self) -> bool {
        self.is_present && !self.closed.is_cancelled()
    }

    /// Waits until the server does not see us by this any more.
    pub(super) async fn vanished(connection: &Option<Self>) {
        match connection {
            Some(connection) if connection.is_present => connection.closed.cancelled().await,
            _ => pending().await,
        }
    }
}

impl Commands {
    /// Whether the server could mark the lease.
    async fn mark(&mut self, session: &SessionId) -> Result<bool, Error> {
        let (mark, limit) = (presence::mark(&self.context.scripts, session), self.context.config.pulse_timeout());
        let marking = timeout(limit, self.invoke_unbounded(&mark));
        marking.await.unwrap_or_else(|_| Err(Error::no_answer(mark.name(), limit)))
    }
}
