//! Answers of the server, and what they mean for our members.

use super::*;

impl Session {
    /// Takes the reply to a command of ours.
    pub(crate) fn reply(
        &mut self,
        now: Moment,
        tag: Tag,
        reply: Result<Reply, Error>,
        effects: &mut Effects,
        out: &mut Outbox,
    ) {
        let Some(under_way) = self.in_flight.take(tag) else { return };
        match (under_way, reply) {
            (SessionCommand::Renew, Ok(Reply::Renewed { strangers })) => effects.hints = strangers,
            (SessionCommand::Extend { session, sent, mut held }, Ok(Reply::Extended { cursor, held: more })) => {
                held.extend(more);
                let is_ours = matches!(&self.lease, Lease::Held { session: ours, .. } if *ours == session);
                match cursor {
                    _ if !is_ours => {}
                    0 => self.audited(now, sent, held, out),
                    _ => self.extend(session, sent, cursor, held, out),
                }
            }
            (SessionCommand::Renew | SessionCommand::Extend { .. }, Ok(_)) => {}
            // What the link took with it is sent again over the next.
            (SessionCommand::Renew | SessionCommand::Extend { .. }, Err(error)) if error.is_of_the_link() => {
                effects.broken = Some(error);
            }
            (SessionCommand::Renew | SessionCommand::Extend { .. }, Err(error)) => {
                if self.session().is_some() {
                    out.timers.set_sooner(Timer::Renewal, now + self.settings.ttl / RENEW_AGAIN);
                }
                out.push(Output::Warn(Warning::RenewalFailed(error)));
            }
            (SessionCommand::Op { op, .. }, Err(error)) => self.failed(now, op, error, effects, out),
            (SessionCommand::Op { op, session, .. }, Ok(_)) if self.is_outlived(&op, &session) => self.park(op, out),
            (SessionCommand::Op { op, sent, progress, draft, .. }, Ok(reply)) => {
                self.done(now, op, (sent, progress), draft, reply, effects, out);
            }
        }
        if let Lease::Opening = self.lease
            && !self
                .in_flight
                .iter()
                .any(|under_way| matches!(under_way, SessionCommand::Op { op, .. } if op.opens.is_some()))
        {
            self.lease = Lease::Absent;
        }
    }

    /// Whether what this did for a session does not count any more, since that session has been lost meanwhile.
    fn is_outlived(&self, op: &Op, session: &SessionId) -> bool {
        let counts = match (&op.act, &self.lease) {
            (Act::Join(..) | Act::Edit(..) | Act::Open, Lease::Held { session: ours, .. }) => ours == session,
            (Act::Join(..) | Act::Edit(..) | Act::Open, Lease::Absent | Lease::Opening) => op.opens.is_some(),
            (Act::Leave(..) | Act::Close(_) | Act::GiveBack(_), _) => true,
        };
        !counts
    }

