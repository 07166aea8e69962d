//! Requests of users, until they are sent or their time is up.

use super::*;

impl Session {
    pub(crate) fn request(&mut self, deadline: Moment, ticket: Ticket, request: Request, out: &mut Outbox) {
        if self.closing {
            out.push(Output::Answer(ticket, Err(Error::closed())));
            return;
        }
        match request {
            Request::Join(id, draft) => self.join(ticket, deadline, id, draft, out),
            Request::Rejoin(id) => self.rejoin(ticket, deadline, id, out),
            Request::Edit(id, edit) => self.edit(ticket, deadline, id, edit, out),
            Request::Leave(id) => self.leave(ticket, deadline, &id, out),
            Request::Open => {
                let op = self.asked(ticket, deadline, Act::Open, out);
                self.waiting.push_back(op);
            }
            Request::Watch(_) | Request::Sync => {}
            Request::Close => self.close(ticket, deadline, out),
        }
    }

    /// Gives a lock back, or a place in its queue.
    pub(crate) fn give_back(&mut self, queue_entry: QueueEntry) {
        if !self.closing {
            let op = self.op(Act::GiveBack(queue_entry));
            self.waiting.push_back(op);
        }
    }

    /// An operation for which nobody waits.
    pub(super) fn op(&mut self, act: Act) -> Op {
        self.nonces += 1;
        Op { ticket: None, deadline: None, nonce: self.nonces, uncertain: false, attempts: 0, opens: None, act }
    }

    /// An operation whose caller waits until then.
    fn asked(&mut self, ticket: Ticket, deadline: Moment, act: Act, out: &mut Outbox) -> Op {
        out.timers.set_sooner(Timer::Request, deadline);
        Op { ticket: Some(ticket), deadline: Some(deadline), ..self.op(act) }
    }

    fn join(&mut self, ticket: Ticket, deadline: Moment, id: MemberId, draft: MemberDraft, out: &mut Outbox) {
        if self.own.get(&id).is_some_and(|own| !matches!(own.state, OwnState::Ended(_))) {
            let message = format!("this connector has joined as {id:?} already; update that membership or leave it");
            out.push(Output::Answer(ticket, Err(Error::new(ErrorKind::AlreadyJoined, message))));
            return;
        }
        self.lives += 1;
        let life = self.lives;
        self.seek(ticket, deadline, Who { id: id.clone(), life }, out);
        self.own.insert(id, Own { life, draft, state: OwnState::Joining, edits: VecDeque::new(), editing: false });
    }

    fn rejoin(&mut self, ticket: Ticket, deadline: Moment, id: MemberId, out: &mut Outbox) {
        match self.own.get_mut(&id) {
            Some(Own { state: OwnState::Held { incarnation, .. }, .. }) => {
                let incarnation = *incarnation;
                out.push(Output::Answer(ticket, Ok(Answer::Held(incarnation))));
            }
            Some(own) if own.state != OwnState::Joining => {
                if let OwnState::Ended(_) = own.state {
                    own.state = OwnState::Joining;
                }
                let life = own.life;
                self.seek(ticket, deadline, Who { id, life }, out);
            }
            _ => {
                let message = format!("member {id:?} has left; join it anew");
                out.push(Output::Answer(ticket, Err(Error::new(ErrorKind::Lost, message))));
            }
        }
    }

    fn edit(&mut self, ticket: Ticket, deadline: Moment, id: MemberId, edit: Edit, out: &mut Outbox) {
        let life = self.own.get(&id).filter(|own| !matches!(own.state, OwnState::Ended(_))).map(|own| own.life);
        let op = life.map(|life| self.asked(ticket, deadline, Act::Edit(Who { id: id.clone(), life }, edit), out));
        let (Some(op), Some(own)) = (op, self.own.get_mut(&id)) else {
            out.push(Output::Answer(ticket, Err(not_held(&id))));
            return;
        };
        own.edits.push_back(op);
        self.with_edits.insert(id);
    }

    fn seek(&mut self, ticket: Ticket, deadline: Moment, who: Who, out: &mut Outbox) {
        let contest = match self.settings.on_conflict {
            OnConflict::TakeOver => Contest::Take,
            OnConflict::Reject => Contest::Yield,
        };
        let op = self.asked(ticket, deadline, Act::Join(who, contest), out);
        self.waiting.push_back(op);
    }

    fn leave(&mut self, ticket: Ticket, deadline: Moment, id: &MemberId, out: &mut Outbox) {
        let Some(own) = self.forget(id, out) else {
            out.push(Output::Answer(ticket, Ok(Answer::Left(false))));
            return;
        };
        let incarnation = match own.state {
            OwnState::Held { incarnation, .. } => Some(incarnation),
            OwnState::Joining => None,
            OwnState::Rejoining { last, .. } => {
                out.push(Output::Answer(ticket, Ok(Answer::Left(false))));
                return self.take_back(id.clone(), Some(last));
            }
            OwnState::Ended(_) => {
                out.push(Output::Answer(ticket, Ok(Answer::Left(false))));
                return;
            }
        };
        let op = self.asked(ticket, deadline, Act::Leave(id.clone(), incarnation), out);
        self.waiting.push_back(op);
    }

    /// Takes what the server has of a member that is over, its record or its place in the index, for as long as its
    /// session lives.
    pub(super) fn take_back(&mut self, id: MemberId, incarnation: Option<Incarnation>) {
        let op = self.op(Act::Leave(id, incarnation));
        self.waiting.push_back(op);
    }

