//! What is measured from the inside: the view without a server. Only in builds with `--cfg group_redis_bench`.

use std::sync::Arc;

use crate::View;
use crate::cache::{ViewReader, ViewWriter, view};
use crate::clock;
use crate::model::{Incarnation, LeaveCause, Member, MemberDraft, MemberId, Revision, SessionId};
use crate::proto::Change;

/// A group whose members change without a server.
pub struct Group {
    writer: ViewWriter,
    reader: ViewReader,
    members: Vec<Arc<Member>>,
    session: SessionId,
    revision: u64,
    drawn: usize,
}

impl Group {
    /// As many members, made, but not in the view yet.
    #[must_use]
    pub fn new(members: usize) -> Self {
        let (writer, reader) = view(16, clock::instant(clock::now()));
        let session = SessionId::new("b-1");
        let mut group = Self { writer, reader, members: Vec::new(), session, revision: 0, drawn: 0 };
        group.members = (0..members).map(|number| group.newcomer(&format!("worker-{number}"))).collect();
        group
    }

    /// They join, one after the other.
    pub fn fill(&mut self) {
        for member in self.members.clone() {
            self.apply(Change::Joined(member));
        }
    }

    /// One of them changes.
    pub fn update(&mut self) {
        let place = self.draw();
        let old = self.members[place].clone();
        let new = self.member(old.id().clone(), old.incarnation());
        self.members[place] = new.clone();
        self.apply(Change::Updated { old, new });
    }

    /// One of them leaves, and comes back as the youngest: two changes.
    pub fn restart(&mut self) {
        let place = self.draw();
        let member = self.members[place].clone();
        let new = self.newcomer(member.id().as_str());
        self.members[place] = new.clone();
        self.apply(Change::Left { member, cause: LeaveCause::Left });
        self.apply(Change::Joined(new));
    }

    /// What users see.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.reader.load()
    }

    fn apply(&mut self, change: Change) {
        self.writer.apply(vec![change], clock::instant(clock::now()));
    }

    fn newcomer(&mut self, name: &str) -> Arc<Member> {
        let incarnation = Incarnation::new(self.revision + 1);
        self.member(MemberId::known(name), incarnation)
    }

    fn member(&mut self, id: MemberId, incarnation: Incarnation) -> Arc<Member> {
        self.revision += 1;
        let (revision, session) = (Revision::new(self.revision), self.session.clone());
        Arc::new(Member::new(id, incarnation, revision, session, 0, MemberDraft::default()))
    }

    /// Far from the last, so that no cache helps.
    fn draw(&mut self) -> usize {
        self.drawn = (self.drawn + 7919) % self.members.len();
        self.drawn
    }
}
