//! How soon many deaths at once are seen, and that nothing else is taken for one. It fails where a limit is broken, and names
//! it. How soon one death is seen is in `benches/bench`.
//!
//! `cargo bench --features testing --bench failover -- [together [N]] [freeze] [storm [SECONDS]] [restarts [MINUTES]]`; without
//! a word, all but `restarts`.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod together;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use group_redis::testing::TestRedis;
use group_redis::{Event, GroupConnector, redis};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// So long that nothing here is seen by it.
const TTL: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the kill of a process to the last watcher that is told, in 99 of 100.
const SEEN_WITHIN: Duration = Duration::from_millis(300);
/// What one connector opens: to ask, to listen, for heartbeats.
const CONNECTIONS: f64 = 3.0;

static BROKEN: AtomicBool = AtomicBool::new(false);

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test` runs benches too, with an argument that says so: there is nothing to assert here.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    // Each connector has three connections.
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    runtime.block_on(run(&words))?;
    if BROKEN.load(Ordering::Relaxed) { Err("a limit is broken".into()) } else { Ok(()) }
}

/// Says so where a limit is not kept, and lets the rest be measured all the same.
fn limit(is_kept: bool, limit: &str) {
    if !is_kept {
        println!("  LIMIT BROKEN: {limit}");
        BROKEN.store(true, Ordering::Relaxed);
    }
}

async fn run(words: &[&str]) -> Outcome<()> {
    match words[..] {
        ["--member", url, ref names @ ..] => be_members(url, names).await,
        ["together"] => together::run(50).await,
        ["together", rounds] => together::run(rounds.parse()?).await,
        ["freeze"] => freeze().await,
        ["storm"] => storm(Duration::from_secs(60)).await,
        ["storm", seconds] => storm(Duration::from_secs(seconds.parse()?)).await,
        ["restarts"] => restarts(Duration::from_secs(1800)).await,
        ["restarts", minutes] => restarts(Duration::from_secs(60 * minutes.parse::<u64>()?)).await,
        _ => {
            together::run(50).await?;
            freeze().await?;
            storm(Duration::from_secs(60)).await
        }
    }
}

async fn connect(url: &str) -> Outcome<GroupConnector> {
    Ok(GroupConnector::builder(url).group("failover").ttl(TTL).connect().await?)
}

/// A process of its own: members of one connector, until it is killed or its input ends.
async fn be_members(url: &str, names: &[&str]) -> Outcome<()> {
    let group = connect(url).await?;
    for name in names {
        group.join(*name).await?;
    }
    println!("joined");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    group.close().await?;
    Ok(())
}

fn spawn(url: &str, names: &[String]) -> Outcome<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.arg("--member").arg(url).args(names).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// Waits until the members of that process have joined.
async fn joined(child: &mut Child) -> Outcome<()> {
    let output = child.stdout.take().ok_or("its output is read once")?;
    tokio::task::spawn_blocking(move || BufReader::new(output).read_line(&mut String::new())).await??;
    Ok(())
}

fn signal(child: &Child, signal: Signal) -> Outcome<()> {
    Ok(rustix::process::kill_process(Pid::from_child(child), signal)?)
}

/// A watcher that passes on joins and leaves, with the time.
async fn watcher(url: &str, told: mpsc::Sender<(Instant, bool, String)>) -> Outcome<GroupConnector> {
    let group = connect(url).await?;
    let mut events = group.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let (has_joined, member) = match event {
                Event::Joined(member) => (true, member),
                Event::Left { member, .. } => (false, member),
                _ => continue,
            };
            if told.send((Instant::now(), has_joined, member.id().to_string())).await.is_err() {
                break;
            }
        }
    });
    Ok(group)
}

/// Prints the times, and answers the 99th of a hundred.
fn tell(what: &str, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
    let ms = |percent| at(percent).as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms, of {}", ms(50), ms(99), ms(100), times.len());
    at(99)
}

/// How many were told to have joined or left at one watcher while this was done.
async fn events_during(url: &str, members: usize, doing: impl Future<Output = Outcome<()>>) -> Outcome<u64> {
    let group = connect(url).await?;
    group.wait_for(PATIENCE, |view| view.len() == members).await?;
    let (mut events, count) = (group.events(), Arc::new(AtomicU64::new(0)));
    let counted = count.clone();
    let counting = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Joined(_) | Event::Left { .. }) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    doing.await?;
    sleep(Duration::from_secs(2)).await;
    counting.abort();
    Ok(count.load(Ordering::Relaxed))
}

async fn freeze() -> Outcome<()> {
    let server = TestRedis::start().await?;
    let mut child = spawn(server.url(), &["frozen".to_owned()])?;
    joined(&mut child).await?;
    let seen = events_during(server.url(), 1, async {
        signal(&child, Signal::STOP)?;
        sleep(Duration::from_secs(5)).await;
        signal(&child, Signal::CONT)
    });
    let seen = seen.await?;
    println!("a process frozen for 5 s, ttl {TTL:?}: {seen} joins and leaves");
    limit(seen == 0, "a freeze shorter than the ttl is no join and no leave");
    child.kill()?;
    child.wait()?;
    Ok(())
}

async fn storm(time: Duration) -> Outcome<()> {
    const MEMBERS: usize = 50;
    let server = TestRedis::start().await?;
    let groups = members(server.url(), MEMBERS).await?;
    let mut connection = server.connection().await?;
    let mut killed = 0u64;
    let seen = events_during(server.url(), MEMBERS, async {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let mut kill = redis::cmd("CLIENT");
            killed += kill.arg("KILL").arg("TYPE").arg("pubsub").query_async::<u64>(&mut connection).await?;
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    });
    let seen = seen.await?;
    println!(
        "{MEMBERS} members, subscriptions killed every 50 ms for {time:?}: {killed} killed, {seen} joins and leaves"
    );
    limit(seen == 0, "killed subscriptions are no join and no leave");
    limit(killed > 0, "something is killed at all");
    drop(groups);
    Ok(())
}

/// So many connectors with a member each.
async fn members(url: &str, count: usize) -> Outcome<Vec<GroupConnector>> {
    let mut groups = Vec::new();
    for number in 0..count {
        let group = connect(url).await?;
        group.join(format!("member-{number}")).await?;
        groups.push(group);
    }
    Ok(groups)
}

/// What the server says of itself, as a number.
async fn info(connection: &mut redis::aio::MultiplexedConnection, section: &str, name: &str) -> Outcome<f64> {
    let text: String = redis::cmd("INFO").arg(section).query_async(connection).await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.ok_or("the server does not say it")?.trim().parse()?)
}

/// What this process has in memory, in kB; 0 where that is not known.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Memory may breathe, but not grow.
fn is_flat(what: &str, early: f64, late: f64) {
    limit(
        late <= early * 1.15 + 4e6,
        &format!("the memory of {what} is flat: at most 15 % and 4 MB above that of a third"),
    );
}

/// 100 members in 20 processes, of which a random one is killed and started again every second; 20 watchers.
async fn restarts(time: Duration) -> Outcome<()> {
    const PROCESSES: usize = 20;
    const EACH: usize = 5;
    const WATCHERS: usize = 20;
    let server = TestRedis::start().await?;
    let names = |process: usize| (0..EACH).map(|each| format!("member-{process}-{each}")).collect::<Vec<_>>();
    let mut children =
        (0..PROCESSES).map(|process| spawn(server.url(), &names(process))).collect::<Outcome<Vec<_>>>()?;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        watchers.push(connect(server.url()).await?);
    }
    let whole = async || -> Outcome<()> {
        for watcher in &watchers {
            watcher.wait_for(PATIENCE, |view| view.len() == PROCESSES * EACH).await?;
        }
        Ok(())
    };
    whole().await?;
    let mut connection = server.connection().await?;
    let connected = info(&mut connection, "stats", "total_connections_received").await?;
    let (begun, mut count, mut grown) = (Instant::now(), 0u32, Vec::new());
    let mut seed = u64::from(std::process::id());
    while begun.elapsed() < time {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let process = usize::try_from((seed >> 33) % PROCESSES as u64)?;
        children[process].kill()?;
        children[process].wait()?;
        children[process] = spawn(server.url(), &names(process))?;
        count += 1;
        sleep(Duration::from_secs(1)).await;
        if count.is_multiple_of(60) {
            grown.push((memory(), info(&mut connection, "memory", "used_memory").await?));
        }
    }
    whole().await?;
    let connections = info(&mut connection, "stats", "total_connections_received").await? - connected;
    println!("{count} restarts of one of {PROCESSES} processes, {EACH} members each, before {WATCHERS} watchers:");
    let each = connections / f64::from(count);
    println!("  {each:.2} connections a restart");
    // One that is killed while it connects leaves one attempt more.
    limit(each <= CONNECTIONS + 1.0, &format!("a restart opens the {CONNECTIONS} connections of its own process"));
    let third = grown.len() / 3;
    if grown.len() < 3 {
        println!("  too short to say anything of the memory");
    } else if let (Some(early), Some(late)) = (grown.get(third), grown.last()) {
        is_flat("the watchers' process", early.0 as f64 * 1e3, late.0 as f64 * 1e3);
        is_flat("the server", early.1, late.1);
        println!("  memory of the watchers' process: {} kB after a third, {} kB at the end", early.0, late.0);
        println!("  memory of the server: {:.0} kB after a third, {:.0} kB at the end", early.1 / 1e3, late.1 / 1e3);
    }
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
