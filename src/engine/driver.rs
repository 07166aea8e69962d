//! The one task of a connector: everything that happens goes into the core, everything that comes out is done, in
//! order. It has no decision of its own.

use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use backon::ExponentialBackoff;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::caller::{Call, Called, Claim, Delivery, Release};
use super::publish::Publish;
use super::validity::Validity;
use crate::backoff::backoff;
use crate::cache::State;
use crate::clock::{self, LONGEST_SLEEP};
use crate::error::{Error, ErrorKind};
use crate::model::{LeaveCause, Member, MemberId, SessionId};
use crate::proto::{
    Answer, Change, Command, Input, Machine, Moment, Output, Pulse, Reply, Request, Standing, Tag, Ticket,
};
use crate::settings::CoreSettings;
use crate::transport::{Beat, Dialer, KeptLease, LeaseKeeper, Link};
use crate::wire::{Notice, QueueEntry};

/// How many notifications are taken at once before their outputs are done.
const BURST: usize = 1024;

type Replies = FuturesUnordered<Pin<Box<dyn Future<Output = (Tag, Result<Reply, Error>)> + Send>>>;

enum LinkSlot {
    Dialing(Pin<Box<dyn Future<Output = Result<Box<Link>, Error>> + Send>>),
    Up(Box<Link>),
}

pub(crate) struct Driver {
    machine: Machine,
    dialer: Dialer,
    lease_keeper: LeaseKeeper,
    publish: Publish,
    slot: LinkSlot,
    links: u64,
    pauses: ExponentialBackoff,
    replies: Replies,
    tickets: HashMap<Ticket, oneshot::Sender<Result<Delivery, Error>>>,
    next_ticket: u64,
    standings: HashMap<MemberId, watch::Sender<Standing>>,
    kept_lease: Option<(SessionId, KeptLease)>,
    beats: watch::Receiver<Option<Beat>>,
    called: Called,
    shutdown: CancellationToken,
    /// Whether the core knows that the validity is suspended.
    is_suspended: bool,
    done: bool,
}

enum Wakeup {
    Call(Call),
    Link(Result<Box<Link>, Error>),
    Notice(Result<Notice, Error>),
    Reply(Tag, Result<Reply, Error>),
    Beat,
    /// A guard has seen that the lease is not vouched for.
    Suspended,
    Released(Release),
    Shutdown,
    Time,
}

impl Driver {
    pub(crate) fn new(
        settings: CoreSettings,
        dialer: Dialer,
        lease_keeper: LeaseKeeper,
        beats: watch::Receiver<Option<Beat>>,
        called: Called,
        publish: Publish,
        shutdown: CancellationToken,
    ) -> Self {
        let pauses = backoff(dialer.config().backoff_cap);
        let first = dialer.clone();
        Self {
            machine: Machine::new(settings),
            slot: LinkSlot::Dialing(Box::pin(async move { first.dial().await })),
            dialer,
            lease_keeper,
            publish,
            links: 0,
            pauses,
            replies: Replies::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            standings: HashMap::new(),
            kept_lease: None,
            beats,
            called,
            shutdown,
            is_suspended: false,
            done: false,
        }
    }

    /// Runs until everything has been given back.
    pub(crate) async fn run(mut self) {
        loop {
            self.perform_all();
            if self.done {
                return;
            }
            let wakeup = self.wait().await;
            self.take(wakeup);
        }
    }

    /// Waits for the next thing to happen. Every branch is cancel safe: what is not taken stays where it is.
    async fn wait(&mut self) -> Wakeup {
        let until = self.machine.poll_timeout();
        let time = async {
            match until {
                Some(until) => sleep(until.since(clock::now()).min(LONGEST_SLEEP)).await,
                None => pending().await,
            }
        };
        let validity = self.publish.validity.borrow().clone().filter(|_| !self.is_suspended);
        let suspended = async {
            match validity {
                Some(validity) => validity.suspended().await,
                None => pending().await,
            }
        };
        let slot = async {
            match &mut self.slot {
                LinkSlot::Dialing(dialing) => Wakeup::Link(dialing.await),
                LinkSlot::Up(link) => Wakeup::Notice(link.next().await),
            }
        };
        tokio::select! {
            Some(call) = self.called.calls.recv() => Wakeup::Call(call),
            wakeup = slot => wakeup,
            Some((tag, reply)) = self.replies.next() => Wakeup::Reply(tag, reply),
            Ok(()) = self.beats.changed() => Wakeup::Beat,
            Some(release) = self.called.releases.recv() => Wakeup::Released(release),
            () = self.shutdown.cancelled() => Wakeup::Shutdown,
            () = suspended => Wakeup::Suspended,
            () = time => Wakeup::Time,
        }
    }

