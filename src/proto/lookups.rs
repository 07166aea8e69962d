//! Which keys to look up, and which look-ups are under way.
//!
//! Everything takes one way: a hint names a key, a read of that key answers. A listing only finds keys to hint at. One
//! read is under way at a time, so answers arrive in the order of the server, and a hint that comes during a read of its
//! key is simply read again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use super::io::Known;
use crate::mutant;
use crate::wire::KeyEvent;

/// How many keys one read asks for.
const READ_CHUNK: usize = 500;

/// A key that is being read, and what was last heard of it before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked<K> {
    pub(crate) key: K,
    pub(crate) key_event: KeyEvent,
}

#[derive(Debug)]
struct Listing<K> {
    /// What the first part said. It was true before anything that came meanwhile, so the next listing is compared to it.
    first: Option<Known>,
    seen: HashSet<K>,
}

#[derive(Debug)]
pub(crate) struct Lookups<K> {
    hinted: HashMap<K, KeyEvent>,
    queue: VecDeque<K>,
    reading: Vec<Asked<K>>,
    /// How many hints have ever been queued, and how many of them have been answered, in order.
    queued: u64,
    settled: u64,
    list_wanted: bool,
    listing: Option<Listing<K>>,
    listings: u64,
    known: Option<Known>,
}

impl<K: Clone + Eq + Hash> Lookups<K> {
    pub(crate) fn new() -> Self {
        Self {
            hinted: HashMap::new(),
            queue: VecDeque::new(),
            reading: Vec::new(),
            queued: 0,
            settled: 0,
            list_wanted: false,
            listing: None,
            listings: 0,
            known: None,
        }
    }

    /// Forgets what was being asked: the link that would have answered is gone.
    pub(crate) fn abandon(&mut self) {
        *self = Self { queued: self.queued, settled: self.queued, listings: self.listings, ..Self::new() };
    }

    pub(crate) fn hint(&mut self, key: K, key_event: KeyEvent) {
        if mutant::is("read_over_newer_hint") && self.is_being_read(&key) {
            return;
        }
        if self.hinted.insert(key.clone(), key_event).is_none() {
            self.queue.push_back(key);
            self.queued += 1;
        }
    }

    /// Begins the next read, unless one is under way or nothing is hinted at.
    pub(crate) fn next_read(&mut self) -> Option<&[Asked<K>]> {
        if !self.reading.is_empty() || self.queue.is_empty() {
            return None;
        }
        let take = self.queue.len().min(READ_CHUNK);
        for key in self.queue.drain(..take) {
            let key_event = self.hinted.remove(&key).unwrap_or(KeyEvent::Other);
            self.reading.push(Asked { key, key_event });
        }
        Some(&self.reading)
    }

    /// The read under way is answered: this is what it asked.
    pub(crate) fn answered(&mut self) -> Vec<Asked<K>> {
        self.settled += self.reading.len() as u64;
        std::mem::take(&mut self.reading)
    }

    /// The answer had no room for these. They are read next, and are not settled before.
    pub(crate) fn read_again(&mut self, later: Vec<Asked<K>>) {
        for Asked { key, key_event } in later.into_iter().rev() {
            if self.hinted.insert(key.clone(), key_event).is_none() {
                self.queue.push_front(key);
                self.settled -= 1;
            }
        }
    }

    /// The read under way brought no answer: what it asked is asked by the next full listing.
    pub(crate) fn read_failed(&mut self) {
        self.answered();
        self.doubt();
    }

    /// Whether a read of it is under way.
    pub(crate) fn is_being_read(&self, key: &K) -> bool {
        self.reading.iter().any(|asked| asked.key == *key)
    }

    /// Whether a read of it is under way or to come.
    pub(crate) fn is_asked_for(&self, key: &K) -> bool {
        self.hinted.contains_key(key) || self.is_being_read(key)
    }

    /// Whether no answer can bring anything new.
    pub(crate) fn is_idle(&self) -> bool {
        self.reading.is_empty() && self.queue.is_empty() && self.listing.is_none()
    }

    /// There is to be a listing.
    pub(crate) fn want_listing(&mut self) {
        self.list_wanted = true;
    }

    /// Begins the listing that is wanted, unless one is under way. `Some(None)` asks for all of it.
    pub(crate) fn begin_listing(&mut self) -> Option<Option<Known>> {
        if !self.list_wanted || self.listing.is_some() {
            return None;
        }
        self.list_wanted = false;
        self.listing = Some(Listing { first: None, seen: HashSet::new() });
        self.listings += 1;
        Some(self.known)
    }

    /// How many listings have begun.
    pub(crate) fn listings(&self) -> u64 {
        self.listings
    }

    /// Takes one part of a listing, each key with whether it is known as it is listed.
    pub(crate) fn listed(&mut self, part: Known, entries: impl IntoIterator<Item = (K, bool)>) {
        let Some(mut listing) = self.listing.take() else { return };
        listing.first.get_or_insert(part);
        for (key, is_known) in entries {
            if !is_known {
                self.hint(key.clone(), KeyEvent::Other);
            }
            listing.seen.insert(key);
        }
        self.listing = Some(listing);
    }

