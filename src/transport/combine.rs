//! Calls of many tasks at the same moment, as one call.
//!
//! A script's fixed price, on both sides, is more than its work for one lock. So who asks while other calls of the same
//! kind are under way lets the tasks beside it ask too, for one turn of the scheduler, and their asks go as one call. The
//! more calls are under way, the more asks must have come together; else they go at the next answer. Who asks alone, asks
//! at once. (In databases this is group commit: `DeWitt` et al., *Implementation techniques for main memory database
//! systems*, 1984.)

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{Script, Value};
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::commands::Context;
use crate::error::{Error, ErrorKind};
use crate::member::SessionId;

/// How many calls go together at the most, so that none stops the server for long.
const MOST: usize = 64;
/// How many calls may be under way, however small they are.
const FREE: usize = 2;
/// Where more are under way, how many asks must have come together for each of them.
const GATHERED: usize = 8;

/// What one task asks for: a key and an argument of the script.
pub(super) struct Ask {
    pub(super) key: String,
    pub(super) argument: String,
}

/// What each of a batch is answered, by its seat. `None`: it is to be asked by itself.
type Answers<A> = Arc<Result<Vec<Option<A>>, Error>>;

/// Calls that will go together.
struct Batch<A> {
    session: SessionId,
    seats: Arc<Mutex<Seats>>,
    /// Driven by all who sit in it, so by those who are left when others are dropped.
    answers: Shared<BoxFuture<'static, Answers<A>>>,
}

#[derive(Default)]
struct Seats {
    /// Empty where who sat there has been dropped.
    asks: Vec<Option<Arc<Ask>>>,
    has_gone: bool,
}

/// A place in a batch. Dropped before the batch has gone, nothing is asked for it.
struct Seat {
    seats: Arc<Mutex<Seats>>,
    number: usize,
}

/// A script that answers with one element for each key.
struct Call<A> {
    name: &'static str,
    script: &'static LazyLock<Script>,
    read: fn(&Value) -> Option<A>,
}

/// One kind of call over one connection.
pub(super) struct Combine<A> {
    call: Arc<Call<A>>,
    traffic: Arc<Traffic>,
    forming: Mutex<Option<Batch<A>>>,
}

/// The calls of one kind that are under way.
#[derive(Default)]
struct Traffic {
    calls: AtomicUsize,
    answered: Notify,
}

/// A call that is under way, for as long as this lives.
struct UnderWay(Arc<Traffic>);

impl Traffic {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        self.calls.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Lets others sit down, and waits until so many are enough for one more call.
    async fn turn(&self, seats: &Mutex<Seats>) {
        yield_now().await;
        let mut answered = pin!(self.answered.notified());
        poll_fn(|context| {
            loop {
                let calls = self.calls();
                if calls < FREE || lock(seats).asks.len() >= calls * GATHERED {
                    return Poll::Ready(());
                }
                ready!(answered.as_mut().poll(context));
                answered.set(self.answered.notified());
            }
        })
        .await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
        self.0.answered.notify_one();
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seats {
    /// The batch goes: nobody can sit down in it any more.
    fn leave(&mut self) -> Vec<Option<Arc<Ask>>> {
        self.has_gone = true;
        std::mem::take(&mut self.asks)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(ask) = lock(&self.seats).asks.get_mut(self.number) {
            *ask = None;
        }
    }
}

impl<A> Call<A> {
    async fn make(
        self: Arc<Self>,
        mut connection: MultiplexedConnection,
        asks: Vec<Option<Arc<Ask>>>,
    ) -> Result<Vec<Option<A>>, Error> {
        let mut invocation = self.script.prepare_invoke();
        for ask in asks.iter().flatten() {
            invocation.key(&ask.key).arg(&ask.argument);
        }
        let invoked: Result<Value, _> = invocation.invoke_async(&mut connection).await;
        let invoked = invoked.map_err(|error| Error::from_redis(self.name, error))?;
        let Value::Array(answers) = invoked else { return Err(self.strange()) };
        let mut answers = answers.iter();
        Ok(asks.iter().map(|ask| ask.as_ref().and_then(|_| answers.next()).and_then(self.read)).collect())
    }

    fn strange(&self) -> Error {
        Error::uncertain(ErrorKind::Server, format!("{} was answered in a form that is not known here", self.name))
    }
}

impl<A: Clone + Send + Sync + 'static> Combine<A> {
    pub(super) fn new(name: &'static str, script: &'static LazyLock<Script>, read: fn(&Value) -> Option<A>) -> Self {
        Self { call: Arc::new(Call { name, script, read }), traffic: Arc::default(), forming: Mutex::default() }
    }

    /// Asks, with others of the same session or alone.
    ///
    /// # Cancel safety
    /// Dropped, it has been asked for or not; it is not asked for later.
    pub(super) async fn ask(
        &self,
        connection: &MultiplexedConnection,
        context: &Arc<Context>,
        session: &SessionId,
        ask: Ask,
    ) -> Result<A, Error> {
        let ask = Arc::new(ask);
        if self.traffic.calls() > 0 {
            let (seat, answers) = self.sit_down(connection, context, session, ask.clone());
            match &*answers.await {
                Ok(answers) => {
                    if let Some(Some(answer)) = answers.get(seat.number) {
                        return Ok(answer.clone());
                    }
                }
                Err(error) => return Err(error.clone()),
            }
        }
        let _under_way = self.traffic.begin();
        let asking = self.call.clone().make(connection.clone(), vec![Some(ask)]);
        let answers = context.within(self.call.name, asking).await?;
        answers.into_iter().next().flatten().ok_or_else(|| self.call.strange())
    }

    /// Takes the next seat of the batch that is forming, or the first of a new one.
    fn sit_down(
        &self,
        connection: &MultiplexedConnection,
        context: &Arc<Context>,
        session: &SessionId,
        ask: Arc<Ask>,
    ) -> (Seat, Shared<BoxFuture<'static, Answers<A>>>) {
        let mut forming = lock(&self.forming);
        if let Some(batch) = forming.as_ref().filter(|batch| batch.session == *session) {
            let mut seats = lock(&batch.seats);
            if !seats.has_gone && seats.asks.len() < MOST {
                let number = seats.asks.len();
                seats.asks.push(Some(ask));
                return (Seat { seats: batch.seats.clone(), number }, batch.answers.clone());
            }
        }
        let seats = Arc::new(Mutex::new(Seats { asks: vec![Some(ask)], has_gone: false }));
        let (taken, call, traffic) = (seats.clone(), self.call.clone(), self.traffic.clone());
        let (connection, context) = (connection.clone(), context.clone());
        let answers = async move {
            let mut sent: Option<BoxFuture<'static, _>> = None;
            let going = async {
                traffic.turn(&taken).await;
                let _under_way = traffic.begin();
                poll_fn(|context| {
                    if let Some(sent) = &mut sent {
                        return sent.as_mut().poll(context);
                    }
                    // Nobody gets up while it is being sent: who does so later gives back what it has asked for, and
                    // that must not come first.
                    let mut seats = lock(&taken);
                    let sending = call.clone().make(connection.clone(), seats.leave()).boxed();
                    sent.insert(sending).as_mut().poll(context)
                })
                .await
            };
            let answers = context.within(call.name, going).await;
            lock(&taken).leave();
            Arc::new(answers)
        };
        let answers = answers.boxed().shared();
        *forming = Some(Batch { session: session.clone(), seats: seats.clone(), answers: answers.clone() });
        (Seat { seats, number: 0 }, answers)
    }
}
