//! The stream of what happens in the group.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use tokio::sync::broadcast;
use tokio_util::sync::ReusableBoxFuture;

use super::view::{View, ViewReader};
use crate::model::{LeaveCause, Member, MemberId};
use crate::mutant;
use crate::proto::Change;

/// A change of the group.
///
/// Folding the events into a set, from a [`Snapshot`](Self::Snapshot) on, gives exactly the members of the
/// connector's view. Each member joins, is updated any number of times, and leaves, in this order. A member that
/// comes back is another incarnation; the one before it has left by then.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// All members that there are. It is the first event, and comes again whenever a change may have been missed: this
    /// subscriber has fallen behind, or the link was broken. What was folded before no longer counts.
    Snapshot(Arc<View>),
    /// A member that was not there has joined.
    Joined(Arc<Member>),
    /// A member that is there has changed its metadata or tags.
    Updated {
        /// As it was.
        old: Arc<Member>,
        /// As it is.
        new: Arc<Member>,
    },
    /// A member that was there has left.
    Left {
        /// As it was.
        member: Arc<Member>,
        /// Why.
        cause: LeaveCause,
    },
}

impl From<Change> for Event {
    fn from(change: Change) -> Self {
        match change {
            Change::Joined(member) => Self::Joined(member),
            Change::Updated { old, new } => Self::Updated { old, new },
            Change::Left { member, cause } => Self::Left { member, cause },
        }
    }
}

/// The events that lead from the view before to `view`. None at all: `view` is not led to, it replaces.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) view: Arc<View>,
    pub(crate) events: Arc<[Event]>,
}

type Receiver = broadcast::Receiver<Batch>;
type Received = (Result<Batch, broadcast::error::RecvError>, Receiver);

async fn receive(mut receiver: Receiver) -> Received {
    (receiver.recv().await, receiver)
}

/// The events of a group, from a snapshot on. Made by [`GroupConnector::events`](crate::GroupConnector::events).
///
/// It is bounded: a subscriber that reads too slowly gets a fresh [`Event::Snapshot`] in place of what it missed,
/// and never slows the others down. It ends when the connector closes.
///
/// # Cancel safety
/// Dropping a future of [`next`](Self::next) loses no event.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Events {
    reader: ViewReader,
    pending: VecDeque<Event>,
    /// The version of the view that the events so far add up to.
    version: u64,
    receiving: Option<ReusableBoxFuture<'static, Received>>,
}

impl Events {
    pub(crate) fn new(reader: ViewReader, receiver: Option<Receiver>) -> Self {
        // Subscribed first, loaded second: what comes between is in the view and is skipped by its version.
        let view = reader.load();
        Self {
            version: view.version(),
            pending: VecDeque::from([Event::Snapshot(view)]),
            receiving: receiver.map(|receiver| ReusableBoxFuture::new(receive(receiver))),
            reader,
        }
    }

    /// The next event, or `None` once the connector is closed. The same as `StreamExt::next`, with nothing to import.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// The stream in the shape of the Clojure library: sets of names that joined and that left.
    pub fn member_changes(self) -> MemberChanges {
        MemberChanges { events: self, known: BTreeSet::new() }
    }

    fn accept(&mut self, batch: Batch) {
        if batch.view.version() <= self.version {
            return;
        }
        self.version = batch.view.version();
        if batch.events.is_empty() {
            self.pending.push_back(Event::Snapshot(batch.view));
        } else {
            self.pending.extend(batch.events.iter().cloned());
        }
    }

    fn start_over(&mut self) {
        let view = self.reader.load();
        self.version = view.version();
        self.pending.push_back(Event::Snapshot(view));
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Poll::Ready(Some(event));
            }
            let Some(receiving) = &mut self.receiving else { return Poll::Ready(None) };
            match ready!(receiving.poll(cx)) {
                (Ok(batch), receiver) => {
                    receiving.set(receive(receiver));
                    self.accept(batch);
                }
                // From the present on: what is still buffered would only be skipped, or be missed again.
                (Err(broadcast::error::RecvError::Lagged(_)), receiver) => {
                    receiving.set(receive(receiver.resubscribe()));
                    if !mutant::is("lag_swallowed") {
                        self.start_over();
                    }
                }
                (Err(broadcast::error::RecvError::Closed), _) => self.receiving = None,
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

/// The names that joined and that left, as the Clojure library tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberChange {
    /// Names that have joined.
    pub joined: BTreeSet<MemberId>,
    /// Names that have left.
    pub left: BTreeSet<MemberId>,
}

/// The stream of [`MemberChange`]s. Made by [`Events::member_changes`].
///
/// The first item lists all present members as joined. A later snapshot becomes the difference to what was told before.
/// Updates are not told. A restart is a leave and then a join.
#[must_use = "a stream does nothing unless it is polled"]
#[derive(Debug)]
pub struct MemberChanges {
    events: Events,
    known: BTreeSet<MemberId>,
}

impl MemberChanges {
    /// The next change, or `None` once the connector is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Option<MemberChange> {
        StreamExt::next(self).await
    }

    fn change(&mut self, event: Event) -> MemberChange {
        let mut change = MemberChange::default();
        match event {
            Event::Snapshot(view) => {
                let present: BTreeSet<_> = view.iter().map(|member| member.id().clone()).collect();
                change.joined = present.difference(&self.known).cloned().collect();
                change.left = self.known.difference(&present).cloned().collect();
                self.known = present;
            }
            Event::Joined(member) => {
                self.known.insert(member.id().clone());
                change.joined.insert(member.id().clone());
            }
            Event::Left { member, .. } => {
                self.known.remove(member.id());
                change.left.insert(member.id().clone());
            }
            Event::Updated { .. } => {}
        }
        change
    }
}

impl Stream for MemberChanges {
    type Item = MemberChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MemberChange>> {
        loop {
            let Some(event) = ready!(self.events.poll_next_unpin(cx)) else { return Poll::Ready(None) };
            let change = self.change(event);
            if !change.joined.is_empty() || !change.left.is_empty() {
                return Poll::Ready(Some(change));
            }
        }
    }
}
