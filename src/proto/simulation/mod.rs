//! The machine against a model of the server, in any order, with loss, duplication and delay of everything.
//!
//! Whatever happened, once the faults stop every machine knows exactly the server's live members, its events fold
//! to what it knows, what it believes of its own members is true, and it goes quiet.

mod client;
mod histories;
mod server;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Member, MemberDraft, MemberId, Metadata, SessionId};
use crate::settings::{EventSource, OnConflict, OnLost};
use crate::wire::{KeyEvent, Notice};
use client::Client;
use server::{Server, TTL};

const RECONCILE: Duration = Duration::from_millis(1000);
const HEARTBEAT: Duration = Duration::from_millis(333);
const LOST_AFTER: Duration = TTL.saturating_sub(Duration::from_millis(20));

struct World {
    server: Server,
    clients: Vec<Client>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Time(u64),
    Up(usize),
    Down(usize),
    /// The server runs the next command of a client; its notifications go out.
    Serve(usize),
    /// The n-th of the replies that are under way arrives.
    Deliver(usize, usize),
    Notify(usize),
    /// A notification arrives, and will again.
    NotifyTwice(usize),
    Lose(usize),
    Beat(usize),
    Join(usize, u8),
    Update(usize, u8, u8),
    Leave(usize, u8),
    Rejoin(usize, u8),
    Foreign(u8, u8),
    Persistent(u8),
    Delete(u8),
    /// Its record and its place in the index.
    DeleteWhole(u8),
    Evict(u8),
    FlushAll,
    Mute,
    Forbid(u8),
    Sync(usize),
}

fn id(number: u8) -> MemberId {
    MemberId::known(&format!("m{number}"))
}

fn draft(text: u8) -> MemberDraft {
    MemberDraft { metadata: Metadata::Text(text.to_string().into()), ..MemberDraft::default() }
}

impl World {
    fn new(on_lost: OnLost, on_conflict: OnConflict) -> Self {
        let client = |name, jitter| Client::new(name, jitter, on_conflict, on_lost);
        Self { server: Server::new(), clients: vec![client("a", 0.0), client("b", 0.7), client("w", 1.0)] }
    }

    /// The server's notifications go to every subscriber.
    fn fan_out(&mut self) {
        for notice in std::mem::take(&mut self.server.notices) {
            for client in self.clients.iter_mut().filter(|client| client.attached) {
                client.notices.extend(self.server.tells(client.listening, notice.clone()));
            }
        }
    }

    fn serve(&mut self, who: usize) {
        let Some((tag, command)) = self.clients[who].sent.pop_front() else { return };
        let reply = self.server.run(&command);
        self.fan_out();
        let client = &mut self.clients[who];
        if let (Command::Listen { source }, Ok(_)) = (&command, &reply) {
            client.listening = *source;
        }
        client.replies.push_back((tag, reply));
        let told = match command {
            Command::PlantCanary => vec![KeyEvent::Set],
            Command::TouchCanary => vec![KeyEvent::Expired, KeyEvent::Set, KeyEvent::Deleted],
            _ => Vec::new(),
        };
        let told = told.into_iter().map(Notice::Canary);
        client.notices.extend(told.filter_map(|notice| self.server.tells(client.listening, notice)));
    }

    fn deliver(&mut self, who: usize, which: usize) {
        let (now, client) = (self.server.now, &mut self.clients[who]);
        if let Some((tag, reply)) = client.replies.remove(which.min(client.replies.len().saturating_sub(1))) {
            client.input(now, Input::Reply(tag, reply));
        }
        self.clear_dropped(who);
    }

    fn clear_dropped(&mut self, who: usize) {
        if std::mem::take(&mut self.clients[who].dropped) {
            self.clients[who].cut();
        }
    }

    fn beat(&mut self, who: usize) {
        let now = self.server.now;
        let Some((session, ..)) = self.clients[who].kept_lease.clone() else { return };
        let pulse = if self.server.heartbeat(&session) { Pulse::Alive } else { Pulse::Lost };
        if let Some(kept_lease) = &mut self.clients[who].kept_lease {
            (kept_lease.1, kept_lease.2) = (now, now + HEARTBEAT);
        }
        self.clients[who].input(now, Input::Beat { session, until: now + LOST_AFTER, over: now + LOST_AFTER, pulse });
    }

    fn up(&mut self, who: usize) {
        let (now, client) = (self.server.now, &mut self.clients[who]);
        client.cut();
        client.attached = true;
        client.input(now, Input::LinkUp);
    }

