//! A worker process that takes locks: acquires them, writes under them, hands them on, and says so on its output.
//!
//! Lines in:
//! - `acquire LOCK`: waits for the lock, and holds it: `held LOCK TOKEN`, and some time `lost LOCK TOKEN`
//! - `read LOCK`: the same beside other readers; `permit LOCK N`: the same beside N - 1 others
//! - `wait LOCK N`: stands in the queue N times, as `NAME-0` and so on, one behind the other, each time saying
//!   `held LOCK TOKEN NAME-0` and handing the lock on at once
//! - `ask LOCK`: waits for the lock and then asks its guard all the time, until it was frozen: `answered LOCK true`,
//!   or `false`, is what the guard said first when it went on
//! - `load LOCK`: reads the two counters of the lock: `loaded LOCK FENCED PLAIN`
//! - `store LOCK`: writes what it has loaded plus one, fenced and not: `stored LOCK`, or `refused LOCK` by the fence
//! - `release LOCK`: `released LOCK true`
//! - `work LOCKS ROUNDS`: so many times takes one of the locks `lock-0`, `lock-1` and so on at random, loads, stores
//!   and releases it: `refused LOCK TOKEN` where it came too late, `unsure LOCK TOKEN` where no answer came in time, at
//!   the end `done ROUNDS`
//! - `leave`: gives everything back: `left`
//!
//! `TTL_MS` sets the ttl. It ends with its standard input, so it never outlives its parent.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use group_redis::{Error, ErrorKind, GroupConnector, Lock, LockGuard};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// Reads the counter, and notes the reader.
const LOAD: &str = "redis.call('RPUSH', KEYS[2], ARGV[1] .. ' load')
    return tonumber(redis.call('GET', KEYS[1]) or 0)";
/// Writes the counter, and notes the writer.
const STORE: &str = "redis.call('SET', KEYS[1], ARGV[2])
    return redis.call('RPUSH', KEYS[2], ARGV[1] .. ' store')";

/// A process that does not run for so long is frozen.
const FROZEN: Duration = Duration::from_millis(200);

struct Worker {
    group: GroupConnector,
    name: String,
    /// A way to the server around the fence.
    plain: MultiplexedConnection,
    group_name: String,
}

/// What the two counters of a lock were.
#[derive(Clone, Copy)]
struct Counts {
    fenced: u64,
    plain: u64,
}

impl Worker {
    fn plain_key(&self, lock: &str) -> String {
        format!("plain:{}:{lock}", self.group_name)
    }

    async fn load(&self, lock: &str, guard: &LockGuard) -> Result<Counts, Error> {
        let (count, journal) = (format!("count/{lock}"), format!("journal/{lock}"));
        let (token, key) = (guard.token().to_string(), self.plain_key(lock));
        let (mut plain, paths, args) = (self.plain.clone(), [&*count, &*journal], [&*token]);
        let fence = guard.fenced();
        let (fenced, plain) = tokio::join!(fence.eval(LOAD, &paths, &args), plain.get::<_, Option<u64>>(&key));
        Ok(Counts { fenced: fenced?, plain: plain.expect("the plain counter").unwrap_or(0) })
    }

    /// The plain counter first: where the fence refuses, that one has already overwritten what others wrote.
    async fn store(&self, lock: &str, guard: &LockGuard, seen: Counts) -> Result<(), Error> {
        let (count, journal) = (format!("count/{lock}"), format!("journal/{lock}"));
        let (token, next) = (guard.token().to_string(), (seen.fenced + 1).to_string());
        let (mut plain, key) = (self.plain.clone(), self.plain_key(lock));
        plain.set::<_, _, ()>(&key, seen.plain + 1).await.expect("the plain counter");
        guard.fenced().eval::<u64>(STORE, &[&count, &journal], &[&token, &next]).await.map(drop)
    }

    async fn work(&self, locks: u64, rounds: u64) -> Result<(), Error> {
        let mut seed = u64::from(std::process::id());
        for _ in 0..rounds {
            // A step of a linear congruential generator: no secret hangs on it.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let lock = format!("lock-{}", (seed >> 33) % locks);
            let guard = self.group.lock(&lock).as_member(&self.name).acquire().await?;
            let written = match self.load(&lock, &guard).await {
                Ok(seen) => self.store(&lock, &guard, seen).await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Lost => println!("refused {lock} {}", guard.token()),
                // It may have been written or not, and the next round is another.
                Err(error) if error.is_retryable() => println!("unsure {lock} {}", guard.token()),
                Err(error) => return Err(error),
            }
            guard.release().await;
        }
        println!("done {rounds}");
        Ok(())
    }
}

