//! The commands of one owner that are under way, each with what its sender has to know when the reply comes.

use std::collections::BTreeMap;
use std::collections::btree_map::{IntoValues, Values};

use super::io::{Command, Owner, Tag};
use super::outbox::Outbox;

#[derive(Debug)]
pub(crate) struct InFlight<C> {
    owner: Owner,
    /// In the order of sending.
    under_way: BTreeMap<u64, C>,
}

impl<C> InFlight<C> {
    pub(crate) fn new(owner: Owner) -> Self {
        Self { owner, under_way: BTreeMap::new() }
    }

    pub(crate) fn send(&mut self, command: Command, under_way: C, out: &mut Outbox) {
        let tag = out.command(self.owner, command);
        self.under_way.insert(tag.number, under_way);
    }

    /// What has been replied to, unless it was forgotten meanwhile.
    pub(crate) fn take(&mut self, tag: Tag) -> Option<C> {
        self.under_way.remove(&tag.number)
    }

    /// All of them, the first sent first. Their replies do not count any more.
    pub(crate) fn drain(&mut self) -> IntoValues<u64, C> {
        std::mem::take(&mut self.under_way).into_values()
    }

    pub(crate) fn clear(&mut self) {
        self.under_way.clear();
    }

    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&mut C) -> bool) {
        self.under_way.retain(|_, under_way| is_kept(under_way));
    }

    pub(crate) fn iter(&self) -> Values<'_, u64, C> {
        self.under_way.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Output;

    #[test]
    fn what_was_forgotten_is_not_taken_and_nothing_is_taken_twice() {
        let (mut in_flight, mut out) = (InFlight::new(Owner::Members), Outbox::default());
        for under_way in ["a", "b", "c"] {
            in_flight.send(Command::Sweep, under_way, &mut out);
        }
        let outputs = std::iter::from_fn(|| out.pop());
        let tags: Vec<_> = outputs
            .map(|output| match output {
                Output::Command(tag, _) => tag,
                other => panic!("{other:?}"),
            })
            .collect();
        in_flight.retain(|under_way| *under_way != "b");
        assert_eq!([0, 1, 2, 0].map(|at: usize| in_flight.take(tags[at])), [Some("a"), None, Some("c"), None]);
    }

    #[test]
    fn they_are_drained_in_the_order_of_sending() {
        let (mut in_flight, mut out) = (InFlight::new(Owner::Members), Outbox::default());
        for under_way in 0..300 {
            in_flight.send(Command::Sweep, under_way, &mut out);
        }
        assert!(in_flight.drain().eq(0..300));
        assert!(in_flight.is_empty());
    }
}
