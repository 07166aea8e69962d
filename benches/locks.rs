//! What locks cost, as ratios to a PING of the same run: absolute times do not travel.
//!
//! `cargo bench --features testing --bench locks`

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use group_redis::testing::TestRedis;
use group_redis::{GroupConnector, redis};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 4000;
const TASKS: usize = 64;
const HANDOVERS: usize = 600;
const LEAST_TURNS: usize = 40;
/// How long each holder holds: long enough for the last one to stand in the queue again.
const HOLD: Duration = Duration::from_millis(2);

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<_> = std::env::args().collect();
    // `cargo test` runs benches too, with an argument that says so: there is nothing to assert here.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    // In tasks, as in a service: a runtime's main thread is woken for everything that it waits for.
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--worker", url, times] => tokio::spawn(work(url.to_owned(), times.parse()?)).await?,
        [_, "--listener", url] => tokio::spawn(listen(url.to_owned())).await?,
        _ => measure().await,
    }
}

async fn measure() -> Outcome<()> {
    let server = TestRedis::start().await?;
    tokio::spawn(uncontended(server.url().to_owned())).await??;
    many_tasks(&server).await?;
    let few = hand_over(&server, 2).await?;
    let many = hand_over(&server, 50).await?;
    println!("hand-over, 50 waiters to 2 waiters      {:>10.2}x", many.as_secs_f64() / few.as_secs_f64());
    Ok(())
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("a number"));
    values[values.len() / 2]
}

/// As the connector's own connections are: without Nagle's delay.
async fn connection(url: &str) -> Outcome<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(settings))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

async fn ping(connection: &mut redis::aio::MultiplexedConnection) -> Outcome<()> {
    Ok(redis::cmd("PING").query_async::<()>(connection).await?)
}

/// The least that a lock can be: without a queue, a lease or a fencing token.
async fn simplest(connection: &mut redis::aio::MultiplexedConnection) -> Outcome<()> {
    static UNLOCK: LazyLock<redis::Script> = LazyLock::new(|| {
        redis::Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])")
    });
    let mut lock = redis::cmd("SET");
    lock.arg("simplest").arg("nonce").arg("NX").arg("PX").arg(30_000).query_async::<()>(connection).await?;
    Ok(UNLOCK.key("simplest").arg("nonce").invoke_async::<()>(connection).await?)
}

/// All in turn, so that what else the machine does hits all.
async fn uncontended(url: String) -> Outcome<()> {
    let group = GroupConnector::builder(&url).group("bench").connect().await?;
    let mut connection = connection(&url).await?;
    let lock = group.lock("uncontended");
    let (mut pings, mut simplests, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ping(&mut connection).await?;
        pings.push(began.elapsed());
        let began = Instant::now();
        simplest(&mut connection).await?;
        simplests.push(began.elapsed());
        let began = Instant::now();
        lock.acquire().await?.release().await;
        pairs.push(began.elapsed());
    }
    let (ping, simplest, pair) = (median(pings), median(simplests), median(pairs));
    let ratio = |took: Duration| took.as_secs_f64() / ping.as_secs_f64();
    println!("PING                                    {ping:>10.1?}   1.0x");
    println!("SET NX, and DEL by a script             {simplest:>10.1?} {:>5.2}x", ratio(simplest));
    println!("acquire and release                     {pair:>10.1?} {:>5.2}x", ratio(pair));
    Ok(())
}

async fn rate<W>(task: impl Fn(usize) -> W) -> Outcome<f64>
where
    W: Future<Output = Outcome<()>> + Send + 'static,
{
    let began = Instant::now();
    let mut works: JoinSet<_> = (0..TASKS).map(task).collect();
    while let Some(done) = works.join_next().await {
        done??;
    }
    Ok(f64::from(u32::try_from(TASKS * ROUNDS / 20)?) / began.elapsed().as_secs_f64())
}

