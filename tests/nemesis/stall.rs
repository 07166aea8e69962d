//! How long the machine kept us waiting: measured, so that nobody has to guess whether it was busy.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);
const LATE: Duration = Duration::from_millis(200);

/// Tells from a thread of its own by how many ms it was woken too late, each time that it was much.
pub(crate) fn watch(tell: impl Fn(u64) + Send + 'static) {
    std::thread::spawn(move || {
        loop {
            let begun = Instant::now();
            std::thread::sleep(PAUSE);
            let late = begun.elapsed().saturating_sub(PAUSE);
            if late > LATE {
                tell(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
            }
        }
    });
}
