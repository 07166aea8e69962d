//! The peers, as contestants of `benches/bench`: each is a process that measures round after round.

#[path = "../../bench/clock.rs"]
#[expect(dead_code, reason = "the peers' own use of a core is not asked for")]
mod clock;
mod etcd;
#[path = "../../bench/process.rs"]
#[expect(dead_code, reason = "the peers send no signals")]
mod process;
mod redlock;
mod server;
#[path = "../../bench/watch.rs"]
mod watch;
#[path = "../../bench/way.rs"]
mod way;
mod zookeeper;

use serde_json::json;
use watch::Tally;
use way::{Outcome, say, serve};

fn main() -> Outcome<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // In a task, as in a service: a runtime's main thread is woken for everything that it waits for.
    let done = runtime.block_on(async { tokio::spawn(play(args)).await });
    runtime.shutdown_background();
    done?
}

async fn play(args: Vec<String>) -> Outcome<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--versions"] => {
            let versions = json!({ "etcd": etcd::version().await, "ZooKeeper": zookeeper::version() });
            say(&versions.to_string())
        }
        ["--way", way, url, scale] => {
            let went = be_way(way, url, scale == "quick").await;
            went.or_else(|reason| say(&reason.to_string()))
        }
        ["--watch", "etcd", url, prefix, every] => etcd::watch(url, prefix, Tally::new(every.parse()?)).await,
        ["--watch", "zookeeper", url, path, every] => zookeeper::watch(url, path, Tally::new(every.parse()?)).await,
        _ => Err(format!("no role: {}", args.join(" ")).into()),
    }
}

async fn be_way(way: &str, redis: &str, is_quick: bool) -> Outcome<()> {
    // As often as ours.
    let (members, locks) = if is_quick { (50, 100) } else { (150, 200) };
    match way {
        "rslock-locks" => serve(redlock::Locks::begin(redis, locks)).await,
        "etcd-membership" => serve(etcd::Members::begin(members).await?).await,
        "etcd-locks" => serve(etcd::Locks::begin(locks / 4).await?).await,
        "etcd-crash" => serve(etcd::Crash::begin().await?).await,
        "zookeeper-membership" => serve(zookeeper::Members::begin(members).await?).await,
        "zookeeper-crash" => serve(zookeeper::Crash::begin().await?).await,
        _ => Err(format!("nobody knows how to measure {way}").into()),
    }
}