    #[expect(clippy::too_many_arguments, reason = "one reply in its context; a struct would only rename them")]
    fn done(
        &mut self,
        now: Moment,
        op: Op,
        (sent, progress): (Moment, u64),
        draft: MemberDraft,
        reply: Reply,
        effects: &mut Effects,
        out: &mut Outbox,
    ) {
        match (op.act.clone(), reply) {
            (Act::Join(who, _), Reply::Joined { incarnation, revision, joined_at_ms }) => {
                self.opened(now, sent, &op, out);
                let Lease::Held { session, .. } = &self.lease else { return };
                let id = who.id.clone();
                if let Some(OwnState::Rejoining { last, cause }) = self.own_of(&who).map(|own| &own.state) {
                    effects.departed.push((id.clone(), *last, *cause));
                }
                let member = Member::new(id.clone(), incarnation, revision, session.clone(), joined_at_ms, draft);
                effects.stored.push(StoredMember { member: Arc::new(member), progress });
                match self.own_of_mut(&who) {
                    Some(own) => {
                        own.state = OwnState::Held { incarnation, joined_at_ms };
                        out.push(Output::Standing(id.clone(), Standing::Held(incarnation)));
                        effects.answer(op.ticket, Ok(Answer::Joined(id, incarnation)));
                    }
                    None => {
                        effects.answer(op.ticket, Err(not_held(&id)));
                        self.take_back(id, Some(incarnation));
                    }
                }
            }
            (Act::Join(who, _), Reply::Conflict { holder }) => {
                let id = &who.id;
                if self.own_of(&who).is_none() {
                    // It has left meanwhile.
                } else if op.ticket.is_none() {
                    self.end(id, LeaveCause::Replaced, out);
                } else {
                    self.forget(id, out);
                }
                let message = format!(
                    "member {id:?} is live under another session, held by {holder}; choose another name, wait, or \
                     use OnConflict::TakeOver"
                );
                effects.answer(op.ticket, Err(Error::new(ErrorKind::Conflict, message)));
            }
            (Act::Open, Reply::Opened) => {
                self.opened(now, sent, &op, out);
                // No view has to show it.
                answer(out, op.ticket, Ok(Answer::Opened));
            }
            (Act::Open, Reply::Lost) => self.waiting.push_front(Op { opens: None, ..op }),
            (Act::GiveBack(_), _) => {}
            (Act::Join(..), Reply::Lost) => {
                if op.opens.is_none() {
                    self.lease_lost(effects, out);
                }
                self.waiting.push_front(Op { opens: None, ..op });
            }
            (Act::Edit(Who { id, life }, _), Reply::Updated { revision }) => {
                if let (Lease::Held { session, .. }, Some(own)) = (&self.lease, self.own.get_mut(&id))
                    && own.life == life
                    && let OwnState::Held { incarnation, joined_at_ms } = own.state
                {
                    own.draft.clone_from(&draft);
                    own.editing = false;
                    let member = Member::new(id.clone(), incarnation, revision, session.clone(), joined_at_ms, draft);
                    effects.stored.push(StoredMember { member: Arc::new(member), progress });
                    if !own.edits.is_empty() {
                        self.with_edits.insert(id);
                    }
                }
                effects.answer(op.ticket, Ok(Answer::Edited));
            }
            (Act::Edit(who, _), Reply::Lost) => {
                self.edit_over(&who);
                effects.answer(op.ticket, Err(not_held(&who.id)));
                effects.hints.push(who.id);
            }
            (Act::Leave(id, incarnation), Reply::Left(left)) => {
                if let (true, Some(incarnation)) = (left, incarnation) {
                    effects.departed.push((id, incarnation, LeaveCause::Left));
                } else {
                    effects.hints.push(id);
                }
                effects.answer(op.ticket, Ok(Answer::Left(left || op.uncertain)));
            }
            (Act::Close(_), Reply::Closed { remaining }) if remaining > 0 => self.waiting.push_front(op),
            (Act::Close(_), _) => effects.answer(op.ticket, Ok(Answer::Closed)),
            (act, _) => effects.answer(op.ticket, Err(Error::unexpected(act.name()))),
        }
    }

    /// The session that this operation was to open stands, its lease acknowledged when sent then.
    fn opened(&mut self, now: Moment, sent: Moment, op: &Op, out: &mut Outbox) {
        let Some(session) = &op.opens else { return };
        let until = sent + self.settings.lost_after;
        let session = session.clone();
        self.lease = Lease::Held { session: session.clone(), until, over: until, trust: Trust::Held };
        self.renewal_wanted = false;
        out.timers.set(Timer::Renewal, now + RENEW_EVERY * self.settings.ttl);
        self.watch_lease(out);
        (self.lost, self.missing_beats) = (false, false);
        out.push(Output::Keep(session, sent));
    }

    pub(super) fn edit_over(&mut self, who: &Who) {
        if let Some(own) = self.own_of_mut(who) {
            own.editing = false;
            if !own.edits.is_empty() {
                self.with_edits.insert(who.id.clone());
            }
        }
    }

