//! Guards against a model of a lease, a lock and another connector that wants it, in any order of faults.
//!
//! Whatever happens: never do two say that they hold the lock; a guard that was lost never says that it is held; a
//! guard that is held again has the token that the server has; and an outage in which nobody took the lock costs
//! nothing.

mod server;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::watch;

use super::validity::Validity;
use crate::cache::{HoldSignals, LockTable};
use crate::model::{FencingToken, SessionId};
use crate::proto::{
    Command, Input, Known, LeaseKeeping, LeaseStep, Machine, Moment, Output, Pulse, Reply, Request, Tag, Ticket,
};
use crate::settings::{Config, UncheckedSettings};
use crate::transport::{Looked, Vouch, Vouched};
use crate::wire::{HoldId, InboxMessage, ListedHold, QueueEntry};
use server::{Lock, Server};

const TTL: Duration = Duration::from_millis(1000);
const GRACE: Duration = Duration::from_millis(200);
/// What a prober leaves at the least: the holder may have been cut just now.
const LEAST_GRACE: Duration = Duration::from_millis(180);
const NONCE: u64 = 1;

struct World {
    server: Server,
    lease: LeaseKeeping,
    machine: Machine,
    session: SessionId,
    vouched: watch::Sender<Vouch>,
    /// When the holder's thread for heartbeats looked at its connection.
    looked: Arc<Looked>,
    /// Whether the connection was closed, and the thread has not run since.
    is_unaware: bool,
    validity: Option<Arc<Validity>>,
    table: LockTable,
    signals: Arc<HoldSignals>,
    token: u64,
    /// Heartbeats on the way to the server and back, with when each was sent.
    asked: Option<Moment>,
    answered: Option<(Moment, bool)>,
    is_linked: bool,
    commands: Vec<(Tag, Command)>,
    was_lost: bool,
    history: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Time(u64),
    Beat,
    Arrive,
    Answer,
    /// The heartbeat's answer does not come in time.
    Miss,
    Cut,
    /// The same while the holder's process, or its thread for heartbeats, stands still.
    Vanish,
    /// The thread runs again, and takes in that the connection is closed.
    Notice,
    Reconnect,
    /// The holder is subscribed and marks its lease, and the connection closes before it knows.
    Flicker,
    Probe,
    Sweep,
    Down,
    Up,
    Unlink,
    Link,
    /// The server runs the oldest command, and its answer arrives.
    Serve,
    Ask,
    Break,
    Tell,
    /// Another held the lock in between, and it was granted to the same waiter again.
    Regrant,
}

fn config() -> Config {
    let draft = UncheckedSettings { ttl: TTL, grace: GRACE, ..UncheckedSettings::default() };
    draft.validate().expect("settings that fit")
}

impl World {
    /// A holder whose heartbeats have not connected yet.
    fn new() -> Self {
        let now = Moment::from_origin(Duration::from_secs(5));
        let config = config();
        let lease = LeaseKeeping::new(config.lease_timing(), now);
        let looked = Arc::new(Looked::new(now));
        let attended = Some((looked.clone(), config.lease_timing().unattended));
        let (vouched, _) = watch::channel(Vouch { until: lease.vouched(), attended });
        let server = Server {
            now,
            is_up: true,
            lease: Some(now + TTL),
            is_present: false,
            is_marked: false,
            lock: Lock::Ours(1),
            tokens: 1,
        };
        let nowhere = tokio_util::sync::CancellationToken::new();
        let mut world = Self {
            server,
            lease,
            machine: Machine::new(config.settings("c".into(), 0.5)),
            session: SessionId::new("c-1"),
            vouched,
            looked,
            is_unaware: false,
            validity: None,
            table: LockTable::default(),
            signals: HoldSignals::new(&nowhere),
            token: 1,
            asked: None,
            answered: None,
            is_linked: false,
            commands: Vec::new(),
            was_lost: false,
            history: Vec::new(),
        };
        world.step(Step::Link);
        world.input(Input::Request(Ticket(1), Request::Open, Duration::from_secs(3)));
        for _ in 0..20 {
            world.step(Step::Serve);
        }
        let validity = world.validity.clone().expect("a session that was opened");
        world.signals = HoldSignals::new(validity.ended());
        world.table.hold(world.entry(), FencingToken::new(1), world.signals.clone());
        world
    }

