//! Keeping one lease: when to connect, to beat and to renew what lives by it; until when it is vouched for; when it is
//! suspended, and when it is lost.
//!
//! A lease counts from the *sending* of its last acknowledged heartbeat, less a margin (C. Gray, D. Cheriton:
//! *Leases: an efficient fault-tolerant mechanism for distributed file cache consistency*, 1989). While the
//! connection by which others see the holder is closed, they may shorten the lease to its grace: then it is vouched
//! for half of that only. A process that was frozen learns late that its connection was closed: for it, the time counts
//! from when it last looked.

use std::time::Duration;

use super::{Moment, Pulse};
use crate::mutant;
use crate::settings::LeaseTiming;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseStep {
    /// Connect, not before then.
    Connect(Moment),
    /// Wait until then, or until the connection is closed.
    Wait(Moment),
    /// Renew what lives by the lease, then go on.
    Renew,
    Beat,
    /// The application makes no progress: no heartbeat before then.
    Stalled(Moment),
    /// The lease is lost, or can no longer be told from one that is.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Absent {
        retry_at: Moment,
    },
    Up {
        is_present: bool,
        is_answered: bool,
    },
    /// Never used again: the lease is lost.
    Done,
}

#[derive(Debug)]
pub(crate) struct LeaseKeeping {
    timing: LeaseTiming,
    connection: Connection,
    beat_at: Moment,
    renewed: Moment,
    /// Whether a renewal was tried for the next heartbeat.
    renewal_tried: bool,
    vouched: Moment,
    over: Moment,
    /// Until then a holder whose connection was closed comes back in time.
    hurry: Moment,
    /// Whether others have seen this session by a connection of it.
    was_present: bool,
    is_stalled: bool,
}

impl LeaseKeeping {
    /// A lease whose opening was sent at `acked`, and acknowledged.
    pub(crate) fn new(timing: LeaseTiming, acked: Moment) -> Self {
        let over = acked + timing.lost_after;
        Self {
            timing,
            connection: Connection::Absent { retry_at: acked },
            beat_at: acked + timing.heartbeat,
            renewed: acked,
            renewal_tried: false,
            vouched: over,
            over,
            hurry: Moment::ORIGIN,
            was_present: false,
            is_stalled: false,
        }
    }

    /// Until when the lease is vouched for.
    pub(crate) fn vouched(&self) -> Moment {
        self.vouched
    }

    /// When the lease is over by its ttl.
    pub(crate) fn over(&self) -> Moment {
        self.over
    }

    /// What is to be done now, where the application has made no progress for `idle`.
    pub(crate) fn step(&mut self, now: Moment, idle: Duration) -> LeaseStep {
        match self.connection {
            Connection::Done => LeaseStep::Lost,
            Connection::Absent { retry_at } => LeaseStep::Connect(retry_at),
            Connection::Up { .. } if now < self.beat_at => LeaseStep::Wait(self.beat_at),
            Connection::Up { .. } if idle > self.timing.stall_tolerance => {
                self.beat_at = now + self.timing.heartbeat.min(self.timing.stall_tolerance) / 8;
                if std::mem::replace(&mut self.is_stalled, true) {
                    return LeaseStep::Wait(self.beat_at);
                }
                LeaseStep::Stalled(self.beat_at)
            }
            Connection::Up { .. } => {
                self.is_stalled = false;
                let is_due = now.since(self.renewed) > self.timing.renewal_due;
                if is_due && !std::mem::replace(&mut self.renewal_tried, true) {
                    return LeaseStep::Renew;
                }
                LeaseStep::Beat
            }
        }
    }

    /// Whether the lease is renewed over a new connection before others see the session by it, and shorten it no more.
    /// Nothing is vouched for by that: they may shorten it in between.
    pub(crate) fn is_renewed_first(&self, idle: Duration) -> bool {
        self.was_present && idle <= self.timing.stall_tolerance && !mutant::is("seen_before_renewed")
    }

    /// The lease was renewed in this way, by what was sent then: it lives for its grace at the least.
    pub(crate) fn renewed_first(&mut self, sent: Moment) {
        self.hurry = self.hurry.max(sent + self.timing.grace);
    }

    /// A connection stands; where it is present, others see the session by it.
    pub(crate) fn connected(&mut self, is_present: bool) {
        // A prober that saw this session before may shorten its lease at any moment. No prober has seen the next
        // session.
        self.connection = match self.was_present && !is_present {
            true => Connection::Done,
            false => Connection::Up { is_present, is_answered: false },
        };
        self.was_present = is_present;
    }

    /// There is no connection; the next attempt comes after a pause.
    pub(crate) fn not_connected(&mut self, now: Moment, pause: Duration) -> Pulse {
        self.connection = Connection::Absent { retry_at: now + self.hurried(now, pause) };
        Pulse::Missed
    }