    fn failed(&mut self, now: Moment, mut op: Op, error: Error, effects: &mut Effects, out: &mut Outbox) {
        op.attempts += 1;
        if error.is_of_the_link() {
            op.uncertain |= !error.is_unapplied();
            effects.broken = Some(error);
            self.park(op, out);
            return;
        }
        match &op.act {
            Act::Join(who, _) if op.ticket.is_none() && self.own_of(who).is_some() => {
                out.push(Output::Warn(Warning::RejoinFailed { id: who.id.clone(), error }));
                op.opens = None;
                self.delay(now, op, out);
            }
            Act::Join(who, _) => {
                if self.own_of(who).is_some_and(|own| own.state == OwnState::Joining) {
                    self.forget(&who.id, out);
                }
                if op.uncertain {
                    self.take_back(who.id.clone(), None);
                }
                answer(out, op.ticket, Err(error));
            }
            Act::Leave(id, _) => {
                out.push(Output::Warn(Warning::LeaveFailed { id: id.clone(), error: error.clone() }));
                answer(out, op.ticket.take(), Err(error));
                op.deadline = None;
                self.delay(now, op, out);
            }
            Act::Edit(who, _) => {
                self.edit_over(&who.clone());
                answer(out, op.ticket, Err(error));
            }
            Act::GiveBack(queue_entry) => {
                out.push(Output::Warn(Warning::ReleaseFailed { lock: queue_entry.hold_id.name.to_string(), error }));
            }
            Act::Close(_) | Act::Open => answer(out, op.ticket, Err(error)),
        }
    }

    /// Does it again later, at longer and longer intervals.
    fn delay(&mut self, now: Moment, op: Op, out: &mut Outbox) {
        let pause = Duration::from_millis(50) * 2u32.saturating_pow(op.attempts.min(10));
        let at = now + pause.min(self.settings.ttl);
        self.delayed.push((at, op));
        out.timers.set_sooner(Timer::Retry, at);
    }

    /// The server has said that the lease is gone, and with it everything that lived by it.
    pub(super) fn lease_lost(&mut self, effects: &mut Effects, out: &mut Outbox) {
        if self.session().is_none() {
            return;
        }
        self.end_lease(out);
        self.lost = true;
        out.push(Output::Release);
        let held: Vec<_> = self
            .own
            .iter()
            .filter(|(_, own)| matches!(own.state, OwnState::Held { .. }))
            .map(|(id, _)| id.clone())
            .collect();
        for id in held {
            self.member_lost(&id, LeaveCause::Expired, out);
            effects.hints.push(id);
        }
    }

    /// Nobody's join and no leave of ours has ended this membership: its record was deleted, evicted or overwritten.
    fn put_right(&mut self, id: &MemberId, cause: LeaveCause, out: &mut Outbox) {
        if self.settings.on_lost == OnLost::Rejoin {
            out.push(Output::Warn(Warning::PutRight { id: id.clone(), cause }));
        }
        self.member_lost(id, cause, out);
    }

    /// One of our members is not in the group any more.
    fn member_lost(&mut self, id: &MemberId, cause: LeaveCause, out: &mut Outbox) {
        match self.settings.on_lost {
            OnLost::Rejoin => {
                let Some(own) = self.own.get_mut(id) else { return };
                let OwnState::Held { incarnation, .. } = own.state else { return };
                own.state = OwnState::Rejoining { last: incarnation, cause };
                out.push(Output::Standing(id.clone(), Standing::Lost(cause)));
                let who = Who { id: id.clone(), life: own.life };
                let op = self.op(Act::Join(who, Contest::Rejoin));
                self.waiting.push_back(op);
            }
            OnLost::Stop => self.end(id, cause, out),
        }
    }