async fn hold(name: &str, lock: Lock) -> Result<LockGuard, Error> {
    let guard = lock.acquire().await?;
    let (name, token, lost) = (name.to_owned(), guard.token(), guard.cancellation_token());
    println!("held {name} {token}");
    tokio::spawn(async move {
        lost.cancelled().await;
        println!("lost {name} {token}");
    });
    Ok(guard)
}

/// Asks all the time whether it is held; says what came first after the process was frozen.
fn ask_until_frozen(name: &str, guard: &LockGuard) {
    let mut before = Instant::now();
    loop {
        let now = Instant::now();
        let is_held = guard.is_held();
        if now.duration_since(before) > FROZEN {
            println!("answered {name} {is_held}");
            return;
        }
        before = now;
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// Hands each of them on at once.
async fn pass_on(lock: String, wanted: Lock) -> Result<(), Error> {
    let guard = wanted.acquire().await?;
    let since = guard.since().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    println!("held {lock} {} {} {since}", guard.token(), guard.member());
    guard.release().await;
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(group_name), Some(name)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: locker URL GROUP NAME");
        std::process::exit(2);
    };
    let ttl = std::env::var("TTL_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(7500);
    let group = GroupConnector::builder(&url).group(&group_name).ttl(Duration::from_millis(ttl)).connect().await?;
    let client = redis::Client::open(url).expect("it has been connected to");
    // It may be frozen for longer than answers usually take.
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    let plain = client.get_multiplexed_async_connection_with_config(&patient).await.expect("it has been connected to");
    let worker = std::sync::Arc::new(Worker { group, name, plain, group_name });
    println!("ready");

    let mut held = HashMap::new();
    let mut seen = HashMap::new();
    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let words: Vec<_> = line.split(' ').collect();
        let name = words.get(1).copied().unwrap_or_default();
        let number = words.get(2).and_then(|word| word.parse::<u64>().ok()).unwrap_or(1);
        let lock = |name| worker.group.lock(name).as_member(&worker.name);
        match words[0] {
            "acquire" => drop(held.insert(name.to_owned(), hold(name, lock(name)).await?)),
            "read" => drop(held.insert(name.to_owned(), hold(name, lock(name).read()).await?)),
            "permit" => {
                let permits = u32::try_from(number).unwrap_or(u32::MAX);
                let semaphore = worker.group.semaphore(name, permits).as_member(&worker.name);
                held.insert(name.to_owned(), hold(name, semaphore).await?);
            }
            "wait" => {
                for waiter in 0..number {
                    let wanted = worker.group.lock(name).as_member(format!("{}-{waiter}", worker.name));
                    tokio::spawn(pass_on(name.to_owned(), wanted));
                }
            }
            "ask" => {
                let (name, guard) = (name.to_owned(), hold(name, lock(name)).await?);
                std::thread::spawn(move || ask_until_frozen(&name, &guard));
            }
            "load" => {
                let counts = worker.load(name, &held[name]).await?;
                println!("loaded {name} {} {}", counts.fenced, counts.plain);
                seen.insert(name.to_owned(), counts);
            }
            "store" => match worker.store(name, &held[name], seen[name]).await {
                Ok(()) => println!("stored {name}"),
                Err(error) if error.kind() == ErrorKind::Lost => println!("refused {name}"),
                Err(error) => return Err(error),
            },
            "release" => {
                let released = match held.remove(name) {
                    Some(guard) => guard.release().await,
                    None => false,
                };
                println!("released {name} {released}");
            }
            "work" => {
                let (worker, locks) = (worker.clone(), name.parse().unwrap_or(1));
                tokio::spawn(async move {
                    match worker.work(locks, number).await {
                        Err(error) if error.kind() != ErrorKind::Closed => println!("failed {error:?}"),
                        _ => {}
                    }
                });
            }
            "leave" => {
                worker.group.close().await?;
                println!("left");
                return Ok(());
            }
            other => println!("what is {other:?}?"),
        }
    }
    std::process::exit(1)
}