    /// Takes a member out of our own, with what still waits for it.
    pub(super) fn forget(&mut self, id: &MemberId, out: &mut Outbox) -> Option<Own> {
        let own = self.own.remove(id)?;
        self.with_edits.remove(id);
        for edit in &own.edits {
            answer(out, edit.ticket, Err(not_held(id)));
        }
        let cause = match own.state {
            OwnState::Ended(cause) => cause,
            _ => LeaveCause::Left,
        };
        out.push(Output::Standing(id.clone(), Standing::Ended(cause)));
        Some(own)
    }

    fn close(&mut self, ticket: Ticket, deadline: Moment, out: &mut Outbox) {
        self.closing = true;
        out.push(Output::Release);
        let in_flight = self.in_flight.drain().filter_map(|under_way| match under_way {
            SessionCommand::Op { op, .. } => Some(op),
            SessionCommand::Renew | SessionCommand::Extend { .. } => None,
        });
        let waiting = self.waiting.drain(..).chain(self.delayed.drain(..).map(|(_, op)| op));
        let mut sessions = BTreeSet::new();
        for op in in_flight.chain(waiting) {
            sessions.extend(op.opens);
            if let Act::Close(session) = op.act {
                sessions.insert(session);
            }
            answer(out, op.ticket, Err(Error::closed()));
        }
        for (id, own) in self.own.drain() {
            for edit in own.edits {
                answer(out, edit.ticket, Err(Error::closed()));
            }
            let cause = if let OwnState::Ended(cause) = own.state { cause } else { LeaveCause::Left };
            out.push(Output::Standing(id, Standing::Ended(cause)));
        }
        self.with_edits.clear();
        out.timers.clear(Timer::Retry);
        sessions.extend(self.end_lease(out));
        let mut last = Some(ticket);
        for session in sessions {
            let op = Op { ticket: last.take(), deadline: Some(deadline), ..self.op(Act::Close(session)) };
            out.timers.set_sooner(Timer::Request, deadline);
            self.waiting.push_back(op);
        }
        if let Some(ticket) = last {
            out.push(Output::Answer(ticket, Ok(Answer::Closed)));
        }
    }

    /// Answers the requests whose time is up.
    pub(crate) fn expire(&mut self, now: Moment, out: &mut Outbox) {
        let is_over = |op: &Op| op.deadline.is_some_and(|deadline| deadline <= now);
        let (over, waiting): (VecDeque<Op>, _) = self.waiting.drain(..).partition(is_over);
        self.waiting = waiting;
        let mut over = Vec::from(over);
        for id in std::mem::take(&mut self.with_edits) {
            let Some(own) = self.own.get_mut(&id) else { continue };
            let (late, edits): (VecDeque<Op>, _) = own.edits.drain(..).partition(is_over);
            own.edits = edits;
            over.extend(late);
            if !own.edits.is_empty() {
                self.with_edits.insert(id);
            }
        }
        self.give_up_flying(now, out);
        let edits = self.with_edits.iter().filter_map(|id| self.own.get(id)).flat_map(|own| &own.edits);
        let in_flight = self.in_flight.iter().filter_map(|under_way| match under_way {
            SessionCommand::Op { op, .. } => Some(op),
            SessionCommand::Renew | SessionCommand::Extend { .. } => None,
        });
        let rest = self.waiting.iter().chain(edits).chain(in_flight).filter_map(|op| op.deadline);
        out.timers.set(Timer::Request, rest.min());
        for op in over {
            let is_uncertain = op.uncertain || matches!(op.act, Act::Leave(..));
            answer(out, op.ticket, Err(late(&op.act, is_uncertain)));
            if let Act::Join(who, _) = &op.act
                && self.own_of(who).is_some()
            {
                self.forget(&who.id, out);
            }
            match (op.act, op.opens) {
                // A member that leaves is gone, however late the server is told.
                (Act::Leave(id, incarnation), _) => self.take_back(id, incarnation),
                _ if !op.uncertain => {}
                (Act::Join(..) | Act::Open, Some(session)) => {
                    let close = self.op(Act::Close(session));
                    self.waiting.push_back(close);
                }
                (Act::Join(who, _), None) => self.take_back(who.id, None),
                _ => {}
            }
        }
    }

    /// Answers the requests that are under way when their time is up. What they do is given back when it is known.
    fn give_up_flying(&mut self, now: Moment, out: &mut Outbox) {
        let mut joins = Vec::new();
        let mut is_over = |under_way: &mut SessionCommand| {
            let SessionCommand::Op { op, .. } = under_way else { return false };
            if op.deadline.is_none_or(|deadline| deadline > now) {
                return false;
            }
            op.deadline = None;
            answer(out, op.ticket.take(), Err(late(&op.act, true)));
            if let Act::Join(who, _) = &op.act {
                joins.push(who.clone());
            }
            // Nothing comes after it that could wait for it.
            matches!(op.act, Act::Close(_))
        };
        self.in_flight.retain(|under_way| !is_over(under_way));
        for who in joins {
            if self.own_of(&who).is_some() {
                self.forget(&who.id, out);
            }
        }
    }
}

fn late(act: &Act, is_uncertain: bool) -> Error {
    let message = format!("{}: no answer from the server in time", act.name());
    if is_uncertain { Error::uncertain(ErrorKind::Timeout, message) } else { Error::new(ErrorKind::Timeout, message) }
}