    fn step(&mut self, step: Step) {
        let now = self.server.now;
        match step {
            Step::Time(ms) => {
                self.server.now = now + Duration::from_millis(ms);
                for client in &mut self.clients {
                    if client.machine.poll_timeout().is_some_and(|at| at <= self.server.now) {
                        client.input(self.server.now, Input::Tick);
                    }
                }
            }
            Step::Up(who) => self.up(who),
            Step::Down(who) => {
                self.clients[who].cut();
                self.clients[who].input(now, Input::LinkDown);
            }
            Step::Serve(who) => self.serve(who),
            Step::Deliver(who, which) => self.deliver(who, which),
            Step::Notify(who) => {
                if let Some(notice) = self.clients[who].notices.pop_front() {
                    self.clients[who].input(now, Input::Notices(vec![notice]));
                }
            }
            Step::NotifyTwice(who) => {
                if let Some(notice) = self.clients[who].notices.front().cloned() {
                    self.clients[who].input(now, Input::Notices(vec![notice]));
                }
            }
            Step::Lose(who) => drop(self.clients[who].notices.pop_front()),
            Step::Beat(who) => self.beat(who),
            Step::Join(who, m) => self.clients[who].request(now, Request::Join(id(m), draft(0))),
            Step::Update(who, m, text) => {
                let edit = Edit::Metadata(draft(text).metadata);
                self.clients[who].request(now, Request::Edit(id(m), edit));
            }
            Step::Leave(who, m) => self.clients[who].request(now, Request::Leave(id(m))),
            Step::Rejoin(who, m) => self.clients[who].request(now, Request::Rejoin(id(m))),
            Step::Foreign(m, text) => {
                self.server.set_text(&id(m), &text.to_string(), Some(Duration::from_millis(400)));
                self.fan_out();
            }
            Step::Persistent(m) => {
                self.server.set_text(&id(m), "for ever", None);
                self.fan_out();
            }
            Step::Delete(m) => {
                self.server.delete(&id(m), KeyEvent::Deleted);
                self.fan_out();
            }
            Step::DeleteWhole(m) => {
                self.server.delete_whole(&id(m));
                self.fan_out();
            }
            Step::Evict(m) => {
                self.server.delete(&id(m), KeyEvent::Evicted);
                self.fan_out();
            }
            Step::FlushAll => {
                self.server.flush_all();
                self.fan_out();
                self.server.now = now + Duration::from_millis(1);
            }
            Step::Mute => self.server.notifies = false,
            Step::Forbid(what) => self.server.forbidden = what,
            Step::Sync(who) => self.clients[who].request(now, Request::Sync),
        }
        for who in 0..self.clients.len() {
            self.clear_dropped(who);
        }
    }

    /// Everything that is under way arrives.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for who in 0..self.clients.len() {
                while !self.clients[who].sent.is_empty() {
                    self.serve(who);
                    moved = true;
                }
                while !self.clients[who].replies.is_empty() {
                    self.deliver(who, 0);
                    moved = true;
                }
                while let Some(notice) = self.clients[who].notices.pop_front() {
                    self.clients[who].input(self.server.now, Input::Notices(vec![notice]));
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the machines never come to rest");
    }

    /// Faults have stopped: every link stands, heartbeats arrive, time passes.
    fn run_calm(&mut self, duration: Duration) {
        let end = self.server.now + duration;
        loop {
            self.settle();
            let timeouts = self.clients.iter().filter_map(|client| client.machine.poll_timeout());
            let beats =
                self.clients.iter().filter_map(|client| client.kept_lease.as_ref().map(|kept_lease| kept_lease.2));
            let next = timeouts.chain(beats).min().unwrap_or(end);
            if next >= end {
                self.server.now = end;
                return;
            }
            // A timeout that has come must lead somewhere: a millisecond always passes.
            self.server.now = next.max(self.server.now + Duration::from_millis(1));
            for who in 0..self.clients.len() {
                let now = self.server.now;
                if self.clients[who].kept_lease.as_ref().is_some_and(|kept_lease| kept_lease.2 <= now) {
                    self.beat(who);
                }
                if self.clients[who].machine.poll_timeout().is_some_and(|at| at <= now) {
                    self.clients[who].input(now, Input::Tick);
                }
            }
        }
    }

    fn heal(&mut self) {
        for who in 0..self.clients.len() {
            if !self.clients[who].attached {
                self.up(who);
            }
        }
        self.run_calm(RECONCILE * 4 + TTL * 5);
    }

