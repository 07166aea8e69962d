//! Keeps a lease alive: on a thread and a connection of its own, for as long as the application makes progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::link::{Dialer, Role};
use super::scripts;
use crate::clock;
use crate::config::{Config, Heartbeats};
use crate::driver::LONGEST_SLEEP;
use crate::error::Error;
use crate::member::SessionId;
use crate::proto::{Moment, Pulse, Reply};

/// How a heartbeat ended. Only the latest counts.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pub(crate) session: SessionId,
    /// When the last acknowledged heartbeat was sent.
    pub(crate) acked: Moment,
    pub(crate) pulse: Pulse,
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

    fn is_stalled(&self, tolerance: Duration) -> bool {
        let since = clock::now().as_millis().saturating_sub(self.0.load(Ordering::Relaxed));
        u128::from(since) > tolerance.as_millis()
    }
}

/// Until when a connector's lease is vouched for. To be asked without I/O, and without waiting for a timer.
#[derive(Clone, Debug)]
pub(crate) struct Vouched(watch::Receiver<Moment>);

impl Vouched {
    pub(crate) fn holds(&self) -> bool {
        clock::now() < *self.0.borrow()
    }

    /// For how long it is vouched for from now on.
    pub(crate) fn rest(&self) -> Duration {
        self.0.borrow().since(clock::now())
    }

    /// Waits until it is vouched for longer than before. Whoever could do that is gone: `None`.
    pub(crate) async fn extended(&mut self) -> Option<()> {
        self.0.changed().await.ok()
    }
}

/// Where a connector's heartbeats run, and what it takes to start them.
pub(crate) struct Keeper {
    dialer: Dialer,
    tracker: TaskTracker,
    beats: watch::Sender<Option<Beat>>,
    vouched: watch::Sender<Moment>,
}

/// A lease that is being kept. Dropped, it no longer is.
pub(crate) struct Keeping {
    _stop: DropGuard,
    _thread: Option<Arc<HeartbeatThread>>,
}

impl Keeper {
    pub(crate) fn new(dialer: Dialer, tracker: TaskTracker) -> (Self, watch::Receiver<Option<Beat>>) {
        let (beats, receiver) = watch::channel(None);
        (Self { dialer, tracker, beats, vouched: watch::Sender::new(Moment::ORIGIN) }, receiver)
    }

    pub(crate) fn vouched(&self) -> Vouched {
        Vouched(self.vouched.subscribe())
    }

    /// Keeps this session's lease alive, last acknowledged when sent at `acked`.
    pub(crate) fn keep(&self, session: SessionId, acked: Moment) -> Keeping {
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
        vouch(&self.vouched, acked + config.lost_after());
        let report = Report { session, acked, beats: self.beats.clone(), vouched: self.vouched.clone() };
        let beating = beat(self.dialer.clone(), report, progress.clone());
        let beating = stop.clone().run_until_cancelled_owned(beating);
        match &thread {
            Some(thread) => self.tracker.spawn_on(beating, &thread.handle),
            None => self.tracker.spawn(beating),
        };
        let pause = (config.stall_tolerance / 8).min(config.ttl / 4);
        self.tracker.spawn(stop.clone().run_until_cancelled_owned(show_progress(progress, pause)));
        Keeping { _stop: stop.drop_guard(), _thread: thread }
    }
}

async fn show_progress(progress: Arc<Progress>, pause: Duration) {
    loop {
        progress.made();
        sleep(pause).await;
    }
}

fn backoff(config: &Config) -> impl Iterator<Item = Duration> + use<> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(config.backoff_cap.min(config.heartbeat))
        .without_max_times()
        .with_jitter()
        .build()
}

/// Where the heartbeats of one session are told.
struct Report {
    session: SessionId,
    acked: Moment,
    beats: watch::Sender<Option<Beat>>,
    vouched: watch::Sender<Moment>,
}

fn vouch(vouched: &watch::Sender<Moment>, until: Moment) {
    vouched.send_modify(|latest| *latest = until.max(*latest));
}

impl Report {
    fn tell(&self, pulse: Pulse) {
        self.beats.send_replace(Some(Beat { session: self.session.clone(), acked: self.acked, pulse }));
    }

    fn alive(&mut self, sent: Moment, config: &Config) {
        self.acked = sent;
        vouch(&self.vouched, sent + config.lost_after());
        self.tell(Pulse::Alive);
    }
}

/// Sleeps until then, also where the machine is suspended meanwhile.
async fn sleep_until(then: Moment) {
    while let Some(rest) = Some(then.since(clock::now())).filter(|rest| !rest.is_zero()) {
        sleep(rest.min(LONGEST_SLEEP)).await;
    }
}

async fn beat(dialer: Dialer, mut report: Report, progress: Arc<Progress>) {
    let config = dialer.config().clone();
    let mut next = report.acked + config.heartbeat;
    let mut pauses = backoff(&config);
    let mut stalled = false;
    loop {
        match dialer.connection(Role::Heartbeat).await {
            Ok(connection) => {
                let mut commands = dialer.commands(connection);
                loop {
                    sleep_until(next).await;
                    if progress.is_stalled(config.stall_tolerance) {
                        if !std::mem::replace(&mut stalled, true) {
                            let tolerance = config.stall_tolerance;
                            tracing::warn!(?tolerance, "the runtime makes no progress: no heartbeats");
                        }
                        sleep(config.heartbeat.min(config.stall_tolerance) / 8).await;
                        continue;
                    }
                    stalled = false;
                    if progress.is_stalled(config.ttl / 2) {
                        // Whoever renews what lives by the lease hangs: without that the lease would outlive it.
                        commands.extend_all(&report.session, config.pulse_timeout()).await;
                    }
                    let sent = clock::now();
                    match timeout(config.pulse_timeout(), commands.heartbeat(&report.session)).await {
                        Ok(Ok(true)) => {
                            report.alive(sent, &config);
                            pauses = backoff(&config);
                            next = sent + config.heartbeat;
                        }
                        Ok(Ok(false)) => return report.tell(Pulse::Lost),
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "a heartbeat failed");
                            break;
                        }
                        Err(_) => {
                            tracing::debug!("a heartbeat was not answered");
                            break;
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "no connection for heartbeats"),
        }
        report.tell(Pulse::Missed);
        sleep(pauses.next().unwrap_or(config.heartbeat)).await;
    }
}

impl super::Commands {
    /// Renews the safety ttl of everything that the session owns, as far as there is time.
    async fn extend_all(&mut self, session: &SessionId, limit: Duration) {
        let extending = async {
            let mut cursor = 0;
            loop {
                match self.extend(session, cursor).await {
                    Ok(Reply::Extended { cursor: 0, .. }) => return,
                    Ok(Reply::Extended { cursor: next, .. }) => cursor = next,
                    Ok(other) => return tracing::debug!(?other, "what the session owns was not renewed"),
                    Err(error) => return tracing::debug!(%error, "what the session owns was not renewed"),
                }
            }
        };
        // What is left out is seen to at the next heartbeat.
        let _ = timeout(limit, extending).await;
    }

    /// One heartbeat: whether the lease lives.
    async fn heartbeat(&mut self, session: &SessionId) -> Result<bool, Error> {
        let (keys, config) = (&self.context.keys, &self.context.config);
        let mut script = scripts::HEARTBEAT.key(keys.lease(session.as_str()));
        let ttl = u64::try_from(config.ttl.as_millis()).unwrap_or(u64::MAX);
        script.key(keys.leases()).arg(session.as_str()).arg(ttl);
        script.invoke_async(&mut self.connection).await.map_err(|error| Error::from_redis("heartbeat", error))
    }
}
