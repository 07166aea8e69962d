//! Keeps a lease alive: on a thread and a connection of its own, for as long as the application makes progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::commands::Commands;
use super::heartbeat_connection::{HeartbeatConnection, Opening, Unopened};
use super::heartbeat_thread::{HeartbeatThread, Looked};
use super::link::Dialer;
use super::vouched::{Vouch, Vouched};
use crate::backoff::backoff;
use crate::clock::{self, sleep_until};
use crate::error::{Error, ErrorKind};
use crate::model::SessionId;
use crate::proto::{LeaseKeeping, LeaseStep, Moment, Pulse, Reply};
use crate::scripts::session;
use crate::settings::{Config, Heartbeats};

/// How a heartbeat ended. Only the latest counts.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pub(crate) session: SessionId,
    /// Until when the lease is vouched for.
    pub(crate) until: Moment,
    /// When the lease is over by its ttl, by the last acknowledged heartbeat.
    pub(crate) over: Moment,
    pub(crate) pulse: Pulse,
    /// Why it failed, if it has.
    pub(crate) error: Option<Error>,
}

/// When the application's runtime last made progress.
#[derive(Debug, Default)]
struct Progress(AtomicU64);

impl Progress {
    fn made(&self) {
        self.0.store(clock::now().as_millis(), Ordering::Relaxed);
    }

