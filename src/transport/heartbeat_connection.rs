//! The connection over which heartbeats go, and by which others see the session.

use std::convert::Infallible;
use std::future::pending;

use futures_util::future::join;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::commands::{Commands, subscribe};
use super::link::{Dialer, Opened, Role, within};
use super::login::Login;
use crate::clock;
use crate::error::Error;
use crate::model::SessionId;
use crate::proto::Moment;
use crate::scripts::{presence, session};

/// How a connection for heartbeats begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Opening {
    /// Others do not see the session by it.
    Unseen,
    Seen,
    /// The lease is renewed before: others have seen the session, and may shorten it until they see it again.
    RenewedAndSeen,
}

/// A connection for heartbeats. Where it is subscribed to the session's channel, its being there is our presence.
pub(super) struct HeartbeatConnection {
    pub(super) commands: Commands,
    login: Login,
    pub(super) is_present: bool,
    /// When the renewal was sent that came before the subscription, if it was answered.
    pub(super) renewed: Option<Moment>,
    is_marked: bool,
    closed: CancellationToken,
    /// Cancelled when another server is the primary.
    replaced: CancellationToken,
}

/// A connection that did not come to stand.
pub(super) struct Unopened {
    pub(super) error: Error,
    /// Whether others may have seen the session by it.
    pub(super) may_be_seen: bool,
    /// When the renewal was sent that came before the subscription, if it was answered.
    pub(super) renewed: Option<Moment>,
}

impl From<Error> for Unopened {
    fn from(error: Error) -> Self {
        Self { error, may_be_seen: false, renewed: None }
    }
}

impl HeartbeatConnection {
    pub(super) async fn open(dialer: &Dialer, session: &SessionId, opening: Opening) -> Result<Self, Unopened> {
        if opening == Opening::Unseen {
            return Self::unseen(dialer).await;
        }
        let settings = || {
            let closed = CancellationToken::new();
            let ended = closed.clone();
            let settings = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
                // The node that serves the group now sees nothing of this connection. Nor does redis-rs know that nobody has
                // asked for it: from here on every answer would be taken for that of the call after it.
                if matches!(push.kind, PushKind::Disconnection | PushKind::SUnsubscribe) {
                    ended.cancel();
                }
                Ok::<_, Infallible>(())
            });
            (settings, closed)
        };
        let opened = match dialer.connection_with(Role::Heartbeat, ProtocolVersion::RESP3, settings).await {
            Err(error) if !error.is_of_the_link() => {
                tracing::debug!(%error, "no RESP3: a crash of this process is seen when its lease runs out");
                return Self::unseen(dialer).await;
            }
            opened => opened?,
        };
        let (Opened { connection, login, primary }, closed) = opened;
        let mut commands = dialer.commands(connection.clone());
        let channel = dialer.scripts().keys.presence(session.as_str());
        let mut subscriber = connection;
        let mut renewed = None;
        // Sent without waiting for each other, the renewal first.
        let opened = async {
            let renewing = async {
                let sent = clock::now();
                if opening == Opening::RenewedAndSeen && commands.heartbeat(session).await.unwrap_or(false) {
                    renewed = Some(sent);
                }
            };
            join(renewing, subscribe(&mut subscriber, &channel, primary.channels)).await.1
        };
        let limit = dialer.config().pulse_timeout();
        let is_present = match within(&format!("SUBSCRIBE {channel}"), limit, opened).await {
            Ok(()) => true,
            Err(error) if error.is_of_the_link() => return Err(Unopened { error, may_be_seen: true, renewed }),
            Err(error) => {
                tracing::warn!(%error, "a crash of this process is seen only when its lease runs out");
                false
            }
        };
        let replaced = primary.replaced;
        Ok(Self { commands, login, is_present, renewed, is_marked: false, closed, replaced })
    }

    async fn unseen(dialer: &Dialer) -> Result<Self, Unopened> {
        let Opened { connection, login, primary } = dialer.connection(Role::Heartbeat).await?;
        Ok(Self {
            commands: dialer.commands(connection),
            login,
            is_present: false,
            renewed: None,
            is_marked: false,
            closed: CancellationToken::new(),
            replaced: primary.replaced,
        })
    }

    /// Waits until it was closed, or is of no use, since another server is the primary.
    ///
    /// Cancel safe.
    pub(super) async fn closed(&self) {
        tokio::select! {
            () = self.closed.cancelled() => {}
            () = self.replaced.cancelled() => {}
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.replaced.is_cancelled()
    }

    /// Logs in anew, if there are new credentials.
    pub(super) async fn renew_login(&mut self) {
        let limit = self.commands.context.config.pulse_timeout();
        self.login.renew(&mut [&mut self.commands.connection], limit).await;
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
        self.is_present && !self.is_closed()
    }

    /// Waits until the server does not see us by this any more.
    pub(super) async fn vanished(connection: &Option<Self>) {
        match connection {
            Some(connection) if connection.is_present => connection.closed().await,
            _ => pending().await,
        }
    }
}

impl Commands {
    /// One heartbeat: whether the lease lives.
    pub(super) async fn heartbeat(&mut self, session: &SessionId) -> Result<bool, Error> {
        let heartbeat = session::heartbeat(&self.context.scripts, session);
        self.invoke_unbounded(&heartbeat).await
    }

    /// Whether the server could mark the lease.
    async fn mark(&mut self, session: &SessionId) -> Result<bool, Error> {
        let (mark, limit) = (presence::mark(&self.context.scripts, session), self.context.config.pulse_timeout());
        let marking = timeout(limit, self.invoke_unbounded(&mark));
        marking.await.unwrap_or_else(|_| Err(Error::no_answer(mark.name(), limit)))
    }
}