    /// The connection was closed, or the earlier one that was kept open, or one that others may have seen before it
    /// stood: others do not see the session any more. What this process knows of its connections is as they were at
    /// `looked`.
    pub(crate) fn closed(&mut self, now: Moment, looked: Moment, pause: Duration) -> Pulse {
        let was_seen = !matches!(self.connection, Connection::Up { is_present: false, .. });
        if was_seen && !mutant::is("absence_unheeded") {
            if now < self.vouched {
                self.hurry = now + self.timing.grace;
            }
            self.vouched = self.vouched.min(now + self.timing.absence);
            if !mutant::is("frozen_says_yes") {
                self.vouched = self.vouched.min(looked + self.timing.unattended);
            }
            self.was_present = true;
        }
        self.unanswered(now, pause)
    }

    /// A heartbeat was not answered. The lease may have been shortened: the next goes out at once.
    pub(crate) fn unanswered(&mut self, now: Moment, pause: Duration) -> Pulse {
        self.beat_at = now;
        self.not_connected(now, pause)
    }

    /// The heartbeat sent then was answered: whether the lease lived.
    pub(crate) fn answered(&mut self, now: Moment, sent: Moment, is_alive: bool) -> Pulse {
        let lives_until = self.renewed + self.timing.unrenewed_after;
        // What lives by a lease may run out without it: another session can renew it, this one cannot.
        if !is_alive || lives_until <= now {
            self.connection = Connection::Done;
            return Pulse::Lost;
        }
        if let Connection::Up { is_answered, .. } = &mut self.connection {
            *is_answered = true;
        }
        let counted_from = if mutant::is("deadline_from_reply") { now } else { sent };
        let until = (counted_from + self.timing.lost_after).min(lives_until);
        self.vouched = until.max(self.vouched);
        self.over = until.max(self.over);
        self.beat_at = sent + self.timing.heartbeat;
        self.renewal_tried = false;
        if until > now { Pulse::Alive } else { Pulse::Missed }
    }

    /// What lives by the lease was renewed by what was sent then.
    pub(crate) fn renewed(&mut self, sent: Moment) {
        self.renewed = self.renewed.max(sent);
    }

