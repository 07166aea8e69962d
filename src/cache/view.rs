//! The view of the group, for readers, and its one writer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::{broadcast, watch};

use super::events::{Batch, Event, Events};
use super::state::State;
use crate::model::{Incarnation, Member, MemberId, Revision};
use crate::proto::Change;

/// The members of a group as a connector knew them at one moment. It never changes: load a new one to see more.
#[derive(Clone)]
pub struct View {
    members: Arc<[Arc<Member>]>,
    by_id: Arc<OnceLock<Box<[u32]>>>,
    revision: Revision,
    version: u64,
    as_of: Instant,
    state: State,
}

impl View {
    /// The members, the most senior first.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Member>> + DoubleEndedIterator {
        self.members.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member of that name. The first look-up in a view sorts its names once.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Member>> {
        let name = |index: u32| self.members[index as usize].id().as_str();
        let by_id = self.by_id.get_or_init(|| {
            let mut order: Box<[u32]> = (0..u32::try_from(self.members.len()).unwrap_or(u32::MAX)).collect();
            order.sort_unstable_by(|a, b| name(*a).cmp(name(*b)));
            order
        });
        let found = by_id.binary_search_by(|index| name(*index).cmp(id)).ok()?;
        self.members.get(by_id[found] as usize)
    }

    /// Whether there is a member of that name.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// The members that have this tag, the most senior first.
    pub fn with_tag<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'a Arc<Member>> + 'a {
        self.members.iter().filter(move |member| member.has_tag(tag))
    }

    /// The most senior member: the one whose incarnation is the lowest.
    #[must_use]
    pub fn oldest(&self) -> Option<&Arc<Member>> {
        self.members.first()
    }

    /// The highest revision of a member that this connector has seen. It never falls; a leave alone does not raise it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// When it was last known to be complete: the last reconciliation, or the last change.
    #[must_use]
    pub fn as_of(&self) -> Instant {
        self.as_of
    }

    /// The connector's state when this view was made. While it is not [`State::Connected`] the view grows old;
    /// [`State::Closed`] says that it is the last one.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("members", &self.members.iter().map(|member| member.id()).collect::<Vec<_>>())
            .field("revision", &self.revision)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a View {
    type Item = &'a Arc<Member>;
    type IntoIter = std::slice::Iter<'a, Arc<Member>>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.iter()
    }
}

/// What writer and readers share.
struct Shared {
    members: DashMap<MemberId, Arc<Member>>,
    view: ArcSwap<View>,
}

/// The writing half: the driver has the only one.
pub(crate) struct ViewWriter {
    shared: Arc<Shared>,
    ranked: BTreeMap<Incarnation, Arc<Member>>,
    changed: watch::Sender<u64>,
    events: broadcast::Sender<Batch>,
}

/// The reading half, of which there are many.
#[derive(Clone)]
pub(crate) struct ViewReader {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    events: broadcast::WeakSender<Batch>,
}

pub(crate) fn view(event_buffer: usize, now: Instant) -> (ViewWriter, ViewReader) {
    let empty = View {
        members: Arc::new([]),
        by_id: Arc::default(),
        revision: Revision::new(0),
        version: 0,
        as_of: now,
        state: State::Connecting,
    };
    let shared = Arc::new(Shared { members: DashMap::new(), view: ArcSwap::from_pointee(empty) });
    let (changed, receiver) = watch::channel(0);
    let (events, _) = broadcast::channel(event_buffer);
    let reader = ViewReader { shared: shared.clone(), changed: receiver, events: events.downgrade() };
    (ViewWriter { shared, ranked: BTreeMap::new(), changed, events }, reader)
}

impl ViewWriter {
    /// Replaces everything at once: what lies between is not known.
    pub(crate) fn snapshot(&mut self, members: Vec<Arc<Member>>, now: Instant) {
        self.ranked = members.into_iter().map(|member| (member.incarnation(), member)).collect();
        self.shared.members.retain(|_, known| self.ranked.contains_key(&known.incarnation()));
        for member in self.ranked.values() {
            self.shared.members.insert(member.id().clone(), member.clone());
        }
        let view = self.publish(now);
        self.send(view, Arc::new([]));
    }

    /// Applies one batch: the list is built once for all of it.
    pub(crate) fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        for change in &changes {
            match change {
                Change::Joined(member) | Change::Updated { new: member, .. } => {
                    self.shared.members.insert(member.id().clone(), member.clone());
                    self.ranked.insert(member.incarnation(), member.clone());
                }
                Change::Left { member, .. } => {
                    self.shared.members.remove_if(member.id(), |_, known| known.incarnation() == member.incarnation());
                    self.ranked.remove(&member.incarnation());
                }
            }
        }
        let view = self.publish(now);
        self.send(view, changes.into_iter().map(Event::from).collect());
    }

    fn publish(&mut self, now: Instant) -> Arc<View> {
        let last = self.shared.view.load();
        let members: Arc<[Arc<Member>]> = self.ranked.values().cloned().collect();
        let highest = members.iter().map(|member| member.revision()).max();
        let view = Arc::new(View {
            revision: highest.into_iter().chain([last.revision]).max().unwrap_or(last.revision),
            members,
            by_id: Arc::default(),
            version: last.version + 1,
            as_of: now,
            state: last.state,
        });
        self.shared.view.store(view.clone());
        view
    }

    /// The view must be stored before: a subscriber that comes in between finds the batch in it and skips the batch.
    fn send(&mut self, view: Arc<View>, events: Arc<[Event]>) {
        let version = view.version;
        // Without subscribers there is nobody to tell.
        let _ = self.events.send(Batch { view, events });
        self.changed.send_replace(version);
    }

    /// The same members, known to be complete as of then.
    pub(crate) fn confirm(&mut self, as_of: Instant) {
        let last = self.shared.view.load_full();
        if as_of > last.as_of {
            self.shared.view.store(Arc::new(View { as_of, ..(*last).clone() }));
        }
    }

    /// The same members, in another state of the link.
    pub(crate) fn state(&mut self, state: State) {
        let last = self.shared.view.load_full();
        self.shared.view.store(Arc::new(View { state, ..(*last).clone() }));
        self.changed.send_modify(|_| {});
    }
}

impl ViewReader {
    pub(crate) fn load(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    pub(crate) fn member(&self, id: &str) -> Option<Arc<Member>> {
        self.shared.members.get(id).map(|member| member.value().clone())
    }

    /// Waits until a view meets the condition; `None` if the connector closes before: its views are old.
    pub(crate) async fn wait_for(&self, mut condition: impl FnMut(&View) -> bool) -> Option<Arc<View>> {
        let mut changed = self.changed.clone();
        loop {
            changed.borrow_and_update();
            let view = self.load();
            if view.state == State::Closed {
                return None;
            }
            if condition(&view) {
                return Some(view);
            }
            changed.changed().await.ok()?;
        }
    }

    pub(crate) fn events(&self) -> Events {
        Events::new(self.clone(), self.events.upgrade().map(|sender| sender.subscribe()))
    }
}
