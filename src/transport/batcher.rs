//! Calls of many tasks at the same moment, as one call.
//!
//! A script's fixed price, on both sides, is more than its work for one lock. So a task that asks while other calls
//! of the same kind are under way lets the tasks beside it ask too, for one turn of the scheduler, and their requests
//! go as one call. A task that asks alone asks at once. (In databases this is group commit: `DeWitt` et al.,
//! *Implementation techniques for main memory database systems*, 1984.)
//!
//! Where more calls are under way than the server answers in one round trip, the next would only wait at the server:
//! it waits here instead, and gathers more, until enough have come together or one is answered. (That number of calls
//! is the bandwidth-delay product, known by the shortest round trip as in BBR: Cardwell et al., 2016.)

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio_util::task::TaskTracker;

use super::commands::Commands;
use crate::clock;
use crate::error::Error;
use crate::model::SessionId;
use crate::proto::Moment;
use crate::scripts::{BatchRequest, BatchScript, ScriptContext};

/// How many calls go together at the most, so that none stops the server for long.
const MOST: usize = 64;
/// How many calls may be under way, however small they are and however near the server is.
const FREE: usize = 2;
/// What a call takes the server, about.
const SERVER_TIME: Duration = Duration::from_micros(16);
/// Where more calls are under way than are free, how many asks must have come together for each of them.
const GATHERED: usize = 8;

/// What it is answered. `None`: it is to be asked by itself.
type BatchAnswer<A> = Result<Option<A>, Error>;

struct Seat<A> {
    request: Arc<BatchRequest>,
    answer: oneshot::Sender<BatchAnswer<A>>,
}

/// Calls that will go together.
struct Batch<A> {
    session: SessionId,
    seats: Arc<Mutex<Seats<A>>>,
    /// Resolved when it has gone: the next goes after it.
    gone: oneshot::Receiver<()>,
}

struct Seats<A> {
    /// Empty where the request has been dropped, or answered.
    taken: Vec<Option<Seat<A>>>,
    /// Until it has gone. Then no request can join it any more.
    forming: Option<oneshot::Sender<()>>,
}

/// A place in a batch. Dropped before the batch has gone, nothing is asked for it.
struct Place<A> {
    seats: Arc<Mutex<Seats<A>>>,
    number: usize,
}

/// The seats as the task has them in which they go: nobody waits for an answer when that has ended, or was never begun.
struct Departure<A>(Arc<Mutex<Seats<A>>>);

/// One kind of call over one connection.
pub(super) struct Batcher<A: 'static> {
    script: &'static BatchScript<A>,
    traffic: Arc<Traffic>,
    forming: Mutex<Option<Batch<A>>>,
}

/// Where batches go: in tasks of their own, since the task of a request may be dropped, or not be polled for long.
#[derive(Clone)]
pub(super) struct BatchRunner {
    tracker: TaskTracker,
    runtime: Handle,
}

/// The calls of one kind that are under way.
struct Traffic {
    alone: AtomicUsize,
    batches: AtomicUsize,
    answered: Notify,
    /// The shortest round trip, in nanoseconds.
    shortest: AtomicU64,
}

/// A call for one that is under way, for as long as this lives.
struct Alone<'a>(&'a AtomicUsize);

/// A batch that is under way, for as long as this lives.
struct UnderWay {
    traffic: Arc<Traffic>,
    since: Moment,
}

impl BatchRunner {
    /// In the runtime that this is called in.
    pub(super) fn new(tracker: TaskTracker) -> Self {
        Self { tracker, runtime: Handle::current() }
    }
}

impl Traffic {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            alone: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            answered: Notify::new(),
            shortest: AtomicU64::new(u64::MAX),
        })
    }

    fn is_none(&self) -> bool {
        self.alone.load(Ordering::Relaxed) == 0 && self.batches.load(Ordering::Relaxed) == 0
    }

    fn alone(&self) -> Alone<'_> {
        self.alone.fetch_add(1, Ordering::Relaxed);
        Alone(&self.alone)
    }

    fn batch(self: &Arc<Self>) -> UnderWay {
        self.batches.fetch_add(1, Ordering::Relaxed);
        UnderWay { traffic: self.clone(), since: clock::now() }
    }

    /// Whether one more batch, of so many, would do more than wait at the server. A task that asks alone does not
    /// count: it may not read its answer for long.
    fn is_free_for(&self, asks: usize) -> bool {
        let shortest = Duration::from_nanos(self.shortest.load(Ordering::Relaxed));
        let at_once = usize::try_from(shortest.as_nanos() / SERVER_TIME.as_nanos()).unwrap_or(usize::MAX);
        let batches = self.batches.load(Ordering::Relaxed);
        batches < at_once.max(FREE) || asks >= batches * GATHERED
    }

    /// Lets other requests join, and waits until there are enough for one more batch.
    async fn turn<A>(&self, seats: &Mutex<Seats<A>>) {
        yield_now().await;
        let mut answered = pin!(self.answered.notified());
        poll_fn(|context| {
            loop {
                if self.is_free_for(lock(seats).taken.len()) {
                    return Poll::Ready(());
                }
                ready!(answered.as_mut().poll(context));
                answered.set(self.answered.notified());
            }
        })
        .await;
    }
}