    /// Whether a heartbeat was answered over the present connection: then the pauses begin anew.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.connection, Connection::Up { is_answered: true, .. })
    }

    /// A holder whose connection is closed reconnects within its grace, even after long backoffs: it has time for
    /// some attempts.
    fn hurried(&self, now: Moment, pause: Duration) -> Duration {
        if now < self.hurry { pause.min(self.timing.absence / 4) } else { pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: LeaseTiming = LeaseTiming {
        heartbeat: Duration::from_millis(300),
        lost_after: Duration::from_millis(980),
        absence: Duration::from_millis(100),
        unattended: Duration::from_millis(140),
        grace: Duration::from_millis(200),
        renewal_due: Duration::from_millis(2500),
        unrenewed_after: Duration::from_millis(3980),
        stall_tolerance: Duration::from_millis(400),
    };
    const PAUSE: u64 = 500;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    /// Plays words, and answers what was said to each: a step, or a pulse and until when the lease is vouched for.
    fn play(words: &str) -> Vec<String> {
        let (mut lease, mut now) = (LeaseKeeping::new(TIMING, at(1000)), 1000);
        let mut said = Vec::new();
        for word in words.split_whitespace() {
            let (what, number) = word.split_once(':').map_or((word, 0), |(what, ms)| (what, ms.parse().unwrap()));
            let told = |lease: &LeaseKeeping, pulse| format!("{pulse:?} until {}", lease.vouched().as_millis());
            let pause = Duration::from_millis(PAUSE);
            said.push(match what {
                "wait" => {
                    now += number;
                    continue;
                }
                "seen" => {
                    lease.connected(true);
                    continue;
                }
                "unseen" => {
                    lease.connected(false);
                    continue;
                }
                "renewed" => {
                    lease.renewed(at(now));
                    continue;
                }
                "step" | "idle" => match lease.step(at(now), Duration::from_millis(number)) {
                    LeaseStep::Connect(then) => format!("connect {}", then.as_millis()),
                    LeaseStep::Wait(then) => format!("wait {}", then.as_millis()),
                    LeaseStep::Stalled(then) => format!("stalled {}", then.as_millis()),
                    other => format!("{other:?}").to_lowercase(),
                },
                // Answered after so long.
                "alive" | "dead" => {
                    let sent = at(now);
                    now += number;
                    let pulse = lease.answered(at(now), sent, what == "alive");
                    told(&lease, pulse)
                }
                "refused" => {
                    let pulse = lease.not_connected(at(now), pause);
                    told(&lease, pulse)
                }
                // After this process had not looked for so long.
                "closed" => {
                    let pulse = lease.closed(at(now), at(now - number), pause);
                    told(&lease, pulse)
                }
                "first" => {
                    lease.renewed_first(at(now));
                    continue;
                }
                "unanswered" => {
                    let pulse = lease.unanswered(at(now), pause);
                    told(&lease, pulse)
                }
                other => panic!("{other:?}"),
            });
        }
        said
    }

    #[test]
    fn steps_by_transcript() {
        for (words, said) in [
            // A heartbeat counts from its sending.
            (
                "step seen step wait:300 step alive:50 step",
                &["connect 1000", "wait 1300", "beat", "Alive until 2280", "wait 1600"][..],
            ),
            // Answered after the lease was over, it is no sign of life.
            ("seen wait:300 step alive:990 step", &["beat", "Missed until 2280", "beat"]),
            // Closed: half the grace is vouched for, attempts hurry, and the next heartbeat vouches for the whole.
            (
                "seen closed step wait:25 refused step wait:100 refused step wait:100 refused step seen step alive:1",
                &[
                    "Missed until 1100",
                    "connect 1025",
                    "Missed until 1100",
                    "connect 1050",
                    "Missed until 1100",
                    "connect 1150",
                    "Missed until 1100",
                    "connect 1725",
                    "beat",
                    "Alive until 2205",
                ],
            ),
            // Renewed before it was seen again, it lives for its grace: attempts hurry, and nothing is vouched for.
            (
                "seen closed wait:225 refused step first closed step wait:200 closed step",
                &[
                    "Missed until 1100",
                    "Missed until 1100",
                    "connect 1725",
                    "Missed until 1100",
                    "connect 1250",
                    "Missed until 1100",
                    "connect 1925",
                ],
            ),
            // A process that was frozen counts from when it last looked: here, what was vouched for is over already.
            ("seen wait:300 closed:30", &["Missed until 1400"]),
            ("seen wait:300 closed:90", &["Missed until 1350"]),
            ("seen wait:300 closed:290 step", &["Missed until 1150", "connect 1325"]),
            // A closing never vouches for longer.
            ("seen wait:950 closed", &["Missed until 1980"]),
            // Without presence a closed connection takes nothing.
            ("unseen closed step", &["Missed until 1980", "connect 1500"]),
            // An unanswered heartbeat takes nothing either: its connection is kept until the next stands.
            (
                "seen unanswered step closed step",
                &["Missed until 1980", "connect 1500", "Missed until 1100", "connect 1025"],
            ),
            // Lost, by the server's word.
            ("seen wait:300 step dead:1 step", &["beat", "Lost until 1980", "lost"]),
            // Seen before and not seen any more, it may be shortened at any moment.
            ("seen closed unseen step", &["Missed until 1100", "lost"]),
            ("unseen closed seen step", &["Missed until 1980", "beat"]),
            // Closed before it stood, it may have been seen.
            ("closed unseen step", &["Missed until 1100", "lost"]),
            // A runtime without progress has no heartbeats, and they go on once there is some.
            (
                "seen wait:300 idle:401 idle:401 wait:38 idle:401 step",
                &["stalled 1337", "wait 1337", "wait 1375", "wait 1375"],
            ),
            ("seen wait:300 idle:401 wait:38 step", &["stalled 1337", "beat"]),
        ] {
            assert_eq!(play(words), said, "{words}");
        }
    }

    #[test]
    fn lease_that_others_may_shorten_is_renewed_first() {
        let (mut lease, tolerance) = (LeaseKeeping::new(TIMING, at(1000)), TIMING.stall_tolerance);
        assert!(!lease.is_renewed_first(Duration::ZERO), "nobody has seen it");
        lease.connected(true);
        lease.closed(at(1100), at(1100), Duration::from_millis(PAUSE));
        assert!(lease.is_renewed_first(tolerance));
        assert!(!lease.is_renewed_first(tolerance + Duration::from_millis(1)), "the application makes no progress");
        assert_eq!(lease.vouched(), at(1200), "it vouches for nothing");
    }

    #[test]
    fn unrenewed_ownership_ends_the_lease() {
        // Renewals fail all the time, heartbeats do not.
        let beats = "wait:300 step alive:0 ";
        let words = format!("seen {}", beats.repeat(9));
        let said = play(&words);
        let renewals: Vec<_> = said.iter().filter(|word| *word == "renew").collect();
        assert_eq!(renewals.len(), 1, "at 2700, when 2500 have passed: {said:?}");
        let until_the_end = play(&format!("seen {} wait:1500 alive:0 step", beats.repeat(9)));
        assert_eq!(&until_the_end[until_the_end.len() - 2..], ["Lost until 4680", "lost"], "{until_the_end:?}");
        let renewed = play(&format!("seen {} renewed wait:1500 alive:0", beats.repeat(9)));
        assert_eq!(renewed.last().unwrap(), "Alive until 6180");
    }
}
