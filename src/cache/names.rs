//! The members by their names, as they are at one moment. Copies share what is the same in them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use immutable_chunkmap::set::Set;

use super::members::CHUNK;
use crate::model::Member;

#[derive(Clone)]
pub(super) struct Names {
    set: Set<Named, CHUNK>,
    hasher: RandomState,
}

/// A member under the hash of its name: a look-up compares numbers, which stand side by side, and one name at the end.
#[derive(Clone)]
struct Named {
    hash: u64,
    member: Arc<Member>,
}

/// What [`Named`] is found by.
trait Key {
    fn key(&self) -> (u64, &str);
}

impl Names {
    pub(super) fn new() -> Self {
        Self { set: Set::new(), hasher: RandomState::new() }
    }

    fn named(&self, member: Arc<Member>) -> Named {
        Named { hash: self.hasher.hash_one(member.id().as_str()), member }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Member>> {
        let key: &dyn Key = &(self.hasher.hash_one(id), id);
        self.set.get(key).map(|named| &named.member)
    }

    /// Takes the place of who had this name before.
    pub(super) fn insert(&mut self, member: Arc<Member>) {
        self.set.insert_cow(self.named(member));
    }

    /// Takes whoever has this member's name.
    pub(super) fn remove(&mut self, member: Arc<Member>) {
        self.set.remove_cow::<Named>(&self.named(member));
    }
}

impl Key for Named {
    fn key(&self) -> (u64, &str) {
        (self.hash, self.member.id().as_str())
    }
}

impl Key for (u64, &str) {
    fn key(&self) -> (u64, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Key + 'a> for Named {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl Ord for dyn Key + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for dyn Key + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Key + '_ {}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Named {}

#[cfg(test)]
mod tests {
    use super::super::tests::member;
    use super::*;

    #[test]
    fn names_with_the_same_hash_are_told_apart() {
        let mut set: Set<Named, CHUNK> = Set::new();
        let named = |name: &str| Named { hash: 7, member: member(name, 1, 1) };
        ["b", "a", "c"].iter().for_each(|name| _ = set.insert_cow(named(name)));
        let get = |set: &Set<Named, CHUNK>, name: &str| {
            let key: &dyn Key = &(7, name);
            set.get(key).map(|named| named.member.id().to_string())
        };
        assert_eq!(["a", "b", "c", "d"].map(|name| get(&set, name).unwrap_or_default()), ["a", "b", "c", ""]);
        set.remove_cow::<Named>(&named("a"));
        assert_eq!(["a", "b", "c"].map(|name| get(&set, name).unwrap_or_default()), ["", "b", "c"]);
    }
}
