//! Whether what lives by the lease can be relied on: held, suspended, or over.

use super::*;

/// Whether what lives by the lease can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Held,
    /// Not vouched for since then. The server may say that lease and locks lived.
    Suspended {
        since: Moment,
    },
    /// Over by its ttl. The server may say that the lease lived, but what was held by it has been given up.
    Expired,
}

impl Session {
    /// Whether the lease is lost, or over by its ttl.
    pub(crate) fn is_lost(&self) -> bool {
        let over = |own: &Own| matches!(own.state, OwnState::Rejoining { .. } | OwnState::Ended(LeaveCause::Expired));
        matches!(self.lease, Lease::Held { trust: Trust::Expired, .. }) || self.lost && self.own.values().any(over)
    }

    /// Whether the lease is not vouched for, and may live all the same.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.lease, Lease::Held { trust: Trust::Suspended { .. }, .. })
    }

    /// Sees to it that the end of the present trust is not missed.
    pub(super) fn watch_lease(&self, out: &mut Outbox) {
        let end = match &self.lease {
            Lease::Held { until, trust: Trust::Held, .. } => Some(*until),
            Lease::Held { over, trust: Trust::Suspended { .. }, .. } => Some(*over),
            Lease::Held { trust: Trust::Expired, .. } | Lease::Absent | Lease::Opening => None,
        };
        out.timers.set(Timer::Lease, end);
    }

    /// There is no lease any more; the answer is whose it was.
    pub(super) fn end_lease(&mut self, out: &mut Outbox) -> Option<SessionId> {
        for timer in [Timer::Lease, Timer::Renewal] {
            out.timers.clear(timer);
        }
        match std::mem::replace(&mut self.lease, Lease::Absent) {
            Lease::Held { session, .. } => Some(session),
            Lease::Absent | Lease::Opening => None,
        }
    }

    /// What the passing of time means for what lives by the lease.
    pub(crate) fn distrust(&mut self, now: Moment, out: &mut Outbox) {
        if let Lease::Held { until, trust: Trust::Held, .. } = &self.lease
            && *until <= now
        {
            self.suspend(now, out);
        }
        if let Lease::Held { over, trust: trust @ Trust::Suspended { .. }, .. } = &mut self.lease
            && *over <= now
        {
            *trust = Trust::Expired;
            out.push(Output::Expire);
            self.tell_held(|_| Standing::Lost(LeaveCause::Expired), out);
        }
        self.watch_lease(out);
    }

    /// A guard has seen that the lease is not vouched for, perhaps before the clock came here.
    pub(crate) fn suspended(&mut self, now: Moment, out: &mut Outbox) {
        self.suspend(now, out);
        if let Lease::Held { until, .. } = &self.lease {
            self.audit_wanted |= *until > now;
        }
    }

    fn suspend(&mut self, now: Moment, out: &mut Outbox) {
        let Lease::Held { trust: trust @ Trust::Held, .. } = &mut self.lease else { return };
        *trust = Trust::Suspended { since: now };
        self.watch_lease(out);
        out.push(Output::Suspend);
        self.tell_held(Standing::Suspended, out);
    }

    /// Says how the members stand that are held.
    fn tell_held(&self, standing: impl Fn(Incarnation) -> Standing, out: &mut Outbox) {
        for (id, own) in &self.own {
            if let OwnState::Held { incarnation, .. } = own.state {
                out.push(Output::Standing(id.clone(), standing(incarnation)));
            }
        }
    }

    /// All that the session held from this moment on: held again, where the lease is vouched for.
    pub(super) fn audited(&mut self, now: Moment, sent: Moment, held: Vec<ListedHold>, out: &mut Outbox) {
        out.push(Output::Audited(sent, held));
        let Lease::Held { until, trust, .. } = &mut self.lease else { return };
        if matches!(trust, Trust::Suspended { since } if *since <= sent) && now < *until {
            *trust = Trust::Held;
            self.watch_lease(out);
            out.push(Output::Resume);
        }
    }

    pub(crate) fn beat(
        &mut self,
        session: &SessionId,
        (vouched, ended): (Moment, Moment),
        pulse: Pulse,
        effects: &mut Effects,
        out: &mut Outbox,
    ) {
        let Lease::Held { session: ours, until, over, trust, .. } = &mut self.lease else { return };
        if ours != session {
            return;
        }
        (*until, *over) = (vouched, ended);
        let before = *trust;
        if let (Pulse::Alive, Trust::Expired) = (pulse, before) {
            *trust = Trust::Held;
        }
        self.missing_beats = pulse == Pulse::Missed;
        self.watch_lease(out);
        match (pulse, before) {
            (Pulse::Lost, _) => self.lease_lost(effects, out),
            (Pulse::Missed, _) | (Pulse::Alive, Trust::Held) => {}
            // The lease has lived. Which locks have, the server is asked.
            (Pulse::Alive, Trust::Suspended { .. }) => {
                self.audit_wanted = true;
                self.tell_held(Standing::Held, out);
            }
            // Nothing is held by it any more.
            (Pulse::Alive, Trust::Expired) => {
                out.push(Output::Resume);
                self.tell_held(Standing::Held, out);
            }
        }
    }
}