    fn hold_id(&self) -> HoldId {
        HoldId { session: self.session.clone(), nonce: NONCE, name: "l".into(), shared: false }
    }

    fn entry(&self) -> QueueEntry {
        QueueEntry::from(self.hold_id())
    }

    fn input(&mut self, input: Input) {
        self.machine.handle_input(self.server.now, input);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Command(tag, command) => self.commands.push((tag, command)),
                Output::Keep(..) => self.begin(),
                Output::Suspend => self.suspend(),
                Output::Audited(asked, held) => {
                    // The table asks the real clock for when something came to be held: all of it is older here.
                    let asked = asked.max(crate::clock::now() + TTL);
                    self.give_back_all(asked, held);
                }
                Output::Resume => self.resume(),
                Output::Expire | Output::Release => self.end(),
                Output::DropLink(_) => self.step_quietly(Step::Unlink),
                _ => {}
            }
        }
    }

    fn begin(&mut self) {
        self.validity = Some(Validity::new(self.session.clone(), Vouched::new(self.vouched.subscribe())));
    }

    fn suspend(&mut self) {
        if let Some(validity) = &self.validity {
            validity.suspend();
        }
        self.table.suspend_all();
    }

    fn resume(&mut self) {
        match self.validity.clone() {
            Some(validity) => {
                validity.resume();
                self.table.resume_all();
                if self.says_held() {
                    assert_eq!(self.server.lock, Lock::Ours(self.token), "held again, {}", self.told());
                }
            }
            None => self.begin(),
        }
    }

    fn end(&mut self) {
        if let Some(validity) = self.validity.take() {
            validity.end();
            for entry in self.table.lose_all() {
                self.machine.handle_input(self.server.now, Input::GiveBack(entry));
            }
        }
    }

    fn give_back_all(&mut self, asked: Moment, held: Vec<ListedHold>) {
        for entry in self.table.audit(asked, held) {
            self.machine.handle_input(self.server.now, Input::GiveBack(entry));
        }
    }

    fn says_held(&self) -> bool {
        let validity = self.validity.as_ref();
        !self.signals.lost().is_cancelled() && validity.is_some_and(|validity| validity.is_held_at(self.server.now))
    }

    fn tell(&mut self, pulse: Pulse) {
        let (until, over) = (self.lease.vouched(), self.lease.over());
        self.vouched.send_modify(|vouch| vouch.until = until);
        self.input(Input::Beat { session: self.session.clone(), until, over, pulse });
    }

    /// The holder's connection is closed, at both ends.
    fn cut(&mut self) {
        self.server.is_present = false;
        (self.asked, self.answered) = (None, None);
        let pulse = self.lease.closed(self.server.now, self.looked.at(), Duration::from_millis(20));
        self.tell(pulse);
    }

    fn answer(&mut self, command: &Command) -> Reply {
        let now = self.server.now;
        match command {
            Command::Listen { .. } => Reply::Listening { inbox_works: true },
            Command::Open { .. } => Reply::Opened,
            Command::Renew { .. } => Reply::Renewed { strangers: Vec::new() },
            Command::Extend { .. } => {
                let ours = match self.server.lock {
                    Lock::Ours(token) => vec![ListedHold { hold_id: self.hold_id(), token: FencingToken::new(token) }],
                    Lock::Theirs(_) | Lock::Broken(_) => Vec::new(),
                };
                Reply::Extended { cursor: 0, held: ours }
            }
            Command::Release { .. } => {
                if let Lock::Ours(_) = self.server.lock {
                    self.server.lock = Lock::Theirs(self.server.next_token());
                }
                Reply::Released(true)
            }
            Command::Sweep => Reply::Swept { due: Some(TTL), more: false, dying: Vec::new() },
            Command::List { known: None, .. } => {
                let known = Known { revision: crate::model::Revision::new(now.as_millis()), count: 0 };
                Reply::Part { due: None, known, more: false, entries: Vec::new() }
            }
            Command::List { .. } => Reply::Unchanged { due: None },
            Command::AskToProbe { .. } => Reply::NotProbing { asks: 1, probers: Vec::new() },
            _ => Reply::Done,
        }
    }

    fn step(&mut self, step: Step) {
        self.history.push(format!("{:?} {step:?}", self.server.now.as_millis()));
        self.step_quietly(step);
        self.check();
    }

    /// Whether the holder's thread for heartbeats is what takes it.
    fn is_of_the_thread(step: Step) -> bool {
        matches!(step, Step::Beat | Step::Answer | Step::Miss | Step::Cut | Step::Reconnect | Step::Flicker)
    }

    /// A thread that runs has looked at its connection.
    fn look(&self) {
        if !self.is_unaware {
            self.looked.set(self.server.now);
        }
    }

    fn step_quietly(&mut self, step: Step) {
        let now = self.server.now;
        if self.is_unaware && Self::is_of_the_thread(step) {
            return;
        }
        match step {
            Step::Time(ms) => {
                // In parts, so that no passing state goes unchecked.
                for _ in 0..ms.div_ceil(10) {
                    self.server.now = self.server.now + Duration::from_millis(10);
                    self.look();
                    self.check();
                    if self.machine.poll_timeout().is_some_and(|at| at <= self.server.now) {
                        self.input(Input::Tick);
                    }
                    self.check();
                }
            }
            Step::Beat => {
                if self.asked.is_none()
                    && self.answered.is_none()
                    && matches!(self.lease.step(now, Duration::ZERO), LeaseStep::Beat | LeaseStep::Renew)
                {
                    self.lease.renewed(now);
                    self.asked = Some(now);
                }
            }
            Step::Arrive => {
                if self.server.is_up
                    && let Some(sent) = self.asked.take()
                {
                    let lives = self.server.lives();
                    self.server.lease = lives.then_some(now + TTL);
                    self.answered = Some((sent, lives));
                }
            }
            Step::Answer => {
                if let Some((sent, lives)) = self.answered.take() {
                    let pulse = self.lease.answered(now, sent, lives);
                    self.tell(pulse);
                }
            }
            Step::Miss => {
                if self.asked.take().is_some() | self.answered.take().is_some() {
                    let pulse = self.lease.unanswered(now, Duration::from_millis(20));
                    self.tell(pulse);
                }
            }
            Step::Cut => self.cut(),
            Step::Vanish => {
                self.server.is_present = false;
                (self.asked, self.is_unaware) = (None, true);
            }
            Step::Notice => {
                if std::mem::take(&mut self.is_unaware) {
                    // What was answered before is read first.
                    self.step_quietly(Step::Answer);
                    self.check();
                    self.cut();
                }
            }
            Step::Reconnect => {
                if self.server.is_up
                    && let LeaseStep::Connect(then) = self.lease.step(now, Duration::ZERO)
                    && then <= now
                {
                    if self.server.lives() && self.lease.is_renewed_first(Duration::ZERO) {
                        self.server.lease = Some(now + TTL);
                    }
                    (self.server.is_present, self.server.is_marked) = (true, true);
                    self.lease.connected(true);
                }
            }
            Step::Flicker => {
                if self.server.is_up
                    && let LeaseStep::Connect(then) = self.lease.step(now, Duration::ZERO)
                    && then <= now
                {
                    self.server.is_marked = true;
                    self.cut();
                }
            }
            Step::Probe => {
                if self.server.is_up && self.server.is_marked && !self.server.is_present && self.server.lives() {
                    self.server.lease = self.server.lease.map(|until| until.min(now + LEAST_GRACE));
                }
            }
            Step::Sweep => self.server.sweep(),
            Step::Down => {
                if std::mem::take(&mut self.server.is_up) {
                    self.step_quietly(if self.is_unaware { Step::Vanish } else { Step::Cut });
                    self.step_quietly(Step::Unlink);
                }
            }
            Step::Up => self.server.is_up = true,
            Step::Unlink => {
                self.is_linked = false;
                self.commands.clear();
                self.input(Input::LinkDown);
            }
            Step::Link => {
                if self.server.is_up && !self.is_linked {
                    self.is_linked = true;
                    self.input(Input::LinkUp);
                }
            }
            Step::Serve => {
                if self.is_linked && !self.commands.is_empty() {
                    let (tag, command) = self.commands.remove(0);
                    let reply = self.answer(&command);
                    self.input(Input::Reply(tag, Ok(reply)));
                }
            }
            Step::Ask => {
                if !self.says_held() && self.validity.is_some() {
                    self.input(Input::Suspended);
                }
            }
            Step::Break => self.server.lock = Lock::Broken(self.server.next_token()),
            Step::Tell => {
                if let Lock::Broken(_) = self.server.lock {
                    self.table.deliver(InboxMessage::Broken { nonce: NONCE });
                }
            }
            Step::Regrant => {
                if let Lock::Ours(_) = self.server.lock
                    && !self.says_held()
                {
                    self.server.next_token();
                    self.server.lock = Lock::Ours(self.server.next_token());
                }
            }
        }
    }

    fn told(&self) -> String {
        format!("{:?}\n{}", self.server, self.history.join("\n"))
    }

    fn check(&mut self) {
        let says_held = self.says_held();
        let is_theirs = matches!(self.server.lock, Lock::Theirs(_));
        assert!(!(says_held && is_theirs), "two hold the lock: {}", self.told());
        assert!(!(says_held && self.was_lost), "lost, and held again: {}", self.told());
        self.was_lost |= self.signals.lost().is_cancelled();
    }

    /// Everything gets through again.
    fn heal(&mut self) {
        self.step(Step::Up);
        self.step(Step::Notice);
        for _ in 0..400 {
            for step in [Step::Link, Step::Reconnect, Step::Beat, Step::Arrive, Step::Answer, Step::Ask] {
                self.step(step);
            }
            while !self.commands.is_empty() && self.is_linked {
                self.step(Step::Serve);
            }
            self.step(Step::Time(10));
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..60).prop_map(|ms| Step::Time(ms * 10)),
        4 => Just(Step::Beat),
        4 => Just(Step::Arrive),
        4 => Just(Step::Answer),
        1 => Just(Step::Miss),
        2 => Just(Step::Cut),
        1 => Just(Step::Vanish),
        2 => Just(Step::Notice),
        4 => Just(Step::Reconnect),
        1 => Just(Step::Flicker),
        3 => Just(Step::Probe),
        3 => Just(Step::Sweep),
        1 => Just(Step::Down),
        2 => Just(Step::Up),
        1 => Just(Step::Unlink),
        2 => Just(Step::Link),
        6 => Just(Step::Serve),
        3 => Just(Step::Ask),
        1 => Just(Step::Break),
        1 => Just(Step::Tell),
        1 => Just(Step::Regrant),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn guards_never_lie(steps in prop::collection::vec(steps(), 1..80)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.heal();
        let is_ours = world.server.lock == Lock::Ours(world.token);
        prop_assert!(!is_ours || world.was_lost || world.says_held(), "held by nobody: {}", world.told());
        prop_assert!(!world.says_held() || is_ours, "it is not ours: {}", world.told());
    }
}

#[test]
fn restart_within_the_ttl_is_a_suspension() {
    let mut world = World::new();
    world.step(Step::Reconnect);
    assert!(world.says_held());
    world.step(Step::Down);
    assert!(world.says_held(), "half the grace is vouched for");
    world.step(Step::Time(400));
    assert!(!world.says_held() && !world.was_lost);
    world.heal();
    assert!(world.says_held() && !world.was_lost, "{}", world.told());
}
