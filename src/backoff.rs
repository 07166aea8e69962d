//! Pauses between attempts that go on for as long as it takes.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses between attempts, of which none is longer than the cap, and which do not end.
pub(crate) fn backoff(cap: Duration) -> ExponentialBackoff {
    // The jitter comes on top, and may be as much again.
    let most = cap / 2;
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10).min(most))
        .with_max_delay(most)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pause_is_longer_than_the_cap_and_they_do_not_end() {
        for cap in [Duration::from_millis(10), Duration::from_secs(1)] {
            let pauses: Vec<_> = backoff(cap).take(1000).collect();
            assert_eq!(pauses.len(), 1000);
            assert!(pauses.iter().all(|pause| *pause <= cap), "{:?}", pauses.iter().max());
            assert!(pauses[900..].iter().any(|pause| *pause > cap * 3 / 4), "they grow");
        }
    }
}