async fn many_tasks(server: &TestRedis) -> Outcome<()> {
    let group = GroupConnector::builder(server.url()).group("bench").connect().await?;
    let connection = connection(server.url()).await?;
    let (mut pings, mut pairs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let pinging = |_| {
            let mut connection = connection.clone();
            async move {
                for _ in 0..ROUNDS / 20 {
                    ping(&mut connection).await?;
                    ping(&mut connection).await?;
                }
                Ok(())
            }
        };
        pings.push(rate(pinging).await?);
        let locking = |task| {
            let lock = group.lock(format!("task-{task}"));
            async move {
                for _ in 0..ROUNDS / 20 {
                    lock.acquire().await?.release().await;
                }
                Ok(())
            }
        };
        pairs.push(rate(locking).await?);
    }
    let (pings, pairs) = (median(pings), median(pairs));
    println!("{TASKS} tasks, pairs of PINGs                {pings:>9.0}/s");
    println!("{TASKS} tasks, acquire and release           {pairs:>9.0}/s {:>5.2} of the rate", pairs / pings);
    Ok(())
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// A process that holds the lock again and again, and at the end says when it did.
async fn work(url: String, times: usize) -> Outcome<()> {
    let group = GroupConnector::builder(url).group("bench").connect().await?;
    let lock = group.lock("handed-on");
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let mut said = Vec::with_capacity(times);
    for _ in 0..times {
        let guard = lock.acquire().await?;
        let held = now();
        let token = guard.token();
        tokio::time::sleep(HOLD).await;
        let released = now();
        guard.release().await;
        said.push((token, held, released));
        // What it does next is not to be measured with the hand-over, on a machine of few cores.
        tokio::time::sleep(HOLD / 2).await;
    }
    for (token, held, released) in said {
        println!("{token} {held} {released}");
    }
    Ok(())
}

/// A process that only listens, and at the end says what a message took to it.
async fn listen(url: String) -> Outcome<()> {
    let mut listening = redis::Client::open(url)?.get_async_pubsub().await?;
    listening.subscribe("bare").await?;
    println!("ready");
    let mut took = Vec::new();
    let mut messages = listening.on_message();
    while let Some(message) = messages.next().await {
        match message.get_payload::<u128>()? {
            0 => break,
            sent => took.push(now().saturating_sub(sent)),
        }
    }
    println!("{}", median(took));
    Ok(())
}

/// What PINGs take, each sent with a message to the listener after a sleep that is as long as a waiter's.
async fn pace(
    mut connection: redis::aio::MultiplexedConnection,
    asleep: Duration,
    over: CancellationToken,
) -> Outcome<Vec<Duration>> {
    let mut pings = Vec::new();
    while over.run_until_cancelled(tokio::time::sleep(asleep)).await.is_some() {
        let began = Instant::now();
        ping(&mut connection).await?;
        pings.push(began.elapsed());
        publish(&mut connection, now()).await?;
    }
    publish(&mut connection, 0).await?;
    Ok(pings)
}

async fn publish(connection: &mut redis::aio::MultiplexedConnection, payload: u128) -> Outcome<()> {
    Ok(redis::cmd("PUBLISH").arg("bare").arg(payload.to_string()).query_async::<()>(connection).await?)
}

type Output = std::io::Lines<BufReader<ChildStdout>>;

/// Another process of this program, that has said that it is ready.
fn start(args: &[&str]) -> Outcome<(Child, Output)> {
    let mut child =
        Command::new(std::env::current_exe()?).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    output.next().ok_or("it has ended")??;
    Ok((child, output))
}

/// From the call of release in one process to the return of acquire in the next, and what that is in PINGs.
///
/// A waiter has been asleep for as long as all the others held the lock, and a sleeper's first steps are slow: so
/// the PINGs are those of a process that has slept as long. What a bare PUBLISH takes to another such process is what no
/// hand-over can do without.
async fn hand_over(server: &TestRedis, waiters: usize) -> Outcome<Duration> {
    let processes = waiters + 1;
    let times = (HANDOVERS / processes).max(LEAST_TURNS).to_string();
    let (mut listener, mut heard) = start(&["--listener", server.url()])?;
    let mut workers = Vec::new();
    for _ in 0..processes {
        workers.push(start(&["--worker", server.url(), &times])?);
    }
    for (worker, _) in &mut workers {
        worker.stdin.as_mut().ok_or("no input")?.write_all(b"go\n")?;
    }
    let over = CancellationToken::new();
    let asleep = HOLD * u32::try_from(processes)?;
    let pinging = tokio::spawn(pace(connection(server.url()).await?, asleep, over.clone()));
    let (mut workers, outputs): (Vec<Child>, Vec<Output>) = workers.into_iter().unzip();
    let lines = move || outputs.into_iter().flatten().collect::<Result<Vec<String>, _>>();
    let lines = tokio::task::spawn_blocking(lines).await??;
    over.cancel();
    let pings = pinging.await??;
    let bare = heard.next().ok_or("it has ended")??;
    workers.iter_mut().chain([&mut listener]).try_for_each(|child| child.wait().map(drop))?;

    let mut holds = Vec::new();
    for line in lines {
        let numbers: Vec<u128> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        holds.push((numbers[0], numbers[1], numbers[2]));
    }
    holds.sort_unstable();
    // Without those at the end, when no full queue waits any more.
    let full = holds.len() - processes;
    let took = holds[..full].windows(2).map(|pair| pair[1].1.saturating_sub(pair[0].2));
    let took = Duration::from_nanos(u64::try_from(median(took.collect::<Vec<_>>()))?);
    let bare = Duration::from_nanos(bare.parse()?);
    let ping = median(pings);
    let ratio = |took: Duration| took.as_secs_f64() / ping.as_secs_f64();
    println!("PING among  {processes:>2} processes                {ping:>10.1?}   1.0x");
    println!("PUBLISH among {processes:>2} processes              {bare:>10.1?} {:>5.2}x", ratio(bare));
    println!("hand-over, {waiters:>2} waiters                   {took:>10.1?} {:>5.2}x", ratio(took));
    Ok(took)
}
