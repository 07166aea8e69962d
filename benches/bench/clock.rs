//! Seconds by a clock that all processes of the machine share, and the seconds of a core that this process has used.

use rustix::time::{ClockId, clock_gettime};

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

pub(crate) fn now() -> f64 {
    seconds(ClockId::Monotonic)
}

pub(crate) fn used_by_this_process() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}
