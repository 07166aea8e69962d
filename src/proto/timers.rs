//! When the core is to be called again, and what for.

use super::Moment;

/// What time brings about. Where several are due at once, they come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The lease is not vouched for any more, or over.
    Lease,
    /// What failed for a member of ours is tried again.
    Retry,
    /// The time of a request is up.
    Request,
    /// The safety ttl is renewed.
    Renewal,
    /// The canary can be touched, or its events are missing.
    Canary,
    /// A better source is tried again.
    BetterSource,
    /// A place among the probers is asked for.
    Place,
    /// The probers are checked on.
    Probers,
    Probe,
    /// Keys that the sweep has left to run out are touched.
    Touch,
    Sweep,
    Reconcile,
    /// The time of a sync is up.
    Sync,
}

impl Timer {
    pub(crate) const ALL: [Self; 13] = [
        Self::Lease,
        Self::Retry,
        Self::Request,
        Self::Renewal,
        Self::Canary,
        Self::BetterSource,
        Self::Place,
        Self::Probers,
        Self::Probe,
        Self::Touch,
        Self::Sweep,
        Self::Reconcile,
        Self::Sync,
    ];
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: [Option<Moment>; Timer::ALL.len()],
}

impl Timers {
    /// This timer runs out then, whatever it was set to before, or never.
    pub(crate) fn set(&mut self, timer: Timer, at: impl Into<Option<Moment>>) {
        self.at[timer as usize] = at.into();
    }

    /// This timer runs out then, if it would not do so before.
    pub(crate) fn set_sooner(&mut self, timer: Timer, at: Moment) {
        let set = &mut self.at[timer as usize];
        *set = Some(set.map_or(at, |before| before.min(at)));
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = None;
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.at[timer as usize].is_some()
    }

    /// When the next of them runs out.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.at.iter().flatten().min().copied()
    }

    /// When this timer was to run out, if it has; it is not set any more then.
    pub(crate) fn expired(&mut self, timer: Timer, now: Moment) -> Option<Moment> {
        self.at[timer as usize].take_if(|at| *at <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn each_timer_has_a_place_of_its_own() {
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
    }

    #[test]
    fn a_timer_runs_out_once_and_the_next_is_the_earliest() {
        let mut timers = Timers::default();
        timers.set(Timer::Sweep, at(5));
        timers.set(Timer::Probe, at(3));
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.expired(Timer::Probe, at(2)), None);
        assert_eq!(timers.expired(Timer::Probe, at(4)), Some(at(3)));
        assert_eq!(timers.expired(Timer::Probe, at(4)), None);
        assert_eq!(timers.next(), Some(at(5)));
        timers.clear(Timer::Sweep);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_timer_is_set_anew_or_only_sooner() {
        let mut timers = Timers::default();
        for (sooner, set) in [(7, 7), (9, 7), (4, 4)] {
            timers.set_sooner(Timer::Sweep, at(sooner));
            assert_eq!(timers.next(), Some(at(set)));
        }
        timers.set(Timer::Sweep, at(9));
        assert_eq!(timers.next(), Some(at(9)));
        timers.set(Timer::Sweep, None);
        assert!(!timers.is_set(Timer::Sweep));
    }
}
