//! What locks cost, as ratios to a PING of the same run: absolute times do not travel.
//!
//! `cargo bench --features testing --bench locks`

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use group_redis::testing::TestRedis;
use group_redis::{GroupConnector, redis};

const ROUNDS: usize = 4000;
const TASKS: usize = 64;
const HANDOVERS: usize = 600;
/// How long each holder holds: long enough for the last one to stand in the queue again.
const HOLD: Duration = Duration::from_millis(2);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<_> = std::env::args().collect();
    // `cargo test` runs benches too, with an argument that says so: there is nothing to assert here.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    if let [_, worker, url, times] = &args[..]
        && worker == "--worker"
    {
        return work(url, times.parse()?).await;
    }
    let server = TestRedis::start().await?;
    uncontended(&server).await?;
    many_tasks(&server).await?;
    let few = hand_over(&server, 2).await?;
    let many = hand_over(&server, 50).await?;
    println!("hand-over, 50 waiters to 2 waiters      {:>10.2}x", many / few);
    Ok(())
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("a number"));
    values[values.len() / 2]
}

/// As the connector's own connections are: without Nagle's delay.
async fn connection(server: &TestRedis) -> Outcome<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(server.url())?;
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(settings))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

async fn ping(connection: &mut redis::aio::MultiplexedConnection) -> Outcome<()> {
    Ok(redis::cmd("PING").query_async::<()>(connection).await?)
}

/// Both in turn, so that what else the machine does hits both.
async fn uncontended(server: &TestRedis) -> Outcome<()> {
    let group = GroupConnector::builder(server.url()).group("bench").connect().await?;
    let mut connection = connection(server).await?;
    let lock = group.lock("uncontended");
    let (mut pings, mut pairs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ping(&mut connection).await?;
        pings.push(began.elapsed());
        let began = Instant::now();
        lock.acquire().await?.release().await;
        pairs.push(began.elapsed());
    }
    let (ping, pair) = (median(pings), median(pairs));
    println!("PING                                    {ping:>10.1?}   1.0x");
    println!("acquire and release                     {pair:>10.1?} {:>5.2}x", pair.as_secs_f64() / ping.as_secs_f64());
    Ok(())
}

async fn rate<W: Future<Output = Outcome<()>>>(task: impl Fn(usize) -> W) -> Outcome<f64> {
    let began = Instant::now();
    let works = (0..TASKS).map(task);
    futures_util::future::try_join_all(works).await?;
    Ok(f64::from(u32::try_from(TASKS * ROUNDS / 20)?) / began.elapsed().as_secs_f64())
}

async fn many_tasks(server: &TestRedis) -> Outcome<()> {
    let group = GroupConnector::builder(server.url()).group("bench").connect().await?;
    let connection = connection(server).await?;
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
async fn work(url: &str, times: usize) -> Outcome<()> {
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
    }
    for (token, held, released) in said {
        println!("{token} {held} {released}");
    }
    Ok(())
}

/// From the call of release in one process to the return of acquire in the next, as a multiple of a PING.
async fn hand_over(server: &TestRedis, waiters: usize) -> Outcome<f64> {
    let processes = waiters + 1;
    let times = (HANDOVERS / processes).max(12);
    let mut workers: Vec<Child> = (0..processes)
        .map(|_| {
            Command::new(std::env::current_exe()?)
                .args(["--worker", server.url(), &times.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    let mut outputs = Vec::new();
    for worker in &mut workers {
        let mut output = BufReader::new(worker.stdout.take().ok_or("no output")?);
        output.read_line(&mut String::new())?;
        outputs.push(output);
    }
    let mut connection = connection(server).await?;
    let mut pings = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ping(&mut connection).await?;
        pings.push(began.elapsed());
    }
    for worker in &mut workers {
        worker.stdin.as_mut().ok_or("no input")?.write_all(b"go\n")?;
    }
    let mut holds = Vec::new();
    for output in outputs {
        for line in output.lines() {
            let line = line?;
            let numbers: Vec<u128> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            holds.push((numbers[0], numbers[1], numbers[2]));
        }
    }
    workers.iter_mut().try_for_each(|worker| worker.wait().map(drop))?;
    holds.sort_unstable();
    // Without those at the end, when no full queue waits any more.
    let full = holds.len() - processes;
    let took = holds[..full].windows(2).map(|pair| pair[1].1.saturating_sub(pair[0].2));
    let took = Duration::from_nanos(u64::try_from(median(took.collect::<Vec<_>>()))?);
    let ping = median(pings);
    let ratio = took.as_secs_f64() / ping.as_secs_f64();
    println!("PING beside {processes:>2} processes                {ping:>10.1?}   1.0x");
    println!("hand-over, {waiters:>2} waiters                   {took:>10.1?} {ratio:>5.2}x");
    Ok(ratio)
}
