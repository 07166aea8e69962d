//! A connector of the simulation.

use super::*;

/// A connector: its machine, what is on its wires, and what its users have been told.
pub(super) struct Client {
    pub(super) machine: Machine,
    pub(super) attached: bool,
    pub(super) dropped: bool,
    pub(super) sent: VecDeque<(Tag, Command)>,
    pub(super) replies: VecDeque<(Tag, Result<Reply, Error>)>,
    /// What it has told the server to tell it.
    pub(super) listening: EventSource,
    pub(super) notices: VecDeque<Notice>,
    pub(super) kept_lease: Option<(SessionId, Moment, Moment)>,
    /// What the events fold to.
    pub(super) folded: BTreeMap<MemberId, Arc<Member>>,
    pub(super) standings: BTreeMap<MemberId, Standing>,
    pub(super) answers: Vec<Ticket>,
    pub(super) tickets: u64,
    /// The joins that were asked for, and whose membership has been given up, by a leave or since its join failed.
    joins: BTreeMap<Ticket, MemberId>,
    pub(super) asked_for: BTreeSet<MemberId>,
    pub(super) given_up: BTreeSet<MemberId>,
    pub(super) commands: u64,
    /// Kept only when a failed run is told again.
    pub(super) history: Option<Vec<String>>,
}

impl Client {
    pub(super) fn new(name: &str, jitter: f64, on_conflict: OnConflict, on_lost: OnLost) -> Self {
        let machine = Machine::new(CoreSettings {
            connector: name.into(),
            ttl: TTL,
            lost_after: LOST_AFTER,
            presence: false,
            reconcile: RECONCILE,
            poll: RECONCILE / 2,
            source: EventSource::Keyspace,
            canary_timeout: Duration::from_millis(500),
            on_conflict,
            on_lost,
            jitter,
            sweeps: true,
            settling: Duration::ZERO,
        });
        Self {
            machine,
            attached: false,
            dropped: false,
            sent: VecDeque::new(),
            replies: VecDeque::new(),
            listening: EventSource::Poll,
            notices: VecDeque::new(),
            kept_lease: None,
            folded: BTreeMap::new(),
            standings: BTreeMap::new(),
            answers: Vec::new(),
            tickets: 0,
            joins: BTreeMap::new(),
            asked_for: BTreeSet::new(),
            given_up: BTreeSet::new(),
            commands: 0,
            history: None,
        }
    }

    pub(super) fn input(&mut self, now: Moment, input: Input) {
        if let Some(history) = &mut self.history {
            history.push(format!("{now:?} <- {input:?}"));
        }
        self.machine.handle_input(now, input);
        while let Some(output) = self.machine.poll_output() {
            if let Some(history) = &mut self.history {
                history.push(format!("{now:?}    -> {output:?}"));
            }
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Command(tag, command) => {
                assert!(self.attached, "a command without a link: {command:?}");
                self.commands += 1;
                self.sent.push_back((tag, command));
            }
            Output::Answer(ticket, result) => {
                assert!(!self.answers.contains(&ticket), "answered twice");
                if result.is_err() {
                    self.given_up.extend(self.joins.remove(&ticket));
                }
                self.answers.push(ticket);
            }
            Output::Snapshot(members) => {
                self.folded = members.into_iter().map(|member| (member.id().clone(), member)).collect();
            }
            Output::Changes(changes) => changes.into_iter().for_each(|change| self.fold(change)),
            Output::Standing(id, standing) => drop(self.standings.insert(id, standing)),
            Output::Keep(session, acked) => self.kept_lease = Some((session, acked, acked + HEARTBEAT)),
            Output::Release => self.kept_lease = None,
            Output::DropLink(_) => self.dropped = true,
            Output::Suspend
            | Output::Resume
            | Output::Expire
            | Output::Audited(..)
            | Output::Values(_)
            | Output::Covered(_)
            | Output::Confirmed(_)
            | Output::State(_)
            | Output::Source(_)
            | Output::Inbox(_)
            | Output::Seen(_)
            | Output::Warn(_)
            | Output::Closed => {}
        }
    }

    /// Each member joins, is updated and leaves, in turn.
    fn fold(&mut self, change: Change) {
        match change {
            Change::Joined(member) => {
                let before = self.folded.insert(member.id().clone(), member);
                assert!(before.is_none(), "joined twice: {before:?}");
            }
            Change::Updated { old, new } => {
                assert_eq!(old.incarnation(), new.incarnation());
                assert_eq!(self.folded.insert(new.id().clone(), new), Some(old));
            }
            Change::Left { member, .. } => assert_eq!(self.folded.remove(member.id()), Some(member)),
        }
    }

    pub(super) fn cut(&mut self) {
        self.attached = false;
        self.sent.clear();
        self.replies.clear();
        self.notices.clear();
        self.listening = EventSource::Poll;
    }

    pub(super) fn request(&mut self, now: Moment, request: Request) {
        self.tickets += 1;
        match &request {
            Request::Join(id, _) | Request::Rejoin(id) => {
                self.joins.insert(Ticket(self.tickets), id.clone());
                self.asked_for.insert(id.clone());
            }
            Request::Leave(id) => drop(self.given_up.insert(id.clone())),
            _ => {}
        }
        // Shorter and longer than what a call takes that is not answered.
        let limit = match self.tickets % 3 {
            0 => 1500,
            1 => 30,
            _ => 6000,
        };
        self.input(now, Input::Request(Ticket(self.tickets), request, Duration::from_millis(limit)));
    }
}
