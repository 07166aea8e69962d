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
use super::validity::Tenure;
use crate::backoff::backoff;
use crate::cache::ViewWriter;
use crate::cache::{Holds, ShelfWriter, State};
use crate::clock::{self, LONGEST_SLEEP};
use crate::error::Error;
use crate::model::{LeaveCause, Member, MemberId, SessionId};
use crate::proto::{
    Answer, Change, Command, Hearing, Input, Machine, Moment, Output, Pulse, Reply, Request, Standing, Tag, Ticket,
};
use crate::settings::CoreSettings;
use crate::transport::{Beat, Commands, Dialer, Keeper, Keeping, Link};
use crate::wire::{Bid, Notice};

/// How many notifications are taken at once before their outputs are done.
const BURST: usize = 1024;

/// What an operator may want to know of the link.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkReport {
    /// Why there is no link, as long as there is none.
    pub(crate) error: Option<Error>,
    /// How many links have stood before this one.
    pub(crate) reconnects: u64,
    /// How changes are heard of.
    pub(crate) hearing: Hearing,
    /// How many sessions this connector sees to be present.
    pub(crate) seen: usize,
}

/// Where the driver tells what it sees.
pub(crate) struct Publish {
    pub(crate) view: ViewWriter,
    pub(crate) state: watch::Sender<State>,
    pub(crate) link: watch::Sender<LinkReport>,
    /// The connection that stands, for who goes straight to it.
    pub(crate) commands: watch::Sender<Option<Commands>>,
    pub(crate) tenure: watch::Sender<Option<Arc<Tenure>>>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) shelf: ShelfWriter,
}

type Replies = FuturesUnordered<Pin<Box<dyn Future<Output = (Tag, Result<Reply, Error>)> + Send>>>;

enum Wire {
    Dialing(Pin<Box<dyn Future<Output = Result<Link, Error>> + Send>>),
    Up(Box<Link>),
}

pub(crate) struct Driver {
    machine: Machine,
    dialer: Dialer,
    keeper: Keeper,
    publish: Publish,
    wire: Wire,
    links: u64,
    pauses: ExponentialBackoff,
    replies: Replies,
    tickets: HashMap<Ticket, oneshot::Sender<Result<Delivery, Error>>>,
    next_ticket: u64,
    standings: HashMap<MemberId, watch::Sender<Standing>>,
    keeping: Option<(SessionId, Keeping)>,
    beats: watch::Receiver<Option<Beat>>,
    called: Called,
    shutdown: CancellationToken,
    done: bool,
}

enum Happening {
    Call(Call),
    Link(Result<Link, Error>),
    Notice(Result<Notice, Error>),
    Reply(Tag, Result<Reply, Error>),
    Beat,
    /// Somebody has seen that the lease is not vouched for.
    TenureEnded,
    Released(Release),
    Shutdown,
    Time,
}

impl Driver {
    pub(crate) fn new(
        settings: CoreSettings,
        dialer: Dialer,
        keeper: Keeper,
        beats: watch::Receiver<Option<Beat>>,
        called: Called,
        publish: Publish,
        shutdown: CancellationToken,
    ) -> Self {
        let pauses = backoff(dialer.config().backoff_cap);
        let first = dialer.clone();
        Self {
            machine: Machine::new(settings),
            wire: Wire::Dialing(Box::pin(async move { first.dial().await })),
            dialer,
            keeper,
            publish,
            links: 0,
            pauses,
            replies: Replies::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            standings: HashMap::new(),
            keeping: None,
            beats,
            called,
            shutdown,
            done: false,
        }
    }

    /// Runs until everything has been given back.
    pub(crate) async fn run(mut self) {
        loop {
            self.perform_all();
            if self.done {
                self.dialer.stop();
                return;
            }
            let happening = self.wait().await;
            self.take(happening);
        }
    }

