//! The members as they are at one moment, by seniority and by name. A copy shares all with what it was made from, and a
//! change copies only the way to where it is: so a view costs what has changed, and not what it shows.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use immutable_chunkmap::map::Map;

use super::names::Names;
use crate::model::{Incarnation, Member};

/// How many members stand in one piece. A change copies a piece or two; a reader looks for a piece, and then in it.
pub(super) const CHUNK: usize = 64;

type Ranked = Map<Incarnation, Arc<Member>, CHUNK>;

#[derive(Clone)]
pub(super) struct Members {
    ranked: Ranked,
    names: Names,
}

impl Members {
    pub(super) fn new() -> Self {
        Self { ranked: Map::new(), names: Names::new() }
    }

    /// A member that is new, or that has changed.
    pub(super) fn insert(&mut self, member: Arc<Member>) {
        self.ranked.insert_cow(member.incarnation(), member.clone());
        self.names.insert(member);
    }

    /// The name may have passed on to another incarnation: that one stays.
    pub(super) fn remove(&mut self, member: &Arc<Member>) {
        self.ranked.remove_cow(&member.incarnation());
        if self.get(member.id().as_str()).is_some_and(|known| known.incarnation() == member.incarnation()) {
            self.names.remove(member.clone());
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Member>> {
        self.names.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.ranked.len()
    }

    pub(super) fn iter(&self) -> ViewIter<'_> {
        ViewIter { ranked: (&self.ranked).into_iter(), left: self.len() }
    }
}

impl FromIterator<Arc<Member>> for Members {
    fn from_iter<I: IntoIterator<Item = Arc<Member>>>(members: I) -> Self {
        let mut members: Vec<_> = members.into_iter().collect();
        // What comes in order fills its pieces.
        members.sort_unstable_by_key(|member| member.incarnation());
        let mut all = Self::new();
        members.into_iter().for_each(|member| all.insert(member));
        all
    }
}

/// The members of a [`View`](crate::View), the most senior first.
#[must_use = "an iterator does nothing unless it is asked"]
pub struct ViewIter<'a> {
    ranked: <&'a Ranked as IntoIterator>::IntoIter,
    left: usize,
}

impl<'a> Iterator for ViewIter<'a> {
    type Item = &'a Arc<Member>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.ranked.next().map(|(_, member)| member)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for ViewIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.ranked.next_back().map(|(_, member)| member)
    }
}

impl ExactSizeIterator for ViewIter<'_> {}

impl FusedIterator for ViewIter<'_> {}

impl fmt::Debug for ViewIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewIter").field("left", &self.left).finish_non_exhaustive()
    }
}
