//! What the server tells of its changes: notifications to those who listen, and news from the scripts.

use super::{Server, Value};
use crate::model::{LeaveCause, MemberId};
use crate::settings::EventSource;
use crate::wire::{KeyEvent, News, Notice};

impl Server {
    pub(super) fn notify(&mut self, id: &MemberId, key_event: KeyEvent) {
        self.notices.push(Notice::Member(id.clone(), key_event));
    }

    /// Tells of members whose keys are there still.
    pub(super) fn tell_gone(&mut self, cause: LeaveCause, ids: &[MemberId]) {
        let incarnation = |id: &MemberId| match &self.keys.get(id)?.value {
            Value::Ours { member, .. } => Some((id.clone(), member.incarnation())),
            Value::Text(_) => None,
        };
        let members: Vec<_> = ids.iter().filter_map(incarnation).collect();
        if !members.is_empty() {
            self.notices.push(Notice::News(News::Gone { cause, members }));
        }
    }

    /// How somebody who listens so is told of it.
    pub(in crate::proto::simulation) fn tells(&self, source: EventSource, notice: Notice) -> Option<Notice> {
        match (source, notice) {
            (EventSource::Keyspace | EventSource::Keyevent, notice @ Notice::News(_)) => {
                (self.forbidden & 8 == 0).then_some(notice)
            }
            (EventSource::Poll, _)
            | (EventSource::Tracking, Notice::News(_))
            | (EventSource::Keyspace | EventSource::Keyevent, Notice::Everything) => None,
            (EventSource::Tracking, Notice::Member(id, _)) => Some(Notice::Member(id, KeyEvent::Other)),
            (EventSource::Tracking, Notice::Canary(_)) => Some(Notice::Canary(KeyEvent::Other)),
            (EventSource::Tracking, notice) => Some(notice),
            (_, notice) => self.notifies.then_some(notice),
        }
    }
}
