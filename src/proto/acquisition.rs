//! One attempt to hold a lock: when to ask, how long to wait, and what came of it.
//!
//! A grant ends the wait. Asking again is only for the case that the grant's message went missing, or that no
//! connector sweeps: it comes when the holder's lease would run out, and at each reconcile interval.

use std::time::Duration;

use super::Moment;
use crate::error::Error;
use crate::wire::Grant;

/// A lease has run out only once the clock has passed its deadline.
const PAST_DEADLINE: Duration = Duration::from_millis(2);
/// The least pause between two questions.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// What the server answers to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    Held(Grant),
    Busy,
    /// In the queue, behind so many; asking again makes sense after so long.
    Queued {
        before: u64,
        again: Option<Duration>,
    },
    /// The session is no more.
    Lost,
}

/// What is to be done next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Ask,
    /// Wait for a grant, but no longer than until then.
    Wait(Moment),
    Held(Grant),
    Busy,
    /// The server says that the lease is gone: begin anew with another session.
    Restart,
    /// The session can no longer be relied on: begin anew, with it or with another.
    Ended,
    Failed(Error),
}

#[derive(Debug)]
pub(crate) struct Acquisition {
    reconcile: Duration,
    step: Step,
    failures: u32,
    queued: bool,
}

impl Acquisition {
    pub(crate) fn new(reconcile: Duration) -> Self {
        Self { reconcile, step: Step::Ask, failures: 0, queued: false }
    }

    pub(crate) fn step(&self) -> Step {
        self.step.clone()
    }

    /// Whether the server has said that another is first.
    pub(crate) fn is_contended(&self) -> bool {
        self.queued
    }

    /// The server has answered, or it is not known whether it did anything: asked again, it does not do it twice.
    pub(crate) fn replied(&mut self, now: Moment, reply: Result<Acquired, Error>) {
        self.step = match reply {
            Ok(Acquired::Held(grant)) => Step::Held(grant),
            Ok(Acquired::Busy) => Step::Busy,
            Ok(Acquired::Lost) => Step::Restart,
            Ok(Acquired::Queued { again, .. }) => {
                (self.failures, self.queued) = (0, true);
                let pause = again.map_or(self.reconcile, |again| (again + PAST_DEADLINE).min(self.reconcile));
                Step::Wait(now + pause.max(LEAST_PAUSE))
            }
            Err(error) if error.is_of_the_link() => {
                self.failures += 1;
                let pause = LEAST_PAUSE * 2u32.saturating_pow(self.failures.min(10));
                Step::Wait(now + pause.min(self.reconcile))
            }
            Err(error) => Step::Failed(error),
        };
    }

    pub(crate) fn granted(&mut self, grant: Grant) {
        self.step = Step::Held(grant);
    }

    /// The wait is over without a grant, or there is a new link, over which the grant may not have come.
    pub(crate) fn waited(&mut self) {
        if let Step::Wait(_) = self.step {
            self.step = Step::Ask;
        }
    }

    pub(crate) fn session_ended(&mut self) {
        self.step = Step::Ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::model::FencingToken;

    const RECONCILE: Duration = Duration::from_millis(1000);

    fn after(replies: Vec<Result<Acquired, Error>>) -> (Acquisition, Option<Duration>) {
        let now = Moment::from_origin(Duration::from_secs(5));
        let mut acquisition = Acquisition::new(RECONCILE);
        for reply in replies {
            acquisition.waited();
            assert!(matches!(acquisition.step(), Step::Ask), "{acquisition:?}");
            acquisition.replied(now, reply);
        }
        let pause = if let Step::Wait(until) = acquisition.step() { Some(until.since(now)) } else { None };
        (acquisition, pause)
    }

    fn queued(again: Option<u64>) -> Result<Acquired, Error> {
        Ok(Acquired::Queued { before: 1, again: again.map(Duration::from_millis) })
    }

    fn broken() -> Result<Acquired, Error> {
        Err(Error::uncertain(ErrorKind::Connection, "broken"))
    }

    #[test]
    fn who_is_queued_asks_when_the_holder_would_be_dead_and_never_in_a_loop() {
        assert_eq!(after(vec![queued(Some(300))]).1, Some(Duration::from_millis(302)));
        assert_eq!(after(vec![queued(Some(0))]).1, Some(LEAST_PAUSE));
        assert_eq!(after(vec![queued(Some(60_000))]).1, Some(RECONCILE), "a lost grant is found at the reconcile");
        assert_eq!(after(vec![queued(None)]).1, Some(RECONCILE));
    }

    #[test]
    fn a_broken_link_is_waited_for_longer_each_time_and_an_answer_forgets_it() {
        let first = after(vec![broken()]).1.unwrap();
        let third = after(vec![broken(), broken(), broken()]).1.unwrap();
        assert!(first < third && third < RECONCILE, "{first:?} {third:?}");
        let (acquisition, pause) = after(vec![broken(), broken(), queued(Some(50)), broken()]);
        assert_eq!(pause, Some(first));
        assert!(acquisition.is_contended(), "it has been told who is first");
        assert_eq!(after((0..40).map(|_| broken()).collect()).1, Some(RECONCILE));
    }

    #[test]
    fn a_grant_ends_the_wait_and_nothing_after_it_counts() {
        let grant = Grant { token: FencingToken::new(7), since_ms: 1 };
        let (mut acquisition, _) = after(vec![queued(None)]);
        acquisition.granted(grant);
        acquisition.waited();
        assert!(matches!(acquisition.step(), Step::Held(held) if held == grant));
    }

    #[test]
    fn what_the_server_refuses_is_an_error_and_a_lost_session_a_new_beginning() {
        let refused = Err(Error::new(ErrorKind::ForeignValue, "a list"));
        let (acquisition, _) = after(vec![queued(None), refused]);
        assert!(matches!(acquisition.step(), Step::Failed(error) if error.kind() == ErrorKind::ForeignValue));
        assert!(matches!(after(vec![Ok(Acquired::Lost)]).0.step(), Step::Restart));
        assert!(matches!(after(vec![Ok(Acquired::Busy)]).0.step(), Step::Busy));
    }
}
