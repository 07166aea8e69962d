//! What may be done to the bytes of a connection.

use std::time::Duration;

/// The longest delay and jitter; beyond it nothing arrives anyway.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A throttled way flows in so many pieces a second, rather than in a burst after a pause.
const PIECES_PER_SECOND: usize = 50;

/// Which of a connector's connections a fault is for. They say it themselves, by the library name that they give to
/// the server (`CLIENT SETINFO`); over `rediss://` the proxy cannot read it, and every connection is [`Other`](Self::Other).
///
/// # Examples
/// ```no_run
/// # use group_redis::testing::{FaultProxy, Flow, Line};
/// # fn example(proxy: &FaultProxy) {
/// // The connector neither hears of changes nor renews its lease, but may ask.
/// for line in [Line::Events, Line::Heartbeat] {
///     proxy.set_both(line, Flow::new().blackhole());
/// }
/// assert_eq!(proxy.open(Line::Commands), 1);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Line {
    /// Every connection, also of other clients.
    Any,
    /// The one that asks.
    Commands,
    /// The one that listens.
    Events,
    /// The one that keeps the lease.
    Heartbeat,
    /// Those that are none of a connector's.
    Other,
}

impl Line {
    /// What the first bytes of a connection say of it.
    pub(super) fn of(hello: &[u8]) -> Self {
        let says = |name: &str| hello.windows(name.len()).any(|part| part == name.as_bytes());
        [(Self::Commands, "commands"), (Self::Events, "events"), (Self::Heartbeat, "heartbeat")]
            .into_iter()
            .find(|(_, role)| says(&format!("group-redis-{role}")))
            .map_or(Self::Other, |(line, _)| line)
    }
}

/// A direction.
///
/// # Examples
/// ```no_run
/// # use group_redis::testing::{FaultProxy, Flow, Line, Way};
/// # fn example(proxy: &FaultProxy) {
/// // Whatever is asked is done, and the answers get lost.
/// proxy.set(Line::Commands, Way::ToClient, Flow::new().blackhole());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// How bytes flow one way. The default is: as they come.
///
/// All of it may be combined, and holds for each connection on its own.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use group_redis::testing::Flow;
///
/// let far_away = Flow::new().delay(Duration::from_millis(80)).jitter(Duration::from_millis(20));
/// let modem = far_away.throttle(7_000).chop(512);
/// assert_ne!(modem, Flow::new());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a flow does nothing until it is set"]
pub struct Flow {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) chop: Option<usize>,
    pub(super) throttle: Option<u32>,
    pub(super) blackhole: bool,
    pub(super) stops_reading: bool,
}

impl Flow {
    /// As they come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything arrives so much later, also the end of the connection; the order stays. At most a day.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay.min(DAY);
        self
    }

    /// And up to so much later still, by chance. At most a day.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter.min(DAY);
        self
    }

    /// Arrives in pieces of at most so many bytes, each a segment of its own. At least 1.
    pub fn chop(mut self, bytes: usize) -> Self {
        self.chop = Some(bytes.max(1));
        self
    }

    /// Not more than so many bytes a second on each connection, evenly. At least 1.
    pub fn throttle(mut self, bytes_per_second: u32) -> Self {
        self.throttle = Some(bytes_per_second.max(1));
        self
    }

    /// Nothing arrives, not even the end of the connection. As TCP would send it again, what is sent meanwhile arrives
    /// late, when this is over. What is on its way when this begins has not arrived yet, and is kept back, too.
    ///
    /// It keeps up to 16 MiB a way of each connection; then it stops reading.
    pub fn blackhole(mut self) -> Self {
        self.blackhole = true;
        self
    }

    /// Nothing is taken from the sender, whose buffers fill. One read (of up to 16 KiB) may still be under way.
    pub fn stop_reading(mut self) -> Self {
        self.stops_reading = true;
        self
    }

    /// How much of what is left goes at once.
    pub(super) fn piece(self, left: usize) -> usize {
        let throttled = self.throttle.map(|rate| rate as usize / PIECES_PER_SECOND);
        let most = |limit: Option<usize>| limit.unwrap_or(left).max(1);
        left.min(most(self.chop)).min(most(throttled))
    }

    /// How long that takes.
    pub(super) fn pause(self, left: usize) -> Duration {
        let takes = |rate| Duration::from_secs_f64(self.piece(left) as f64 / f64::from(rate));
        self.throttle.map_or(Duration::ZERO, takes)
    }
}