    fn check(&self) {
        let live = self.server.live();
        let told = self
            .clients
            .iter()
            .enumerate()
            .flat_map(|(who, client)| client.history.iter().flatten().map(move |line| format!("{who}: {line}")));
        let histories: Vec<_> = told.collect();
        for client in &self.clients {
            let history = || histories.join("\n");
            let known: BTreeMap<_, _> = client
                .folded
                .iter()
                .map(|(id, member)| (id.clone(), (Some(member.incarnation().get()), member.text().map(str::to_owned))))
                .collect();
            assert_eq!(known, live, "the cache is not what the server has\n{}", history());
            for (id, standing) in &client.standings {
                if let Standing::Held(incarnation) = standing {
                    let there = live.get(id).and_then(|(at, _)| *at);
                    assert_eq!(there, Some(incarnation.get()), "{id} is not held\n{}", history());
                }
            }
            assert_eq!(client.answers.len() as u64, client.tickets, "not answered\n{}", history());
            let rests = matches!(client.machine.phase, Phase::Connected | Phase::Lost);
            assert!(rests, "{:?}\n{}", client.machine.phase, history());
        }
    }

    /// Where memberships that were lost are sought again, only a leave or another connector's join has ended one.
    fn check_ends(&self) {
        for (who, client) in self.clients.iter().enumerate() {
            let others = self.clients.iter().enumerate().filter(|(other, _)| *other != who);
            let joined: BTreeSet<_> = others.flat_map(|(_, other)| &other.asked_for).collect();
            for (id, standing) in &client.standings {
                let Standing::Ended(cause) = standing else { continue };
                let is_right = match cause {
                    LeaveCause::Replaced => joined.contains(id),
                    LeaveCause::Left => client.given_up.contains(id),
                    _ => false,
                };
                let history = || client.history.iter().flatten().cloned().collect::<Vec<_>>().join("\n");
                assert!(is_right, "{who}: {id} has ended, {cause}\n{}", history());
            }
        }
    }

    fn commands(&self) -> u64 {
        self.clients.iter().map(|client| client.commands).sum()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0usize..3;
    let joiner = 0usize..2;
    let member = 0u8..4;
    let step = prop_oneof![
        6 => (1u64..400).prop_map(Step::Time),
        3 => client.clone().prop_map(Step::Up),
        1 => client.clone().prop_map(Step::Down),
        16 => client.clone().prop_map(Step::Serve),
        16 => (client.clone(), 0usize..3).prop_map(|(who, which)| Step::Deliver(who, which)),
        10 => client.clone().prop_map(Step::Notify),
        2 => client.clone().prop_map(Step::NotifyTwice),
        1 => client.clone().prop_map(Step::Lose),
        4 => joiner.clone().prop_map(Step::Beat),
        6 => (joiner.clone(), member.clone()).prop_map(|(who, m)| Step::Join(who, m)),
        3 => (joiner.clone(), member.clone(), 1u8..4).prop_map(|(who, m, text)| Step::Update(who, m, text)),
        3 => (joiner.clone(), member.clone()).prop_map(|(who, m)| Step::Leave(who, m)),
        1 => (joiner, member.clone()).prop_map(|(who, m)| Step::Rejoin(who, m)),
        2 => (member.clone(), 0u8..3).prop_map(|(m, text)| Step::Foreign(m, text)),
        1 => member.clone().prop_map(Step::Delete),
        1 => member.clone().prop_map(Step::DeleteWhole),
        1 => member.clone().prop_map(Step::Evict),
        1 => member.prop_map(Step::Persistent),
        1 => Just(Step::FlushAll),
        1 => Just(Step::Mute),
        1 => (0u8..16).prop_map(Step::Forbid),
        2 => client.prop_map(Step::Sync),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_the_servers_set(steps in steps(), stop: bool, reject: bool) {
        tell(&steps, stop, reject);
    }
}

/// Runs it, and once more with its history where it fails.
fn tell(steps: &[Step], stop: bool, reject: bool) {
    if std::panic::catch_unwind(|| run(steps, stop, reject, false)).is_err() {
        run(steps, stop, reject, true);
    }
}

fn run(steps: &[Step], stop: bool, reject: bool, with_history: bool) {
    let on_lost = if stop { OnLost::Stop } else { OnLost::Rejoin };
    let on_conflict = if reject { OnConflict::Reject } else { OnConflict::TakeOver };
    let mut world = World::new(on_lost, on_conflict);
    if with_history {
        world.clients.iter_mut().for_each(|client| client.history = Some(Vec::new()));
    }
    for step in [Step::Up(0), Step::Up(1), Step::Up(2)].iter().chain(steps) {
        world.step(*step);
    }
    world.heal();
    world.check();
    if !stop {
        world.check_ends();
    }

    // At rest each client sweeps about once a ttl and a lease, and reconciles: a handful of commands, no storm.
    let before = world.commands();
    world.run_calm(RECONCILE * 10);
    world.check();
    let spent = world.commands() - before;
    assert!(spent <= 3 * 10 * 12, "{spent} commands in ten intervals of rest");
}
