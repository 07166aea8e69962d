//! The view against a model that is copied whole at each change.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::{View, ViewReader, ViewWriter, view};
use crate::clock;
use crate::model::{Incarnation, LeaveCause, Member, MemberDraft, MemberId, Revision, SessionId};
use crate::proto::Change;

pub(super) fn member(name: &str, incarnation: u64, revision: u64) -> Arc<Member> {
    let (incarnation, revision) = (Incarnation::new(incarnation), Revision::new(revision));
    let session = SessionId::new("s-1");
    Arc::new(Member::new(MemberId::known(name), incarnation, revision, session, 0, MemberDraft::default()))
}

/// One change, of a member that the index draws.
#[derive(Clone, Copy, Debug)]
enum Act {
    Join,
    Update(Index),
    Leave(Index),
    /// A restart under the same name: the place in the order is another one.
    Replace(Index),
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Act>),
    /// Of the members that there are, these leave unseen, and so many others join.
    Snapshot(Vec<Index>, u8),
    /// Somebody keeps the view.
    Hold,
}

#[derive(Clone, Default)]
struct Model {
    ranked: BTreeMap<Incarnation, Arc<Member>>,
    revision: u64,
}

impl Model {
    fn next(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn drawn(&self, index: Index) -> Option<Arc<Member>> {
        let place = (!self.ranked.is_empty()).then(|| index.index(self.ranked.len()))?;
        self.ranked.values().nth(place).cloned()
    }

    fn joined(&mut self, name: &str) -> Change {
        let revision = self.next();
        let new = member(name, revision, revision);
        self.ranked.insert(new.incarnation(), new.clone());
        Change::Joined(new)
    }

    fn left(&mut self, member: Arc<Member>, cause: LeaveCause) -> Change {
        self.ranked.remove(&member.incarnation());
        Change::Left { member, cause }
    }

    fn act(&mut self, act: Act) -> Vec<Change> {
        match act {
            Act::Join => vec![self.joined(&format!("n{}", self.revision))],
            Act::Update(index) => {
                let Some(old) = self.drawn(index) else { return Vec::new() };
                let new = member(old.id().as_str(), old.incarnation().get(), self.next());
                self.ranked.insert(new.incarnation(), new.clone());
                vec![Change::Updated { old, new }]
            }
            Act::Leave(index) => {
                let left = self.drawn(index).map(|member| self.left(member, LeaveCause::Left));
                left.into_iter().collect()
            }
            Act::Replace(index) => {
                let Some(old) = self.drawn(index) else { return Vec::new() };
                let left = self.left(old.clone(), LeaveCause::Replaced);
                vec![left, self.joined(old.id().as_str())]
            }
        }
    }

    fn snapshot(&mut self, left: Vec<Index>, joined: u8) -> Vec<Arc<Member>> {
        for index in left {
            self.drawn(index).map(|member| self.left(member, LeaveCause::Expired));
        }
        for _ in 0..joined {
            self.act(Act::Join);
        }
        // A roster lists them in no order.
        let (even, odd): (Vec<_>, Vec<_>) = self.ranked.values().cloned().partition(|m| m.incarnation().get() % 2 == 0);
        odd.into_iter().chain(even).collect()
    }

    /// Whether the view is what was true when this model was copied.
    fn check(&self, view: &View, names: &[String]) {
        let all: Vec<_> = self.ranked.values().collect();
        assert_eq!(view.len(), all.len());
        assert_eq!(view.is_empty(), all.is_empty());
        assert_eq!(view.revision(), Revision::new(self.revision));
        assert!(view.iter().eq(all.iter().copied()), "{view:?}");
        assert!(view.into_iter().rev().eq(all.iter().rev().copied()), "{view:?}");
        assert_eq!(view.oldest(), all.first().copied());
        let by_name: BTreeMap<_, _> = all.iter().map(|member| (member.id().as_str(), *member)).collect();
        for name in names {
            assert_eq!(view.get(name), by_name.get(&**name).copied(), "{name}");
            assert_eq!(view.contains(name), by_name.contains_key(&**name));
        }
    }

    /// Two thirds from the front, one from the back, until they meet.
    fn check_ends(&self, view: &View) {
        let (mut iter, mut all) = (view.iter(), self.ranked.values());
        for turn in 0..=self.ranked.len() {
            assert_eq!(iter.len(), self.ranked.len() - turn.min(self.ranked.len()));
            if turn % 3 == 2 {
                assert_eq!(iter.next_back(), all.next_back());
            } else {
                assert_eq!(iter.next(), all.next());
            }
        }
        assert_eq!((iter.next(), iter.next_back(), iter.len()), (None, None, 0));
    }

    fn check_now(&self, reader: &ViewReader, names: &[String]) {
        let view = reader.load();
        self.check(&view, names);
        self.check_ends(&view);
        for name in names {
            assert_eq!(reader.member(name).as_ref(), view.get(name), "{name}");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let act = prop_oneof![
        3 => Just(Act::Join),
        3 => any::<Index>().prop_map(Act::Update),
        3 => any::<Index>().prop_map(Act::Leave),
        1 => any::<Index>().prop_map(Act::Replace),
    ];
    prop_oneof![
        8 => proptest::collection::vec(act, 1..40).prop_map(Step::Batch),
        1 => (proptest::collection::vec(any::<Index>(), 0..80), prop_oneof![Just(0), any::<u8>()])
            .prop_map(|(left, joined)| Step::Snapshot(left, joined)),
        2 => Just(Step::Hold),
    ]
}

fn apply(writer: &mut ViewWriter, changes: Vec<Change>) {
    writer.apply(changes, clock::instant(clock::now()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever comes: each view is what a copy of everything would have been, and stays so.
    #[test]
    fn a_view_is_what_a_copy_of_everything_would_be(
        first in prop_oneof![0..20u16, 0..400u16],
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let (mut writer, reader) = view(16, clock::instant(clock::now()));
        let (mut model, mut held) = (Model::default(), Vec::new());
        apply(&mut writer, (0..first).flat_map(|_| model.act(Act::Join)).collect());
        for step in steps {
            match step {
                Step::Batch(acts) => {
                    apply(&mut writer, acts.into_iter().flat_map(|act| model.act(act)).collect());
                }
                Step::Snapshot(left, joined) => {
                    writer.snapshot(model.snapshot(left, joined), clock::instant(clock::now()));
                }
                Step::Hold => held.push((reader.load(), model.clone())),
            }
        }
        let names: Vec<_> = (0..=model.revision).map(|number| format!("n{number}")).collect();
        model.check_now(&reader, &names);
        held.iter().for_each(|(view, then)| then.check(view, &names));
    }
}

/// Who holds the members: what a view copied for itself it holds once more.
fn holds(view: &View) -> usize {
    view.iter().map(Arc::strong_count).sum()
}

#[test]
fn a_change_copies_no_more_in_a_large_group() {
    let copied = |members: u64| {
        let (mut writer, reader) = view(16, clock::instant(clock::now()));
        let joined = (1..=members).map(|number| Change::Joined(member(&format!("n{number}"), number, number)));
        apply(&mut writer, joined.collect());
        let before = (reader.load(), holds(&reader.load()));
        let old = before.0.oldest().cloned().expect("a member");
        let new = member(old.id().as_str(), old.incarnation().get(), members + 1);
        apply(&mut writer, vec![Change::Updated { old, new }]);
        holds(&before.0) - before.1
    };
    let (small, large) = (copied(1000), copied(100_000));
    assert!(large < 1000, "the change of one of 100 000 copied {large} pointers, of 1000 {small}");
}