    fn take(&mut self, wakeup: Wakeup) {
        let now = clock::now();
        match wakeup {
            Wakeup::Call(call) | Wakeup::Released(Release::Call(call)) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.tickets.insert(ticket, call.reply);
                self.machine.handle_input(now, Input::Request(ticket, call.request, call.limit));
            }
            Wakeup::Link(Ok(link)) => {
                self.publish.commands.send_replace(Some(link.commands()));
                self.slot = LinkSlot::Up(link);
                self.links += 1;
                let reconnects = self.links - 1;
                self.publish.link.send_modify(|report| report.reconnects = reconnects);
                self.machine.handle_input(now, Input::LinkUp);
            }
            Wakeup::Link(Err(error)) => self.redial(error),
            Wakeup::Notice(Ok(notice)) => {
                self.take_burst(notice);
            }
            Wakeup::Notice(Err(error)) => {
                self.machine.handle_input(now, Input::LinkDown);
                self.redial(error);
            }
            Wakeup::Reply(tag, reply) => {
                self.machine.handle_input(now, Input::Reply(tag, reply));
                self.take_replies();
            }
            Wakeup::Beat => {
                let beat = self.beats.borrow_and_update().clone();
                if let Some(Beat { session, until, over, pulse, error }) = beat {
                    if error.is_some() || pulse == Pulse::Alive {
                        self.publish.link.send_modify(|report| report.heartbeat = error);
                    }
                    self.machine.handle_input(now, Input::Beat { session, until, over, pulse });
                }
            }
            Wakeup::Released(Release::Unclaimed(id, incarnation)) => {
                self.machine.handle_input(now, Input::Unclaimed(id, incarnation));
            }
            Wakeup::Released(Release::QueueEntry(queue_entry)) => {
                self.machine.handle_input(now, Input::GiveBack(queue_entry));
            }
            Wakeup::Released(Release::Audit) => self.machine.handle_input(now, Input::Audit),
            Wakeup::Released(Release::LeaseLost(session)) => {
                let lost = Input::Beat { session, until: Moment::ORIGIN, over: Moment::ORIGIN, pulse: Pulse::Lost };
                self.machine.handle_input(now, lost);
            }
            Wakeup::Suspended => {
                self.suspend();
                self.machine.handle_input(now, Input::Suspended);
            }
            Wakeup::Shutdown => {
                self.shutdown = CancellationToken::new();
                self.next_ticket += 1;
                let (ticket, limit) = (Ticket(self.next_ticket), self.dialer.config().request_timeout());
                self.machine.handle_input(now, Input::Request(ticket, Request::Close, limit));
            }
            Wakeup::Time => self.machine.handle_input(now, Input::Tick),
        }
    }

    /// Takes the notifications that are there already, so that one read answers them all.
    fn take_burst(&mut self, first: Notice) {
        let (mut notices, mut broken) = (vec![first], None);
        if let LinkSlot::Up(link) = &mut self.slot {
            while notices.len() < BURST && broken.is_none() {
                match link.next().now_or_never() {
                    Some(Ok(notice)) => notices.push(notice),
                    Some(Err(error)) => broken = Some(error),
                    None => break,
                }
            }
        }
        self.machine.handle_input(clock::now(), Input::Notices(notices));
        if let Some(error) = broken {
            self.machine.handle_input(clock::now(), Input::LinkDown);
            self.redial(error);
        }
    }

    /// Takes the replies that are there already, so that the view is built once for all of them.
    fn take_replies(&mut self) {
        for _ in 0..BURST {
            let Some(Some((tag, reply))) = self.replies.next().now_or_never() else { return };
            self.machine.handle_input(clock::now(), Input::Reply(tag, reply));
        }
    }

    /// Does everything that came out. Changes become one batch; answers follow it, so that a caller finds in
    /// the view what the answer says.
    fn perform_all(&mut self) {
        let (mut changes, mut answers) = (Vec::new(), Vec::new());
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Changes(more) => changes.extend(more),
                Output::Answer(ticket, result) => answers.push((ticket, result)),
                Output::Snapshot(members) => {
                    self.apply(std::mem::take(&mut changes));
                    self.snapshot(members);
                }
                other => self.perform(other),
            }
        }
        self.apply(changes);
        answers.into_iter().for_each(|(ticket, result)| self.answer(ticket, result));
    }

    fn apply(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.publish.view.apply(changes, clock::instant(clock::now()));
        }
    }

    fn snapshot(&mut self, members: Vec<Arc<Member>>) {
        self.pauses = backoff(self.dialer.config().backoff_cap);
        self.publish.link.send_modify(|report| report.error = None);
        self.publish.view.snapshot(members, clock::instant(clock::now()));
    }

    fn redial(&mut self, error: Error) {
        tracing::debug!(%error, "no link");
        self.publish.link.send_modify(|report| report.error = Some(error));
        self.publish.commands.send_replace(None);
        self.replies = Replies::new();
        let pause = self.pauses.next().unwrap_or(self.dialer.config().backoff_cap);
        let dialer = self.dialer.clone();
        self.slot = LinkSlot::Dialing(Box::pin(async move {
            sleep(pause).await;
            dialer.dial().await
        }));
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Command(tag, command) => self.send(tag, command),
            Output::Answer(ticket, result) => self.answer(ticket, result),
            Output::Snapshot(members) => self.snapshot(members),
            Output::Changes(changes) => self.apply(changes),
            Output::Confirmed(moment) => self.publish.view.confirm(clock::instant(moment)),
            Output::State(phase) => {
                let state = State::from(phase);
                if state == State::Connected {
                    self.publish.link.send_modify(|report| report.heartbeat = None);
                }
                tracing::debug!(%state, "link state");
                self.publish.view.state(state);
                self.publish.state.send_replace(state);
            }
            Output::Standing(id, standing) => self.stand(id, standing),
            Output::Keep(session, acked) => {
                self.kept_lease = Some((session.clone(), self.lease_keeper.keep(session, acked)));
                self.begin_validity();
            }
            Output::Values(changes) => self.publish.watched.apply(changes),
            Output::Covered(topic) => self.publish.watched.cover(topic),
            Output::Suspend => self.suspend(),
            Output::Resume => self.resume(),
            Output::Expire => self.end_validity(),
            Output::Release => {
                self.kept_lease = None;
                self.end_validity();
            }
            Output::Audited(asked, held) => {
                if let Some((_, kept_lease)) = &self.kept_lease {
                    kept_lease.renewed(asked);
                }
                let unknown = self.publish.lock_table.audit(asked, held);
                self.give_back(unknown);
            }
            Output::Source(source) => {
                self.publish.link.send_modify(|report| {
                    if report.source.reason.is_some() && source.reason.is_none() {
                        tracing::info!(source = %source.source, "changes are heard again as they should be");
                    }
                    report.source = source;
                });
            }
            Output::Seen(sessions) => self.publish.link.send_modify(|report| report.seen = sessions),
            Output::Inbox(come) => {
                self.publish.lock_table.inbox_works(come);
                // A waiter asks again, for the message may have come to the listener before.
                self.publish.commands.send_modify(|_| {});
            }
            Output::DropLink(error) => self.redial(error),
            Output::Warn(warning) => tracing::warn!(warning = warning.name(), "{warning}"),
            Output::Closed => self.done = true,
        }
    }

    /// What is acquired from now on relies on the session that is kept.
    fn begin_validity(&mut self) {
        self.end_validity();
        if let Some((session, _)) = &self.kept_lease {
            let validity = Validity::new(session.clone(), self.lease_keeper.vouched());
            self.publish.validity.send_replace(Some(validity));
        }
    }

    /// What is held says no, until the server has said that it is held still.
    fn suspend(&mut self) {
        self.is_suspended = true;
        if let Some(validity) = &*self.publish.validity.borrow() {
            validity.suspend();
        }
        self.publish.lock_table.suspend_all();
    }

    /// What the server has said is held still is held again; what was given up before stays so.
    fn resume(&mut self) {
        self.is_suspended = false;
        let validity = self.publish.validity.borrow().clone();
        match validity {
            Some(validity) => {
                validity.resume();
                self.publish.lock_table.resume_all();
            }
            None => self.begin_validity(),
        }
    }

    /// Nothing that was acquired so far is held any more. It is given back, in case that the session lives on.
    fn end_validity(&mut self) {
        self.is_suspended = false;
        if let Some(validity) = self.publish.validity.send_replace(None) {
            validity.end();
            let lost = self.publish.lock_table.lose_all();
            if self.kept_lease.is_some() {
                self.give_back(lost);
            }
        }
    }

    fn give_back(&mut self, queue_entries: Vec<QueueEntry>) {
        for queue_entry in queue_entries {
            self.machine.handle_input(clock::now(), Input::GiveBack(queue_entry));
        }
    }

    fn send(&mut self, tag: Tag, command: Command) {
        let LinkSlot::Up(link) = &mut self.slot else { return };
        match command {
            Command::Subscribe { topic } => {
                let subscribing = link.subscribe(&topic);
                self.replies.push(Box::pin(subscribing.map(move |done| (tag, done.map(|()| Reply::Done)))));
            }
            Command::Listen { source } => {
                let listening = link.listen(source);
                let said = listening.map(move |done| (tag, done.map(|inbox_works| Reply::Listening { inbox_works })));
                self.replies.push(Box::pin(said));
            }
            command => {
                let running = link.commands().run(command);
                self.replies.push(Box::pin(running.map(move |reply| (tag, reply))));
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Answer, Error>) {
        let Some(reply) = self.tickets.remove(&ticket) else { return };
        let result = result.map_err(|error| self.explained(error));
        let delivery = result.map(|answer| match answer {
            Answer::Joined(id, incarnation) => {
                let held = || watch::Sender::new(Standing::Held(incarnation));
                let standing = self.standings.entry(id.clone()).or_insert_with(held).subscribe();
                let (vouched, give_back) = (self.lease_keeper.vouched(), Some(self.called.give_back.clone()));
                Delivery::Joined(Claim { id, incarnation, standing, vouched, give_back })
            }
            answer => Delivery::Done(answer),
        });
        // A caller that is gone drops the delivery, and with it the claim.
        let _ = reply.send(delivery);
    }

    /// The same error, with what the core does not know: the server, and why there is no link to it.
    fn explained(&self, error: Error) -> Error {
        if !error.is_of_a_server() {
            return error;
        }
        let report = self.publish.link.borrow();
        let fault = report.error.as_ref().filter(|_| error.kind() == ErrorKind::Timeout);
        error.because(fault).at(self.dialer.server())
    }

    fn stand(&mut self, id: MemberId, standing: Standing) {
        if standing == Standing::Ended(LeaveCause::Left) {
            if let Some(sender) = self.standings.remove(&id) {
                sender.send_replace(standing);
            }
        } else {
            self.standings.entry(id).or_insert_with(|| watch::Sender::new(standing)).send_replace(standing);
        }
    }
}

/// The driver ends with its work, with the runtime that it runs on, or by a panic.
impl Drop for Driver {
    fn drop(&mut self) {
        // No lease is kept that nobody looks after: what lives by it ends.
        self.kept_lease = None;
        self.end_validity();
        for standing in self.standings.values() {
            let is_over = matches!(*standing.borrow(), Standing::Ended(_));
            if !is_over {
                standing.send_replace(Standing::Ended(LeaveCause::Expired));
            }
        }
        self.dialer.stop();
        self.publish.end((!self.done).then(Error::runtime_ended));
    }
}
