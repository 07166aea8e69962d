//! The only file that reads a clock: monotonic time that goes on while the machine is suspended.
//!
//! A lease runs on in the server while a laptop sleeps or a virtual machine is paused, so the client's side of it
//! must too: Linux has `CLOCK_BOOTTIME` for that; elsewhere the standard monotonic clock has to do.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::proto::Moment;

/// Timers stand still while the machine is suspended, and leases do not: no sleep is longer than this.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_millis(500);

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    origin().0.elapsed()
}

/// One reading of both clocks, so that a [`Moment`] can be shown to users as an [`Instant`].
fn origin() -> &'static (Instant, Duration) {
    static ORIGIN: OnceLock<(Instant, Duration)> = OnceLock::new();
    #[cfg(target_os = "linux")]
    return ORIGIN.get_or_init(|| (Instant::now(), since_boot()));
    #[cfg(not(target_os = "linux"))]
    return ORIGIN.get_or_init(|| (Instant::now(), Duration::ZERO));
}

/// The present moment.
pub(crate) fn now() -> Moment {
    Moment::from_origin(since_boot())
}

/// The same moment as an [`Instant`], for users. Off by the time suspended since the process began.
pub(crate) fn instant(moment: Moment) -> Instant {
    let (instant, boot) = *origin();
    instant + moment.since(Moment::from_origin(boot))
}

/// Sleeps until then, also where the machine is suspended meanwhile.
pub(crate) async fn sleep_until(then: Moment) {
    while let Some(rest) = Some(then.since(now())).filter(|rest| !rest.is_zero()) {
        sleep(rest.min(LONGEST_SLEEP)).await;
    }
}