    /// Waits for the next thing to happen. Every branch is cancel safe: what is not taken stays where it is.
    async fn wait(&mut self) -> Happening {
        let until = self.machine.poll_timeout();
        let time = async {
            match until {
                Some(until) => sleep(until.since(clock::now()).min(LONGEST_SLEEP)).await,
                None => pending().await,
            }
        };
        let tenure = self.publish.tenure.borrow().clone();
        let ended = async {
            match tenure {
                Some(tenure) => tenure.ended().cancelled().await,
                None => pending().await,
            }
        };
        let wire = async {
            match &mut self.wire {
                Wire::Dialing(dialing) => Happening::Link(dialing.await),
                Wire::Up(link) => Happening::Notice(link.next().await),
            }
        };
        tokio::select! {
            Some(call) = self.called.calls.recv() => Happening::Call(call),
            happening = wire => happening,
            Some((tag, reply)) = self.replies.next() => Happening::Reply(tag, reply),
            Ok(()) = self.beats.changed() => Happening::Beat,
            Some(release) = self.called.releases.recv() => Happening::Released(release),
            () = self.shutdown.cancelled() => Happening::Shutdown,
            () = ended => Happening::TenureEnded,
            () = time => Happening::Time,
        }
    }

    fn take(&mut self, happening: Happening) {
        let now = clock::now();
        match happening {
            Happening::Call(call) | Happening::Released(Release::Call(call)) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.tickets.insert(ticket, call.reply);
                self.machine.handle_input(now, Input::Request(ticket, call.request));
            }
            Happening::Link(Ok(link)) => {
                self.publish.commands.send_replace(Some(link.commands()));
                self.wire = Wire::Up(Box::new(link));
                self.links += 1;
                let reconnects = self.links - 1;
                self.publish.link.send_modify(|report| report.reconnects = reconnects);
                self.machine.handle_input(now, Input::LinkUp);
            }
            Happening::Link(Err(error)) => self.redial(error),
            Happening::Notice(Ok(notice)) => {
                self.take_burst(notice);
            }
            Happening::Notice(Err(error)) => {
                self.machine.handle_input(now, Input::LinkDown);
                self.redial(error);
            }
            Happening::Reply(tag, reply) => {
                self.machine.handle_input(now, Input::Reply(tag, reply));
                self.take_replies();
            }
            Happening::Beat => {
                let beat = self.beats.borrow_and_update().clone();
                if let Some(Beat { session, until, pulse }) = beat {
                    self.machine.handle_input(now, Input::Beat { session, until, pulse });
                }
                // It may be vouched for again before the core had a doubt.
                if self.publish.tenure.borrow().is_none() {
                    self.begin_tenure();
                }
            }
            Happening::Released(Release::Unclaimed(id, incarnation)) => {
                self.machine.handle_input(now, Input::Unclaimed(id, incarnation));
            }
            Happening::Released(Release::Bid(bid)) => self.machine.handle_input(now, Input::GiveBack(bid)),
            Happening::Released(Release::Audit) => self.machine.handle_input(now, Input::Audit),
            Happening::Released(Release::LeaseLost(session)) => {
                let lost = Input::Beat { session, until: Moment::ORIGIN, pulse: Pulse::Lost };
                self.machine.handle_input(now, lost);
            }
            Happening::TenureEnded => {
                self.end_tenure();
                self.machine.handle_input(now, Input::Tick);
                self.begin_tenure();
            }
            Happening::Shutdown => {
                self.shutdown = CancellationToken::new();
                self.next_ticket += 1;
                self.machine.handle_input(now, Input::Request(Ticket(self.next_ticket), Request::Close));
            }
            Happening::Time => self.machine.handle_input(now, Input::Tick),
        }
    }

    /// Takes the notifications that are there already, so that one read answers them all.
    fn take_burst(&mut self, first: Notice) {
        let (mut notices, mut broken) = (vec![first], None);
        if let Wire::Up(link) = &mut self.wire {
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

    /// Does everything that came out. Changes become one batch; answers follow it, so that who is answered finds in
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
        self.wire = Wire::Dialing(Box::pin(async move {
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
                tracing::debug!(%state, "link state");
                self.publish.view.state(state);
                self.publish.state.send_replace(state);
            }
            Output::Standing(id, standing) => self.stand(id, standing),
            Output::Keep(session, acked) => {
                self.keeping = Some((session.clone(), self.keeper.keep(session, acked)));
                self.begin_tenure();
            }
            Output::Values(changes) => self.publish.shelf.apply(changes),
            Output::Covered(topic) => self.publish.shelf.cover(topic),
            Output::Doubt => self.end_tenure(),
            Output::Trust => self.begin_tenure(),
            Output::Release => {
                self.keeping = None;
                self.end_tenure();
            }
            Output::Audited(asked, held) => {
                if let Some((_, keeping)) = &self.keeping {
                    keeping.renewed(asked);
                }
                let unknown = self.publish.holds.audit(asked, held);
                self.give_back(unknown);
            }
            Output::Hearing(hearing) => {
                self.publish.link.send_modify(|report| {
                    if report.hearing.reason.is_some() && hearing.reason.is_none() {
                        tracing::info!(source = %hearing.source, "changes are heard again as they should be");
                    }
                    report.hearing = hearing;
                });
            }
            Output::Seen(sessions) => self.publish.link.send_modify(|report| report.seen = sessions),
            Output::Letters(come) => {
                self.publish.holds.letters(come);
                // Who waits asks again, for the letter may have come to what listened before.
                self.publish.commands.send_modify(|_| {});
            }
            Output::DropLink(error) => self.redial(error),
            Output::Warn(line) => tracing::warn!("{line}"),
            Output::Closed => self.done = true,
        }
    }

    /// Whoever acquires from now on relies on the session that is kept, unless it is in doubt.
    fn begin_tenure(&mut self) {
        let vouched = self.keeper.vouched();
        let kept = self.keeping.as_ref().map(|(session, _)| session.clone());
        if let Some(session) = kept.filter(|_| vouched.holds()) {
            self.end_tenure();
            self.publish.tenure.send_replace(Some(Tenure::new(session, vouched)));
        }
    }

    /// Nothing that was acquired so far can be relied on. It is given back, in case that the session lives on.
    fn end_tenure(&mut self) {
        if let Some(tenure) = self.publish.tenure.send_replace(None) {
            tenure.end();
            let lost = self.publish.holds.lose_all();
            if self.keeping.is_some() {
                self.give_back(lost);
            }
        }
    }

    fn give_back(&mut self, bids: Vec<Bid>) {
        for bid in bids {
            self.machine.handle_input(clock::now(), Input::GiveBack(bid));
        }
    }

    fn send(&mut self, tag: Tag, command: Command) {
        let Wire::Up(link) = &mut self.wire else { return };
        match command {
            Command::Subscribe { topic } => {
                let subscribing = link.subscribe(&topic);
                self.replies.push(Box::pin(subscribing.map(move |done| (tag, done.map(|()| Reply::Done)))));
            }
            Command::Listen { source } => {
                let listening = link.listen(source);
                let said = listening.map(move |done| (tag, done.map(|letters| Reply::Listening { letters })));
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
        let delivery = result.map(|answer| match answer {
            Answer::Joined(id, incarnation) => {
                let held = || watch::Sender::new(Standing::Held(incarnation));
                let standing = self.standings.entry(id.clone()).or_insert_with(held).subscribe();
                let (vouched, give_back) = (self.keeper.vouched(), Some(self.called.give_back.clone()));
                Delivery::Joined(Claim { id, incarnation, standing, vouched, give_back })
            }
            answer => Delivery::Done(answer),
        });
        // A caller that is gone drops the delivery, and with it the claim.
        let _ = reply.send(delivery);
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
