//! News of other connectors' members: their scripts tell what they write, and the notification of that needs no read.
//!
//! A script sends its news and then writes, and nothing else is done at the server in between: on one connection the
//! next notification after news of a record is the one of that write. Notifications still decide: what no news has told
//! is read. News comes on one connection and replies on another, so news that is older than what a reply has told is no
//! more than a hint.

use std::sync::Arc;

use super::Roster;
use crate::model::{Member, MemberId, SessionId};
use crate::mutant;
use crate::proto::effects::Effects;
use crate::wire::{KeyEvent, News};

impl Roster {
    /// Takes what a script has told. The next listing is made in full, as it would be after any change: a server that has
    /// lost its data meanwhile may be where it was at the last one.
    pub(crate) fn news(&mut self, news: News, effects: &mut Effects) {
        self.told = None;
        self.lookups.doubt();
        match news {
            News::Present { member, .. } if !self.is_of_another(member.session()) => {}
            News::Present { member, due } => {
                effects.due = due;
                self.told_of(&member, effects);
            }
            News::Gone { cause, members } => {
                for (id, incarnation) in members {
                    if self.session(&id).is_some_and(|session| !self.is_of_another(session)) {
                        continue;
                    }
                    self.unread += 1;
                    // Who is not known yet may be in an answer that is under way.
                    if !self.lookups.is_idle() {
                        let last = self.departed.entry(id.clone()).or_insert(incarnation);
                        *last = incarnation.max(*last);
                    }
                    effects.changes.extend(self.depart(&id, incarnation, cause));
                }
            }
        }
    }

    fn told_of(&mut self, member: &Arc<Member>, effects: &mut Effects) {
        let (id, revision) = (member.id().clone(), member.revision());
        let is_known = |roster: &Self| {
            let known = roster.members.get(&id);
            known.is_some_and(|known| known.incarnation() == member.incarnation() && known.revision() >= revision)
        };
        if !is_known(self) {
            if revision <= self.as_of && !mutant::is("news_over_a_newer_answer") {
                return self.hint(id, KeyEvent::Other);
            }
            self.store(member.clone(), &mut effects.changes);
        }
        if is_known(self) {
            self.unread += 1;
            self.told = Some(id);
        }
    }

    fn is_of_another(&self, session: &SessionId) -> bool {
        session.is_of_another(&self.connector)
    }

    /// Takes a notification: a hint, unless it says nothing new.
    pub(crate) fn notified(&mut self, id: MemberId, key_event: KeyEvent) {
        let told = self.told.take();
        let is_told = match key_event {
            KeyEvent::Set => {
                told.as_ref() == Some(&id) || mutant::is("all_sets_are_told") && self.members.contains_key(&id)
            }
            // Nobody is there to be taken out. What an answer brings that is under way may be older.
            KeyEvent::Deleted | KeyEvent::Expired | KeyEvent::Evicted => {
                !self.members.contains_key(&id) && !self.lookups.is_asked_for(&id)
            }
            KeyEvent::Expire | KeyEvent::Other => false,
        };
        if is_told {
            self.unread += 1;
        } else {
            self.hint(id, key_event);
        }
    }

    /// These were taken for dead, and their keys are gone: where no source tells of it, a read does.
    pub(crate) fn swept(&mut self, ids: Vec<MemberId>) {
        for id in ids.into_iter().filter(|id| self.members.contains_key(id)).collect::<Vec<_>>() {
            self.hint(id, KeyEvent::Other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Incarnation, LeaveCause};
    use crate::proto::outbox::Outbox;
    use crate::proto::{Moment, Output, Reply};

    #[test]
    fn who_left_while_all_was_listed_is_remembered_no_longer_than_the_listing() {
        let (mut roster, mut out) = (Roster::new("c".into()), Outbox::default());
        roster.want_listing();
        roster.advance(Moment::ORIGIN, &mut out);
        let Some(Output::Command(tag, _)) = out.pop() else { panic!("a listing") };
        let members = vec![(MemberId::known("a"), Incarnation::new(7))];
        roster.news(News::Gone { cause: LeaveCause::Left, members }, &mut Effects::default());
        assert_eq!(roster.departed.len(), 1);
        roster.reply(tag, Ok(Reply::Unchanged { due: None }), &mut Effects::default(), &mut out);
        assert!(roster.departed.is_empty());
    }
}
