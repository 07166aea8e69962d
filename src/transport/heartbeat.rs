//! Keeps a lease alive: on a thread and a connection of its own, for as long as the application makes progress.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use backon::ExponentialBackoff;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::commands::Commands;
use super::link::{Dialer, Role, within};
use crate::backoff::backoff;
use crate::clock;
use crate::clock::sleep_until;
use crate::error::{Error, ErrorKind};
use crate::model::SessionId;
use crate::mutant;
use crate::proto::{Moment, Pulse, Reply};
use crate::scripts;
use crate::settings::{Config, Heartbeats};

/// How a heartbeat ended. Only the latest counts.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pub(crate) session: SessionId,
    /// Until when the lease is vouched for.
    pub(crate) until: Moment,
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

    fn is_stalled(&self, tolerance: Duration) -> bool {
        let since = clock::now().as_millis().saturating_sub(self.0.load(Ordering::Relaxed));
        u128::from(since) > tolerance.as_millis()
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
        vouch(&self.vouched, acked + config.lost_after());
        let renewed = Arc::new(Renewed(AtomicU64::new(acked.as_millis())));
        // On a runtime that hangs nobody would see in time that the line is closed, and that others may look for us.
        let presence = thread.is_some() && config.grace().is_some();
        let report = Report {
            session,
            answered: false,
            error: None,
            renewed: renewed.clone(),
            beats: self.beats.clone(),
            vouched: self.vouched.clone(),
        };
        let beating = beat(self.dialer.clone(), report, progress.clone(), presence, acked);
        let beating = stop.clone().run_until_cancelled_owned(beating);
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

/// Where the heartbeats of one session are told.
struct Report {
    session: SessionId,
    /// Whether a heartbeat was answered over the present line.
    answered: bool,
    /// Why the last one failed, if it has.
    error: Option<Error>,
    renewed: Arc<Renewed>,
    beats: watch::Sender<Option<Beat>>,
    vouched: watch::Sender<Moment>,
}

fn vouch(vouched: &watch::Sender<Moment>, until: Moment) {
    vouched.send_modify(|latest| *latest = until.max(*latest));
}

impl Report {
    fn tell(&self, pulse: Pulse) {
        let until = *self.vouched.borrow();
        let (session, error) = (self.session.clone(), self.error.clone());
        self.beats.send_replace(Some(Beat { session, until, pulse, error }));
    }

    /// Whether it can be relied on, if not now then later.
    fn alive(&mut self, sent: Moment, config: &Config) -> bool {
        (self.answered, self.error) = (true, None);
        let renewed = self.renewed.at() + config.unrenewed_after();
        let (until, now) = ((sent + config.lost_after()).min(renewed), clock::now());
        vouch(&self.vouched, until);
        self.tell(if until > now { Pulse::Alive } else { Pulse::Missed });
        renewed > now
    }

    /// The server does not see us any more: others may look for us now, and the lease be shortened. Answers until when
    /// a heartbeat comes in time, counted from the first time since the last one.
    fn cut(&mut self, config: &Config) -> Moment {
        let until = clock::now() + config.absence();
        self.vouched.send_modify(|latest| *latest = until.min(*latest));
        self.tell(Pulse::Missed);
        *self.vouched.borrow()
    }
}

/// A connection for heartbeats. Where it is subscribed to the session's channel, its being there is our presence.
struct Line {
    commands: Commands,
    is_present: bool,
    closed: CancellationToken,
}

impl Line {
    async fn open(dialer: &Dialer, session: &SessionId, presence: bool) -> Result<Self, Error> {
        let closed = CancellationToken::new();
        if !presence {
            let commands = dialer.commands(dialer.connection(Role::Heartbeat).await?);
            return Ok(Self { commands, is_present: false, closed });
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
                return Ok(Self { commands, is_present: false, closed });
            }
            connection => connection?,
        };
        let channel = dialer.context().keys.presence(session.as_str());
        let mut subscriber = connection.clone();
        let subscribing = subscriber.subscribe(&channel);
        let is_present =
            match within(&format!("SUBSCRIBE {channel}"), dialer.config().pulse_timeout(), subscribing).await {
                Ok(()) => true,
                Err(error) if error.is_of_the_link() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a crash of this process is seen only when its lease runs out");
                    false
                }
            };
        Ok(Self { commands: dialer.commands(connection), is_present, closed })
    }

    /// Waits until the server does not see us by this any more.
    async fn vanished(line: &Option<Self>) {
        match line {
            Some(line) if line.is_present => line.closed.cancelled().await,
            _ => pending().await,
        }
    }
}

/// Why a line is used no longer.
enum End {
    Closed,
    Unanswered,
    Lost,
}

/// However long the pauses have become: who has been cut off has to have time for some tries.
fn hurried(pause: Duration, until: Moment, config: &Config) -> Duration {
    if clock::now() < until { pause.min(config.absence() / 4) } else { pause }
}