    /// For how long it has made none.
    fn idle(&self) -> Duration {
        Duration::from_millis(clock::now().as_millis().saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

/// Since when what the session owns has its whole safety ttl: without a renewal it would run out, lease or no lease.
#[derive(Debug)]
struct Renewed(AtomicU64);

impl Renewed {
    fn at(&self) -> Moment {
        Moment::from_origin(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }

    fn set(&self, sent: Moment) {
        self.0.fetch_max(sent.as_millis(), Ordering::Relaxed);
    }
}

/// Where a connector's heartbeats run, and what it takes to start them.
pub(crate) struct LeaseKeeper {
    dialer: Dialer,
    tracker: TaskTracker,
    beats: watch::Sender<Option<Beat>>,
    vouched: watch::Sender<Vouch>,
}

/// A lease that is being kept. Dropped, it no longer is.
pub(crate) struct KeptLease {
    renewed: Arc<Renewed>,
    _stop: DropGuard,
    _thread: Option<Arc<HeartbeatThread>>,
}

impl KeptLease {
    /// The safety ttl of all that the session owns was renewed by what was sent then.
    pub(crate) fn renewed(&self, sent: Moment) {
        self.renewed.set(sent);
    }
}

impl LeaseKeeper {
    pub(crate) fn new(dialer: Dialer, tracker: TaskTracker) -> (Self, watch::Receiver<Option<Beat>>) {
        let (beats, receiver) = watch::channel(None);
        (Self { dialer, tracker, beats, vouched: watch::Sender::new(Vouch::none()) }, receiver)
    }

    pub(crate) fn vouched(&self) -> Vouched {
        Vouched::new(self.vouched.subscribe())
    }

    /// Keeps this session's lease alive, last acknowledged when sent at `acked`.
    pub(crate) fn keep(&self, session: SessionId, acked: Moment) -> KeptLease {
        let config = self.dialer.config();
        let stop = CancellationToken::new();
        let thread = match config.heartbeats {
            Heartbeats::Runtime => None,
            Heartbeats::Thread => HeartbeatThread::shared()
                .inspect_err(|error| tracing::warn!(%error, "no thread for heartbeats: they run on the runtime"))
                .ok(),
        };
        let progress = Arc::new(Progress::default());
        progress.made();
        let lease = LeaseKeeping::new(config.lease_timing(), acked);
        let renewed = Arc::new(Renewed(AtomicU64::new(acked.as_millis())));
        // A runtime that hangs would not notice in time that the connection is closed, and that the lease may be
        // shortened.
        let looked = thread.as_ref().filter(|_| config.grace().is_some()).map(|thread| thread.looked.clone());
        let attended = looked.clone().map(|looked| (looked, config.lease_timing().unattended));
        self.vouched.send_replace(Vouch { until: lease.vouched(), attended });
        let keeping = Keeping {
            dialer: self.dialer.clone(),
            session,
            lease,
            renewed: renewed.clone(),
            progress: progress.clone(),
            looked,
            pauses: pauses(config),
            error: None,
            beats: self.beats.clone(),
            vouched: self.vouched.clone(),
        };
        let span = tracing::debug_span!("group_redis_heartbeat", group = %config.group, session = %keeping.session);
        let beating = stop.clone().run_until_cancelled_owned(keeping.run().instrument(span));
        match &thread {
            Some(thread) => self.tracker.spawn_on(beating, &thread.handle),
            None => self.tracker.spawn(beating),
        };
        let pause = (config.stall_tolerance / 8).min(config.ttl / 4);
        self.tracker.spawn(stop.clone().run_until_cancelled_owned(show_progress(progress, pause)));
        KeptLease { renewed, _stop: stop.drop_guard(), _thread: thread }
    }
}

async fn show_progress(progress: Arc<Progress>, pause: Duration) {
    loop {
        progress.made();
        sleep(pause).await;
    }
}

fn pauses(config: &Config) -> ExponentialBackoff {
    backoff(config.backoff_cap.min(config.heartbeat))
}

/// One lease, kept by steps that the core decides.
struct Keeping {
    dialer: Dialer,
    session: SessionId,
    lease: LeaseKeeping,
    /// By what the driver renews.
    renewed: Arc<Renewed>,
    progress: Arc<Progress>,
    /// By which the session is seen by its connection, if it is.
    looked: Option<Arc<Looked>>,
    pauses: ExponentialBackoff,
    /// Why the last heartbeat failed, if it has.
    error: Option<Error>,
    beats: watch::Sender<Option<Beat>>,
    vouched: watch::Sender<Vouch>,
}

impl Keeping {
    /// Runs until the lease is lost.
    async fn run(mut self) {
        let mut connection: Option<HeartbeatConnection> = None;
        // What was not answered in time is closed only when the next stands: until then the server sees us by it.
        let mut before: Option<HeartbeatConnection> = None;
        loop {
            self.lease.renewed(self.renewed.at());
            match (self.lease.step(clock::now(), self.progress.idle()), &mut connection) {
                (LeaseStep::Lost, _) => return self.tell(Pulse::Lost),
                (LeaseStep::Connect(then), _) => {
                    connection = self.connect(then, &mut before).await;
                }
                (LeaseStep::Wait(then), Some(open)) => {
                    // After the first heartbeat over a new connection: that one is in a hurry.
                    open.mark(&self.session).await;
                    open.renew_login().await;
                    if self.wait(then, open).await {
                        connection = None;
                    }
                }
                (LeaseStep::Stalled(_), _) => {
                    let tolerance = self.dialer.config().stall_tolerance;
                    tracing::warn!(?tolerance, "the runtime makes no progress: no heartbeats");
                }
                (LeaseStep::Renew, Some(open)) => {
                    let (began, limit) = (clock::now(), self.dialer.config().pulse_timeout());
                    if open.commands.extend_all(&self.session, limit).await {
                        self.renewed.set(began);
                    }
                }
                (LeaseStep::Beat, Some(open)) => match self.beat(open).await {
                    Beaten::Answered => {}
                    Beaten::Closed => {
                        connection = None;
                        self.closed();
                    }
                    Beaten::Unanswered => {
                        before = connection.take();
                        let pause = self.next_pause();
                        let pulse = self.lease.unanswered(clock::now(), pause);
                        self.tell(pulse);
                    }
                },
                (LeaseStep::Wait(_) | LeaseStep::Renew | LeaseStep::Beat, None) => self.closed(),
            }
        }
    }

    /// Connects, not before then; none where that failed, or where the earlier connection was closed meanwhile.
    async fn connect(&mut self, then: Moment, before: &mut Option<HeartbeatConnection>) -> Option<HeartbeatConnection> {
        let opening = async {
            sleep_until(then).await;
            let opening = match &self.looked {
                Some(_) if self.lease.is_renewed_first(self.progress.idle()) => Opening::RenewedAndSeen,
                Some(_) => Opening::Seen,
                None => Opening::Unseen,
            };
            HeartbeatConnection::open(&self.dialer, &self.session, opening).await
        };
        let opened = tokio::select! {
            opened = opening => opened,
            () = HeartbeatConnection::vanished(before) => {
                *before = None;
                self.closed();
                return None;
            }
        };
        match opened {
            Ok(connection) => {
                *before = None;
                if let Some(sent) = connection.renewed {
                    self.lease.renewed_first(sent);
                }
                self.lease.connected(connection.is_present);
                Some(connection)
            }
            Err(Unopened { error, may_be_seen, renewed }) => {
                tracing::debug!(%error, "no connection for heartbeats");
                if let Some(sent) = renewed {
                    self.lease.renewed_first(sent);
                }
                self.error = Some(error.at(self.dialer.server()));
                let is_seen_by_another = before.as_ref().is_some_and(HeartbeatConnection::is_seen);
                if may_be_seen && !is_seen_by_another {
                    self.closed();
                } else {
                    let pause = self.next_pause();
                    let pulse = self.lease.not_connected(clock::now(), pause);
                    self.tell(pulse);
                }
                None
            }
        }
    }

    /// Waits until then; whether the connection was closed before.
    async fn wait(&mut self, then: Moment, open: &HeartbeatConnection) -> bool {
        tokio::select! {
            biased;
            () = open.closed() => {
                let error = Error::new(ErrorKind::Connection, "the connection of the heartbeats was closed");
                self.error = Some(error.at(self.dialer.server()));
                self.closed();
                true
            }
            () = sleep_until(then) => false,
        }
    }

    fn closed(&mut self) {
        let (now, pause) = (clock::now(), self.next_pause());
        let looked = self.looked.as_ref().map_or(now, |looked| looked.at());
        let pulse = self.lease.closed(now, looked, pause);
        self.tell(pulse);
    }

    async fn beat(&mut self, open: &mut HeartbeatConnection) -> Beaten {
        if open.is_closed() {
            return Beaten::Closed;
        }
        let sent = clock::now();
        match timeout(self.dialer.config().pulse_timeout(), open.commands.heartbeat(&self.session)).await {
            // The answer may be that of another call.
            Ok(_) if open.is_closed() => Beaten::Closed,
            Ok(Ok(is_alive)) => {
                // What the driver has renewed meanwhile counts.
                self.error = None;
                self.lease.renewed(self.renewed.at());
                let pulse = self.lease.answered(clock::now(), sent, is_alive);
                if pulse != Pulse::Lost {
                    self.tell(pulse);
                }
                Beaten::Answered
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a heartbeat failed");
                let beaten = if error.kind() == ErrorKind::Connection { Beaten::Closed } else { Beaten::Unanswered };
                self.error = Some(error.at(self.dialer.server()));
                beaten
            }
            Err(_) => {
                tracing::debug!("a heartbeat was not answered");
                let error = Error::no_answer("heartbeat", self.dialer.config().pulse_timeout());
                self.error = Some(error.at(self.dialer.server()));
                Beaten::Unanswered
            }
        }
    }

    /// The pause before the next attempt; they begin anew after a connection over which a heartbeat was answered.
    fn next_pause(&mut self) -> Duration {
        if self.lease.is_answered() {
            self.pauses = pauses(self.dialer.config());
        }
        self.pauses.next().unwrap_or(self.dialer.config().heartbeat)
    }

    fn tell(&self, pulse: Pulse) {
        let (until, over) = (self.lease.vouched(), self.lease.over());
        self.vouched.send_if_modified(|vouch| std::mem::replace(&mut vouch.until, until) != until);
        self.beats.send_replace(Some(Beat {
            session: self.session.clone(),
            until,
            over,
            pulse,
            error: self.error.clone(),
        }));
    }
}

/// How a heartbeat ended.
enum Beaten {
    Answered,
    Closed,
    Unanswered,
}

impl Commands {
    /// Renews the safety ttl of everything that the session owns; answers whether there was time for all of it.
    async fn extend_all(&mut self, session: &SessionId, limit: Duration) -> bool {
        let extending = async {
            let mut cursor = 0;
            loop {
                let extend = session::extend(&self.context.scripts, session, cursor);
                match self.invoke_unbounded(&extend).await {
                    Ok(Reply::Extended { cursor: 0, .. }) => return true,
                    Ok(Reply::Extended { cursor: next, .. }) => cursor = next,
                    Ok(other) => {
                        tracing::debug!(?other, "what the session owns was not renewed");
                        return false;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "what the session owns was not renewed");
                        return false;
                    }
                }
            }
        };
        // What is left out is seen to at the next heartbeat.
        timeout(limit, extending).await.unwrap_or(false)
    }
}