    /// The listing is complete. What is held and was not listed is read.
    pub(crate) fn listing_complete<'a>(&mut self, held: impl Iterator<Item = &'a K>)
    where
        K: 'a,
    {
        let Some(listing) = self.listing.take() else { return };
        for key in held.filter(|key| !listing.seen.contains(*key)) {
            self.hint(key.clone(), KeyEvent::Other);
        }
        self.known = listing.first;
    }

    /// The listing said that nothing has changed.
    pub(crate) fn listing_unchanged(&mut self) {
        self.listing = None;
    }

    pub(crate) fn listing_failed(&mut self) {
        self.listing = None;
        self.doubt();
    }

    /// No longer trusts the last listing, so that the next one is made in full.
    pub(crate) fn doubt(&mut self) {
        self.known = None;
    }

    /// Everything hinted so far is settled once [`settled`](Self::settled) has come this far.
    pub(crate) fn barrier(&self) -> u64 {
        self.queued
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;

    fn hinted(keys: &[&'static str]) -> Lookups<&'static str> {
        let mut lookups = Lookups::new();
        keys.iter().for_each(|key| lookups.hint(*key, KeyEvent::Set));
        lookups
    }

    fn read(lookups: &mut Lookups<&'static str>) -> Vec<&'static str> {
        lookups.next_read().into_iter().flatten().map(|asked| asked.key).collect()
    }

    fn known(revision: u64) -> Known {
        Known { revision: Revision::new(revision), count: 1 }
    }

    #[test]
    fn a_key_is_queued_once_and_read_for_what_was_heard_last() {
        let mut lookups = hinted(&["a", "b"]);
        lookups.hint("a", KeyEvent::Expired);
        let asked = [("a", KeyEvent::Expired), ("b", KeyEvent::Set)];
        assert_eq!(lookups.next_read().unwrap(), asked.map(|(key, key_event)| Asked { key, key_event }));
        assert_eq!(lookups.barrier(), 2);
    }

    #[test]
    fn one_read_at_a_time_and_a_hint_during_it_is_read_again() {
        let mut lookups = hinted(&["a"]);
        assert_eq!(read(&mut lookups), ["a"]);
        lookups.hint("a", KeyEvent::Set);
        assert!(lookups.next_read().is_none());
        lookups.answered();
        assert_eq!(read(&mut lookups), ["a"]);
        assert!(lookups.is_asked_for(&"a"));
        lookups.answered();
        assert!(lookups.is_idle() && !lookups.is_asked_for(&"a"));
    }

    #[test]
    fn a_read_takes_no_more_than_an_answer_has_room_for() {
        let mut lookups = Lookups::new();
        (0..=READ_CHUNK).for_each(|key| lookups.hint(key, KeyEvent::Set));
        assert_eq!(lookups.next_read().unwrap().len(), READ_CHUNK);
        lookups.answered();
        assert_eq!(lookups.next_read().unwrap().len(), 1);
    }

    #[test]
    fn a_barrier_is_settled_when_all_before_it_is_answered_or_given_up() {
        let mut lookups = hinted(&["a", "b"]);
        let barrier = lookups.barrier();
        read(&mut lookups);
        let asked = lookups.answered();
        lookups.read_again(asked[1..].to_vec());
        lookups.hint("c", KeyEvent::Set);
        assert!(lookups.settled() < barrier, "there was no room for b");
        assert_eq!(read(&mut lookups), ["b", "c"], "what comes before the barrier is read first");
        lookups.read_failed();
        assert_eq!(lookups.settled(), lookups.barrier());
    }

    #[test]
    fn what_was_hinted_at_again_is_settled_by_its_newer_hint() {
        let mut lookups = hinted(&["a"]);
        read(&mut lookups);
        lookups.hint("a", KeyEvent::Set);
        let asked = lookups.answered();
        lookups.read_again(asked);
        assert_eq!((lookups.settled(), lookups.barrier()), (1, 2));
        assert_eq!(read(&mut lookups), ["a"]);
        lookups.answered();
        assert_eq!(lookups.settled(), lookups.barrier());
    }

    #[test]
    fn a_listing_hints_at_what_is_new_and_at_what_is_missing() {
        let mut lookups = hinted(&[]);
        assert_eq!(lookups.begin_listing(), None, "none is wanted");
        lookups.want_listing();
        assert_eq!(lookups.begin_listing(), Some(None));
        lookups.want_listing();
        assert_eq!(lookups.begin_listing(), None, "one is under way");
        lookups.listed(known(7), [("a", true), ("b", false)]);
        lookups.listed(known(9), [("c", true)]);
        lookups.listing_complete(["a", "c", "d"].iter());
        assert_eq!(read(&mut lookups), ["b", "d"]);
        assert_eq!(lookups.begin_listing(), Some(Some(known(7))), "it is compared to the first part");
        assert_eq!(lookups.listings(), 2);
    }

    #[test]
    fn after_a_doubt_the_listing_is_full() {
        let doubts: [fn(&mut Lookups<&'static str>); 4] =
            [Lookups::doubt, Lookups::read_failed, Lookups::listing_failed, Lookups::abandon];
        for doubt in doubts {
            let mut lookups = hinted(&[]);
            for known in [None, Some(known(7))] {
                lookups.want_listing();
                assert_eq!(lookups.begin_listing(), Some(known));
                lookups.listed(self::known(7), []);
                lookups.listing_complete([].iter());
            }
            doubt(&mut lookups);
            lookups.want_listing();
            assert_eq!(lookups.begin_listing(), Some(None));
        }
    }

    #[test]
    fn what_is_abandoned_is_settled_and_not_asked_any_more() {
        let mut lookups = hinted(&["a"]);
        read(&mut lookups);
        lookups.hint("b", KeyEvent::Set);
        lookups.want_listing();
        lookups.begin_listing();
        lookups.want_listing();
        lookups.abandon();
        assert!(lookups.is_idle());
        assert_eq!((lookups.settled(), lookups.barrier(), lookups.listings()), (2, 2, 1));
        assert_eq!(lookups.begin_listing(), None);
    }
}
