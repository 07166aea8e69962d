//! What may be done to the bytes of a connection.

use std::time::Duration;

/// Which of a connector's connections a fault is for. They say it themselves, by the library name that they give to
/// the server (`CLIENT SETINFO`).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// How bytes flow one way. The default is: as they come.
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

    /// Everything arrives so much later; the order stays.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// And up to so much later still, by chance.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Arrives in pieces of so many bytes, each a segment of its own. At least 1.
    pub fn chop(mut self, bytes: usize) -> Self {
        self.chop = Some(bytes.max(1));
        self
    }

    /// Not more than so many bytes a second. At least 1.
    pub fn throttle(mut self, bytes_per_second: u32) -> Self {
        self.throttle = Some(bytes_per_second.max(1));
        self
    }

    /// Nothing arrives, not even the end of the connection. As TCP would send it again, what is sent meanwhile arrives
    /// late, when this is over.
    pub fn blackhole(mut self) -> Self {
        self.blackhole = true;
        self
    }

    /// Nothing is taken from the sender, whose buffers fill.
    pub fn stop_reading(mut self) -> Self {
        self.stops_reading = true;
        self
    }
}
