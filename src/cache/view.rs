//! The view of the group, for readers, and its one writer.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::{broadcast, watch};

use super::events::{Batch, Event, Events};
use super::members::{Members, ViewIter};
use super::state::State;
use crate::model::{Member, MemberId, Revision};
use crate::proto::Change;

/// The members of a group as a connector knew them at one moment. It never changes: load a new one to see more.
///
/// Views share what is the same in them. A view that you keep costs what has changed since, whatever the size of the
/// group.
#[derive(Clone)]
pub struct View {
    members: Members,
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
        self.members.len() == 0
    }

    /// The member of that name, at the moment of this view.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Member>> {
        self.members.get(id)
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
        self.members.iter().next()
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
    type IntoIter = ViewIter<'a>;

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
    let empty =
        View { members: Members::new(), revision: Revision::new(0), version: 0, as_of: now, state: State::Connecting };
    let shared = Arc::new(Shared { members: DashMap::new(), view: ArcSwap::from_pointee(empty) });
    let (changed, receiver) = watch::channel(0);
    let (events, _) = broadcast::channel(event_buffer);
    let reader = ViewReader { shared: shared.clone(), changed: receiver, events: events.downgrade() };
    (ViewWriter { shared, changed, events }, reader)
}

impl ViewWriter {
    /// Replaces everything at once: what lies between is not known.
    pub(crate) fn snapshot(&mut self, members: Vec<Arc<Member>>, now: Instant) {
        let last = self.shared.view.load_full();
        let highest = members.iter().map(|member| member.revision()).max();
        let members: Members = members.into_iter().collect();
        self.shared.members.retain(|id, _| members.get(id.as_str()).is_some());
        for member in members.iter() {
            self.shared.members.insert(member.id().clone(), member.clone());
        }
        let revision = highest.map_or(last.revision, |highest| highest.max(last.revision));
        let view = self.publish(View { members, revision, ..View::clone(&last) }, now);
        self.send(view, Arc::new([]));
    }

    /// Applies one batch: users see all of it at once.
    pub(crate) fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        let mut next = View::clone(&self.shared.view.load());
        for change in &changes {
            match change {
                Change::Joined(member) | Change::Updated { new: member, .. } => {
                    self.shared.members.insert(member.id().clone(), member.clone());
                    next.members.insert(member.clone());
                    next.revision = next.revision.max(member.revision());
                }
                Change::Left { member, .. } => {
                    self.shared.members.remove_if(member.id(), |_, known| known.incarnation() == member.incarnation());
                    next.members.remove(member);
                }
            }
        }
        let view = self.publish(next, now);
        self.send(view, changes.into_iter().map(Event::from).collect());
    }

    fn publish(&mut self, next: View, now: Instant) -> Arc<View> {
        let view = Arc::new(View { version: next.version + 1, as_of: now, ..next });
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