async fn beat(dialer: Dialer, mut report: Report, progress: Arc<Progress>, presence: bool, acked: Moment) {
    let config = dialer.config().clone();
    let mut next = acked + config.heartbeat;
    let mut backoff = pauses(&config);
    // What was not answered in time is closed only when the next stands: until then the server sees us by it.
    let mut before: Option<Line> = None;
    let mut pause = Duration::ZERO;
    // Until then who has been cut off may come back.
    let mut hurry = Moment::ORIGIN;
    let mut was_present = false;
    loop {
        let opening = async {
            sleep(pause).await;
            Line::open(&dialer, &report.session, presence).await
        };
        let line = tokio::select! {
            line = opening => line,
            () = Line::vanished(&before) => {
                before = None;
                hurry = report.cut(&config);
                pause = hurried(pause, hurry, &config);
                continue;
            }
        };
        let mut line = match line {
            Ok(line) => line,
            Err(error) => {
                tracing::debug!(%error, "no connection for heartbeats");
                report.error = Some(error.at(dialer.server()));
                report.tell(Pulse::Missed);
                pause = hurried(backoff.next().unwrap_or(config.heartbeat), hurry, &config);
                continue;
            }
        };
        before = None;
        if was_present && !line.is_present {
            // Who saw this session before may give it less time at any moment. Nobody has seen the next one.
            return report.tell(Pulse::Lost);
        }
        was_present = line.is_present;
        match keep_beating(&mut line, &mut next, &mut report, &progress, &config).await {
            End::Lost => return report.tell(Pulse::Lost),
            End::Closed if line.is_present => hurry = report.cut(&config),
            End::Closed => report.tell(Pulse::Missed),
            End::Unanswered => {
                before = Some(line);
                report.tell(Pulse::Missed);
            }
        }
        if std::mem::take(&mut report.answered) {
            backoff = pauses(&config);
        }
        // The lease may have been shortened meanwhile.
        next = clock::now();
        pause = hurried(backoff.next().unwrap_or(config.heartbeat), hurry, &config);
    }
}

/// One heartbeat after the other, over one line, until it is of no use any more.
async fn keep_beating(
    line: &mut Line,
    next: &mut Moment,
    report: &mut Report,
    progress: &Progress,
    config: &Config,
) -> End {
    let mut stalled = false;
    loop {
        tokio::select! {
            biased;
            () = line.closed.cancelled() => {
                let error = Error::new(ErrorKind::Connection, "the connection of the heartbeats was closed");
                report.error = Some(error.at(&line.commands.context.server));
                return End::Closed;
            }
            () = sleep_until(*next) => {}
        }
        if progress.is_stalled(config.stall_tolerance) {
            if !std::mem::replace(&mut stalled, true) {
                let tolerance = config.stall_tolerance;
                tracing::warn!(?tolerance, "the runtime makes no progress: no heartbeats");
            }
            *next = clock::now() + config.heartbeat.min(config.stall_tolerance) / 8;
            continue;
        }
        stalled = false;
        let began = clock::now();
        if began.since(report.renewed.at()) > config.renewal_overdue()
            && line.commands.extend_all(&report.session, config.pulse_timeout()).await
        {
            report.renewed.set(began);
        }
        let sent = clock::now();
        match timeout(config.pulse_timeout(), line.commands.heartbeat(&report.session)).await {
            Ok(Ok(true)) => {
                let counted_from = if mutant::is("deadline_from_reply") { clock::now() } else { sent };
                if !report.alive(counted_from, config) {
                    // What lives by it runs out, and cannot be renewed: another session can.
                    return End::Lost;
                }
                *next = sent + config.heartbeat;
            }
            Ok(Ok(false)) => return End::Lost,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a heartbeat failed");
                let end = if error.kind() == ErrorKind::Connection { End::Closed } else { End::Unanswered };
                report.error = Some(error.at(&line.commands.context.server));
                return end;
            }
            Err(_) => {
                tracing::debug!("a heartbeat was not answered");
                let error = Error::no_answer("heartbeat", config.pulse_timeout());
                report.error = Some(error.at(&line.commands.context.server));
                return End::Unanswered;
            }
        }
    }
}

impl super::Commands {
    /// Renews the safety ttl of everything that the session owns; answers whether there was time for all of it.
    async fn extend_all(&mut self, session: &SessionId, limit: Duration) -> bool {
        let extending = async {
            let mut cursor = 0;
            loop {
                match self.extend(session, cursor).await {
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
        let (keys, config) = (&self.context.keys, &self.context.config);
        let mut script = scripts::SESSION_HEARTBEAT.key(keys.lease(session.as_str()));
        let ttl = u64::try_from(config.ttl.as_millis()).unwrap_or(u64::MAX);
        script.key(keys.leases()).arg(session.as_str()).arg(ttl);
        script.invoke_async(&mut self.connection).await.map_err(|error| scripts::failed("heartbeat", error))
    }
}
