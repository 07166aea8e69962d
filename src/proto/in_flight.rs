//! The commands of one owner that are under way, each with what its sender has to know when the reply comes.

use std::collections::BTreeMap;
use std::collections::btree_map::{IntoValues, Values};

use super::io::{Command, Owner, Tag};
use super::outbox::Outbox;

#[derive(Debug)]
pub(crate) struct InFlight<F> {
    owner: Owner,
    /// In the order of sending.
    flights: BTreeMap<u64, F>,
}

impl<F> InFlight<F> {
    pub(crate) fn new(owner: Owner) -> Self {
        Self { owner, flights: BTreeMap::new() }
    }

    pub(crate) fn send(&mut self, command: Command, flight: F, out: &mut Outbox) {
        let tag = out.command(self.owner, command);
        self.flights.insert(tag.number, flight);
    }

    /// What has been replied to, unless it was forgotten meanwhile.
    pub(crate) fn take(&mut self, tag: Tag) -> Option<F> {
        self.flights.remove(&tag.number)
    }

    /// All of them, the first sent first. Their replies do not count any more.
    pub(crate) fn drain(&mut self) -> IntoValues<u64, F> {
        std::mem::take(&mut self.flights).into_values()
    }

    pub(crate) fn clear(&mut self) {
        self.flights.clear();
    }

    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&mut F) -> bool) {
        self.flights.retain(|_, flight| is_kept(flight));
    }

    pub(crate) fn iter(&self) -> Values<'_, u64, F> {
        self.flights.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Output;

    #[test]
    fn what_was_forgotten_is_not_taken_and_nothing_is_taken_twice() {
        let (mut flying, mut out) = (InFlight::new(Owner::Members), Outbox::default());
        for flight in ["a", "b", "c"] {
            flying.send(Command::Sweep, flight, &mut out);
        }
        let outputs = std::iter::from_fn(|| out.pop());
        let tags: Vec<_> = outputs
            .map(|output| match output {
                Output::Command(tag, _) => tag,
                other => panic!("{other:?}"),
            })
            .collect();
        flying.retain(|flight| *flight != "b");
        assert_eq!([0, 1, 2, 0].map(|at: usize| flying.take(tags[at])), [Some("a"), None, Some("c"), None]);
    }

    #[test]
    fn they_are_drained_in_the_order_of_sending() {
        let (mut flying, mut out) = (InFlight::new(Owner::Members), Outbox::default());
        for flight in 0..300 {
            flying.send(Command::Sweep, flight, &mut out);
        }
        assert!(flying.drain().eq(0..300));
        assert!(flying.is_empty());
    }
}
