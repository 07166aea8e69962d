//! A point of monotonic time. The core is told the time; it never asks.

use std::ops::Add;
use std::time::Duration;

/// A point of monotonic time, counted from some origin that only the clock knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// Before every other.
    pub(crate) const ORIGIN: Self = Self(Duration::ZERO);

    pub(crate) fn from_origin(since: Duration) -> Self {
        Self(since)
    }

    /// How long after `earlier` this is; zero if it is before.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}