    fn end(&mut self, id: &MemberId, cause: LeaveCause, out: &mut Outbox) {
        let Some(own) = self.own.get_mut(id) else { return };
        let last = match std::mem::replace(&mut own.state, OwnState::Ended(cause)) {
            OwnState::Held { incarnation, .. } => Some(incarnation),
            _ => None,
        };
        for edit in own.edits.drain(..) {
            answer(out, edit.ticket, Err(not_held(id)));
        }
        self.with_edits.remove(id);
        out.push(Output::Standing(id.clone(), Standing::Ended(cause)));
        if let (Some(last), LeaveCause::Removed | LeaveCause::Evicted) = (last, cause) {
            self.take_back(id.clone(), Some(last));
        }
    }

    /// Another one is there instead of this incarnation of ours.
    pub(crate) fn replaced(
        &mut self,
        id: &MemberId,
        incarnation: Incarnation,
        by: Option<&SessionId>,
        out: &mut Outbox,
    ) {
        let held = |own: &Own| matches!(own.state, OwnState::Held { incarnation: held, .. } if held == incarnation);
        if !self.own.get(id).is_some_and(held) {
            return;
        }
        if by.is_some_and(|by| by.is_of_another(&self.settings.connector)) {
            self.end(id, LeaveCause::Replaced, out);
        } else {
            self.put_right(id, LeaveCause::Replaced, out);
            if by.is_some_and(|by| !by.is_adopted()) && self.settings.on_lost == OnLost::Stop {
                self.take_back(id.clone(), None);
            }
        }
    }

    /// Applies changes of the roster to the members of this connector.
    pub(crate) fn observe(&mut self, changes: &[Change], effects: &mut Effects, out: &mut Outbox) {
        for (at, change) in changes.iter().enumerate() {
            let (member, cause) = match change {
                Change::Left { member, cause } => (member, cause),
                Change::Joined(member) | Change::Updated { new: member, .. } => {
                    self.take_back_stray(member);
                    continue;
                }
            };
            let (id, last) = (member.id(), member.incarnation());
            let Some(own) = self.own.get(id) else { continue };
            if !matches!(own.state, OwnState::Held { incarnation, .. } if incarnation == last) {
                continue;
            }
            match cause {
                LeaveCause::Expired => self.lease_lost(effects, out),
                LeaveCause::Removed | LeaveCause::Evicted => self.put_right(id, *cause, out),
                // What we take out ourselves is none of ours any more: it was somebody else.
                LeaveCause::Left => self.put_right(id, LeaveCause::Removed, out),
                LeaveCause::Replaced => {
                    let by = changes[at + 1..].iter().find_map(|change| match change {
                        Change::Joined(next) if next.id() == id => Some(next.session()),
                        _ => None,
                    });
                    self.replaced(id, last, by, out);
                }
            }
        }
    }

    /// A join that was given up has been done all the same, after what was to undo it.
    fn take_back_stray(&mut self, member: &Member) {
        let is_known = self.own.get(member.id()).is_some_and(|own| !matches!(own.state, OwnState::Ended(_)));
        if self.session() != Some(member.session()) || is_known {
            return;
        }
        let (id, incarnation) = (member.id(), Some(member.incarnation()));
        let in_flight = self.in_flight.iter().filter_map(|under_way| match under_way {
            SessionCommand::Op { op, .. } => Some(op),
            SessionCommand::Renew | SessionCommand::Extend { .. } => None,
        });
        let is_leave = |op: &Op, from: Option<Incarnation>| matches!(&op.act, Act::Leave(leaving, at) if leaving == id && *at == from);
        // One that waits comes after it, one that is under way may have come before.
        let mut in_flight = in_flight.chain(&self.waiting);
        if !in_flight.any(|op| is_leave(op, incarnation)) && !self.waiting.iter().any(|op| is_leave(op, None)) {
            self.take_back(id.clone(), incarnation);
        }
    }

    /// The answer to a join came when its caller was gone: give the membership back.
    pub(crate) fn unclaimed(&mut self, id: &MemberId, incarnation: Incarnation, out: &mut Outbox) {
        let held = |own: &Own| matches!(own.state, OwnState::Held { incarnation: held, .. } if held == incarnation);
        if self.own.get(id).is_some_and(held) {
            self.forget(id, out);
            self.take_back(id.clone(), Some(incarnation));
        }
    }
}
