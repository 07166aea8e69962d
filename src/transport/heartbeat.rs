//! Keeps a lease alive: on a thread and a connection of its own, for as long as the application makes progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::commands::Commands;
use super::heartbeat_connection::{HeartbeatConnection, Unopened};
use super::link::Dialer;
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

/// The process's one thread for heartbeats. It ends with the last that holds it.
struct HeartbeatThread {
    handle: Handle,
    _stop: DropGuard,
}

static THREAD: Mutex<Weak<HeartbeatThread>> = Mutex::new(Weak::new());

fn thread() -> std::io::Result<Arc<HeartbeatThread>> {
    let mut shared = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(thread) = shared.upgrade() {
        return Ok(thread);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
    let stopped = stop.clone();
    std::thread::Builder::new()
        .name("group-redis-heartbeat".to_owned())
        .spawn(move || runtime.block_on(stopped.cancelled()))?;
    let thread = Arc::new(HeartbeatThread { handle, _stop: stop.drop_guard() });
    *shared = Arc::downgrade(&thread);
    Ok(thread)
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

/// Until when a connector's lease is vouched for. To be asked without I/O, and without waiting for a timer.
#[derive(Clone, Debug)]
pub(crate) struct Vouched(watch::Receiver<Moment>);

impl Vouched {
    #[cfg(test)]
    pub(crate) fn new(until: watch::Receiver<Moment>) -> Self {
        Self(until)
    }

    pub(crate) fn holds(&self) -> bool {
        self.holds_at(clock::now())
    }

    pub(crate) fn holds_at(&self, now: Moment) -> bool {
        now < *self.0.borrow()
    }

    /// For how long it is vouched for from now on.
    pub(crate) fn rest(&self) -> Duration {
        self.0.borrow().since(clock::now())
    }

    /// Waits until it is vouched for longer than before; `None` if the connector is gone.
    pub(crate) async fn extended(&mut self) -> Option<()> {
        self.0.changed().await.ok()
    }
}

/// Where a connector's heartbeats run, and what it takes to start them.
pub(crate) struct LeaseKeeper {
    dialer: Dialer,
    tracker: TaskTracker,
    beats: watch::Sender<Option<Beat>>,
    vouched: watch::Sender<Moment>,
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
        (Self { dialer, tracker, beats, vouched: watch::Sender::new(Moment::ORIGIN) }, receiver)
    }

    pub(crate) fn vouched(&self) -> Vouched {
        Vouched(self.vouched.subscribe())
    }

    /// Keeps this session's lease alive, last acknowledged when sent at `acked`.
    pub(crate) fn keep(&self, session: SessionId, acked: Moment) -> KeptLease {
        let config = self.dialer.config();
        let stop = CancellationToken::new();
        let thread = match config.heartbeats {
            Heartbeats::Runtime => None,
            Heartbeats::Thread => thread()
                .inspect_err(|error| tracing::warn!(%error, "no thread for heartbeats: they run on the runtime"))
                .ok(),
        };
        let progress = Arc::new(Progress::default());
        progress.made();
        let lease = LeaseKeeping::new(config.lease_timing(), acked);
        self.vouched.send_replace(lease.vouched());
        let renewed = Arc::new(Renewed(AtomicU64::new(acked.as_millis())));
        // A runtime that hangs would not notice in time that the connection is closed, and that the lease may be
        // shortened.
        let presence = thread.is_some() && config.grace().is_some();
        let keeping = Keeping {
            dialer: self.dialer.clone(),
            session,
            lease,
            renewed: renewed.clone(),
            progress: progress.clone(),
            presence,
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
    presence: bool,
    pauses: ExponentialBackoff,
    /// Why the last heartbeat failed, if it has.
    error: Option<Error>,
    beats: watch::Sender<Option<Beat>>,
    vouched: watch::Sender<Moment>,
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
            HeartbeatConnection::open(&self.dialer, &self.session, self.presence).await
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
                self.lease.connected(connection.is_present);
                Some(connection)
            }
            Err(Unopened { error, may_be_seen }) => {
                tracing::debug!(%error, "no connection for heartbeats");
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
            () = open.closed.cancelled() => {
                let error = Error::new(ErrorKind::Connection, "the connection of the heartbeats was closed");
                self.error = Some(error.at(self.dialer.server()));
                self.closed();
                true
            }
            () = sleep_until(then) => false,
        }
    }

    fn closed(&mut self) {
        let pause = self.next_pause();
        let pulse = self.lease.closed(clock::now(), pause);
        self.tell(pulse);
    }

    async fn beat(&mut self, open: &mut HeartbeatConnection) -> Beaten {
        if open.closed.is_cancelled() {
            return Beaten::Closed;
        }
        let sent = clock::now();
        match timeout(self.dialer.config().pulse_timeout(), open.commands.heartbeat(&self.session)).await {
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
        self.vouched.send_if_modified(|vouched| std::mem::replace(vouched, until) != until);
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

    /// One heartbeat: whether the lease lives.
    async fn heartbeat(&mut self, session: &SessionId) -> Result<bool, Error> {
        let heartbeat = session::heartbeat(&self.context.scripts, session);
        self.invoke_unbounded(&heartbeat).await
    }
}
