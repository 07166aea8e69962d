//! What a change of the primary costs: how soon a connector is back, and how joins scale over the nodes of a cluster.
//!
//! `cargo bench --features testing --bench topology -- [sentinel [N]] [slots [N]] [groups [N]]`; without a word, all.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use group_redis::testing::{TestCluster, TestSentinel};
use group_redis::{Event, GroupConnector, redis};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// How many joins of one group are under way at once.
const AT_ONCE: usize = 4;
/// How long joins are counted.
const COUNTED: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test` runs benches too, with an argument that says so: there is nothing to assert here.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    runtime.block_on(run(&words))
}

async fn run(words: &[&str]) -> Outcome<()> {
    match words[..] {
        ["sentinel"] => sentinel(20).await,
        ["sentinel", rounds] => sentinel(rounds.parse()?).await,
        ["slots"] => slots(50).await,
        ["slots", moves] => slots(moves.parse()?).await,
        ["groups"] => groups(300).await,
        ["groups", count] => groups(count.parse()?).await,
        _ => {
            sentinel(20).await?;
            slots(50).await?;
            groups(300).await
        }
    }
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}", at(50), at(99), at(100), times.len());
}

/// From `+switch-master` to the first join that is done at the promoted server; the primary is killed by SIGKILL.
async fn sentinel(rounds: usize) -> Outcome<()> {
    let (mut back, mut kept) = (Vec::new(), 0);
    for _ in 0..rounds {
        let mut servers = TestSentinel::start().await?;
        let group = GroupConnector::builder(servers.url()).group("bench").connect().await?;
        let me = group.join("me").await?;
        let before = me.incarnation();
        let mut primary = servers.nodes()[0].connection().await?;
        redis::cmd("WAIT").arg(&[2, 1000]).query_async::<u64>(&mut primary).await?;
        let mut told = switches(&servers).await?;
        let switched = async { told.next().await.map(|_| Instant::now()).ok_or("no sentinel tells") };
        let (killed, switched) = tokio::join!(servers.kill_primary(), timeout(PATIENCE, switched));
        let (_, switched) = (killed?, switched??);
        group.timeout(PATIENCE).join("again").await?;
        back.push(switched.elapsed());
        kept += usize::from(timeout(PATIENCE, me.held()).await? == before);
        group.close().await?;
    }
    tell("sentinel: +switch-master to a join", &mut back);
    println!("  {kept} of {rounds} members kept their incarnation");
    Ok(())
}

/// What the first of the sentinels tells of failovers.
async fn switches(servers: &TestSentinel) -> Outcome<redis::aio::PubSubStream> {
    let hosts = servers.url().trim_start_matches("redis+sentinel://");
    let first = hosts.split([',', '/']).next().ok_or("a host")?;
    let mut subscription = redis::Client::open(format!("redis://{first}/"))?.get_async_pubsub().await?;
    subscription.subscribe("+switch-master").await?;
    Ok(subscription.split().1)
}

/// The group's slot goes from node to node, key by key, while members come and go.
async fn slots(moves: usize) -> Outcome<()> {
    let cluster = TestCluster::start().await?;
    let connect = || GroupConnector::builder(cluster.url()).group("bench").connect();
    let (group, watcher) = (connect().await?, connect().await?);
    let me = group.join("me").await?;
    let guard = group.lock("l").acquire().await?;
    let before = (me.incarnation(), guard.token());
    let mut events = watcher.events();
    let counting = async {
        let mut left = 0;
        while let Some(event) = events.next().await {
            left += usize::from(matches!(event, Event::Left { member, .. } if member.id() == "me"));
        }
        left
    };
    let moving = async {
        let mut times = Vec::new();
        for number in 0..moves {
            let owner = cluster.owner("{bench}").await?;
            cluster.move_slot("{bench}", (owner + 1) % 3).await?;
            let begun = Instant::now();
            let name = format!("m{number}");
            let member = group.timeout(PATIENCE).join(name.as_str()).await?;
            watcher.wait_for(PATIENCE, |view| view.contains(&name)).await?;
            times.push(begun.elapsed());
            member.leave().await?;
        }
        watcher.close().await?;
        Outcome::Ok(times)
    };
    let (left, times) = tokio::join!(counting, moving);
    tell("slots: the slot has moved, to a join that the watcher sees", &mut times?);
    let is_kept =
        timeout(PATIENCE, guard.held()).await? && (timeout(PATIENCE, me.held()).await?, guard.token()) == before;
    println!("  {left} false leaves; the lock and the incarnation are kept: {is_kept}");
    Ok(())
}

/// Joins and leaves a second, with many groups on one primary, and with as many on three.
async fn groups(count: usize) -> Outcome<()> {
    let cluster = TestCluster::start().await?;
    let one = cluster.owner("{g0}").await?;
    let (mut spread, mut together, mut number) = (Vec::new(), Vec::new(), 0_usize);
    while spread.len() < count || together.len() < count {
        let name = format!("g{number}");
        number += 1;
        let is_there = together.len() < count && cluster.owner(&format!("{{{name}}}")).await? == one;
        if spread.len() < count {
            spread.push(name.clone());
        }
        if is_there {
            together.push(name);
        }
    }
    let on_one = joins(&cluster, &together).await?;
    let on_three = joins(&cluster, &spread).await?;
    println!(
        "groups: {count} groups on one primary: {on_one:.0} joins and leaves a second; on three: {on_three:.0}, {:.2}x",
        on_three / on_one
    );
    Ok(())
}

async fn joins(cluster: &TestCluster, names: &[String]) -> Outcome<f64> {
    let mut groups = Vec::new();
    for name in names {
        groups.push(GroupConnector::builder(cluster.url()).group(name.as_str()).connect().await?);
    }
    let begun = Instant::now();
    let mut working: FuturesUnordered<_> = groups
        .iter()
        .flat_map(|group| (0..AT_ONCE).map(move |hand| (group, hand)))
        .map(|(group, hand)| async move {
            let mut done = 0_u32;
            while begun.elapsed() < COUNTED {
                let member = group.timeout(PATIENCE).join(format!("m{hand}")).await?;
                member.leave().await?;
                done += 1;
            }
            Outcome::Ok(done)
        })
        .collect();
    let mut done = 0;
    while let Some(more) = working.next().await {
        done += more?;
    }
    drop(working);
    let rate = f64::from(done) / begun.elapsed().as_secs_f64();
    for group in groups {
        group.close().await?;
    }
    Ok(rate)
}
