//! What things cost, as ratios to a PING of the same run: absolute times do not travel.
//!
//! `cargo bench --features testing`

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use group_redis::testing::TestRedis;
use group_redis::{Event, GroupConnector, redis};

const ROUNDS: usize = 500;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::main]
async fn main() -> Outcome<()> {
    // `cargo test` runs benches too, with an argument that says so: there is nothing to assert here.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let server = TestRedis::start().await?;
    let ping = ping(&server).await?;
    println!("PING                                    {ping:>10.1?}   1.0x");
    let show = |what: &str, time: Duration| {
        println!("{what:<38} {time:>10.1?} {:>5.1}x", time.as_secs_f64() / ping.as_secs_f64());
    };
    let connect = || GroupConnector::builder(server.url()).group("bench").connect();
    let (watcher, group) = (connect().await?, connect().await?);
    group.join("anchor").await?;

    let mut events = watcher.events();
    let (mut joining, mut joined, mut leaving, mut left) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let join = group.join("m");
        let me = join.await?;
        joining.push(began.elapsed());
        until(&mut events, |event| matches!(event, Event::Joined(member) if member.id() == "m")).await;
        joined.push(began.elapsed());
        let began = Instant::now();
        me.leave().await?;
        leaving.push(began.elapsed());
        until(&mut events, |event| matches!(event, Event::Left { .. })).await;
        left.push(began.elapsed());
    }
    show("join, answered", median(joining));
    show("join, seen by a watcher", median(joined));
    show("leave, answered", median(leaving));
    show("leave, seen by a watcher", median(left));
    let mut syncing = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        watcher.sync().await?;
        syncing.push(began.elapsed());
    }
    show("sync, nothing changed", median(syncing));

    for count in [10, 1000, 10_000] {
        for number in group.members().len()..count {
            group.join(format!("n{number}")).await?;
        }
        let began = Instant::now();
        for _ in 0..1_000_000 {
            black_box(group.members());
        }
        let members = began.elapsed() / 1_000_000;
        let began = Instant::now();
        for _ in 0..1_000_000 {
            black_box(group.member(black_box("n7")));
        }
        println!("with {count:>6} members: members() {members:?}, member(name) {:?}", began.elapsed() / 1_000_000);
    }
    Ok(())
}

async fn until(events: &mut group_redis::Events, wanted: impl Fn(&Event) -> bool) {
    while let Some(event) = events.next().await {
        if wanted(&event) {
            return;
        }
    }
}

async fn ping(server: &TestRedis) -> Outcome<Duration> {
    // As the connector's own connections are: without Nagle's delay.
    let client = redis::Client::open(server.url())?;
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(settings))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}