impl UnderWay {
    fn answered(self) {
        let took = u64::try_from(clock::now().since(self.since).as_nanos()).unwrap_or(u64::MAX);
        self.traffic.shortest.fetch_min(took, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.traffic.batches.fetch_sub(1, Ordering::Relaxed);
        self.traffic.answered.notify_one();
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A> Seats<A> {
    /// The requests in it now, by number. No request can join it any more.
    fn leave(&mut self) -> (Vec<usize>, Vec<Arc<BatchRequest>>) {
        self.forming = None;
        let seats = self.taken.iter().enumerate();
        seats.filter_map(|(number, seat)| Some((number, seat.as_ref()?.request.clone()))).unzip()
    }
}

impl<A> Drop for Place<A> {
    fn drop(&mut self) {
        if let Some(seat) = lock(&self.seats).taken.get_mut(self.number) {
            *seat = None;
        }
    }
}

impl<A> Drop for Departure<A> {
    fn drop(&mut self) {
        let mut seats = lock(&self.0);
        seats.forming = None;
        for seat in &mut seats.taken {
            *seat = None;
        }
    }
}

/// Asks for all requests in it when it is sent. None leaves while it is being sent: one that leaves later gives back
/// what it has asked for, and that must not come first.
async fn together<A>(
    script: &BatchScript<A>,
    context: &ScriptContext,
    connection: &MultiplexedConnection,
    seats: &Mutex<Seats<A>>,
    seated: &mut Vec<usize>,
) -> Result<Value, RedisError> {
    let mut sent: Option<BoxFuture<'static, _>> = None;
    poll_fn(|task| {
        if let Some(sent) = &mut sent {
            return sent.as_mut().poll(task);
        }
        let mut seats = lock(seats);
        let (numbers, requests) = seats.leave();
        *seated = numbers;
        if requests.is_empty() {
            return Poll::Ready(Ok(Value::Array(Vec::new())));
        }
        let (command, mut connection) = (script.command(context, &requests), connection.clone());
        let sending = async move { command.query_async(&mut connection).await };
        sent.insert(sending.boxed()).as_mut().poll(task)
    })
    .await
}

impl<A: Send + 'static> Batcher<A> {
    pub(super) fn new(script: &'static BatchScript<A>) -> Self {
        Self { script, traffic: Traffic::new(), forming: Mutex::default() }
    }

    /// Asks, with others of the same session or alone.
    ///
    /// # Cancel safety
    /// Dropped, it has been asked for or not; it is not asked for later.
    pub(super) async fn ask(
        &self,
        commands: &Commands,
        session: &SessionId,
        request: BatchRequest,
    ) -> Result<A, Error> {
        let request = Arc::new(request);
        if !self.traffic.is_none() {
            let (_place, answer) = self.sit_down(commands, session, request.clone());
            if let Some(answer) = answer.await.map_err(|_| Error::closed_unanswered(self.script.name()))?? {
                return Ok(answer);
            }
        }
        let _alone = self.traffic.alone();
        // This future is a part of the caller's: dropped, nothing more is sent.
        let asking = async {
            let invocation = self.script.invocation(&commands.context.scripts, &request);
            let answered = invocation.invoke_async(&mut commands.connection.clone()).await;
            self.script.answer(answered)
        };
        let context = &commands.context;
        context.within(self.script.name(), context.config.command_timeout, asking).await
    }

    /// Takes the next seat of the batch that is forming, or the first of a new one.
    fn sit_down(
        &self,
        commands: &Commands,
        session: &SessionId,
        request: Arc<BatchRequest>,
    ) -> (Place<A>, oneshot::Receiver<BatchAnswer<A>>) {
        let (sender, answer) = oneshot::channel();
        let seat = Some(Seat { request, answer: sender });
        let mut forming = lock(&self.forming);
        if let Some(batch) = forming.as_ref().filter(|batch| batch.session == *session) {
            let mut seats = lock(&batch.seats);
            if seats.forming.is_some() && seats.taken.len() < MOST {
                let number = seats.taken.len();
                seats.taken.push(seat);
                return (Place { seats: batch.seats.clone(), number }, answer);
            }
        }
        let (going, gone) = oneshot::channel();
        let seats = Arc::new(Mutex::new(Seats { taken: vec![seat], forming: Some(going) }));
        let before = forming.replace(Batch { session: session.clone(), seats: seats.clone(), gone });
        let before = before.map(|batch| batch.gone);
        let departure = Departure(seats.clone());
        let going = go(self.script, self.traffic.clone(), commands.clone(), departure, before);
        let runner = &commands.batchers.runner;
        runner.tracker.spawn_on(going, &runner.runtime);
        (Place { seats, number: 0 }, answer)
    }
}

/// Waits for its turn, asks for all requests that are in it then, and tells each its answer.
async fn go<A>(
    script: &'static BatchScript<A>,
    traffic: Arc<Traffic>,
    commands: Commands,
    departure: Departure<A>,
    before: Option<oneshot::Receiver<()>>,
) where
    A: Send + 'static,
{
    let (seats, connection, context) = (&departure.0, &commands.connection, &commands.context);
    let (mut seated, scripts) = (Vec::new(), &*context.scripts);
    let asking = async {
        if let Some(before) = before {
            // It tells by dropping the other end.
            let _ = before.await;
        }
        traffic.turn(seats).await;
        let under_way = traffic.batch();
        let mut invoked = together(script, scripts, connection, seats, &mut seated).await;
        if invoked.as_ref().is_err_and(|error| error.kind() == ServerErrorKind::NoScript.into()) {
            let loaded = script.script(scripts.channels()).load_async(&mut connection.clone()).await;
            loaded.map_err(|error| script.failed(error))?;
            // A request that has left meanwhile has given back already, and must not be sent now.
            invoked = together(script, scripts, connection, seats, &mut seated).await;
        }
        let answers = script.answers(invoked, seated.len())?;
        if !seated.is_empty() {
            under_way.answered();
        }
        Ok(answers)
    };
    let answers = context.within(script.name(), context.config.command_timeout, asking).await;
    let mut seats = lock(seats);
    match answers {
        Ok(answers) => {
            for (number, answer) in seated.into_iter().zip(answers) {
                // A request that has left meanwhile gives back what it has got.
                if let Some(seat) = seats.taken[number].take() {
                    let _ = seat.answer.send(Ok(answer));
                }
            }
        }
        Err(error) => {
            for seat in seats.taken.iter_mut().filter_map(Option::take) {
                let _ = seat.answer.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    fn traffic(shortest: Duration, calls: usize) -> (Arc<Traffic>, Vec<UnderWay>) {
        let traffic = Traffic::new();
        traffic.shortest.store(u64::try_from(shortest.as_nanos()).unwrap(), Ordering::Relaxed);
        let under_way = (0..calls).map(|_| traffic.batch()).collect();
        (traffic, under_way)
    }

    fn seats(count: usize) -> Mutex<Seats<()>> {
        let taken = (0..count).map(|_| None).collect();
        Mutex::new(Seats { taken, forming: None })
    }

    #[tokio::test]
    async fn a_near_server_that_is_busy_is_asked_for_many_or_at_the_next_answer() {
        let (traffic, mut under_way) = traffic(Duration::from_micros(40), 2);
        assert!(traffic.is_free_for(16));
        let seats = seats(3);
        let mut turn = Box::pin(traffic.turn(&seats));
        for _ in 0..9 {
            assert!(poll!(&mut turn).is_pending(), "three are too few for a third call");
            yield_now().await;
        }
        under_way.pop().unwrap().answered();
        turn.await;
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_makes_way_and_says_nothing_of_the_distance() {
        let (traffic, mut under_way) = traffic(Duration::from_millis(1), 70);
        let seats = seats(1);
        let mut turn = Box::pin(traffic.turn(&seats));
        assert!(poll!(&mut turn).is_pending());
        under_way.truncate(40);
        turn.await;
        assert_eq!(traffic.shortest.load(Ordering::Relaxed), 1_000_000);
    }

    #[test]
    fn the_farther_the_server_the_more_calls_are_free() {
        for (shortest, free) in [(0, 2), (40, 2), (160, 10), (1000, 62), (20_000, 1250)] {
            let (traffic, mut under_way) = traffic(Duration::from_micros(shortest), free - 1);
            assert!(traffic.is_free_for(1), "{shortest}");
            under_way.push(traffic.batch());
            assert!(!traffic.is_free_for(1), "{shortest}");
        }
        let first = Traffic::new();
        let _under_way: Vec<_> = (0..100).map(|_| first.batch()).collect();
        assert!(first.is_free_for(1), "nothing is known before the first answer");
    }
}
