//! What things cost, beside what else a user would pick, and beside an older build: `scripts/bench` builds what is needed
//! and starts this.
//!
//! `cargo bench --features testing --bench bench -- [--quick] [--json] [--only SUBJECT,..]`
//!
//! Each contestant is a process: this program once more, with a word that says in which role.

mod base;
mod clock;
mod crash;
mod crowd;
mod hand_over;
mod harness;
mod hello;
mod idle;
mod kill;
mod large;
mod locks;
mod membership;
mod ours;
mod process;
mod reads;
mod watch;
mod way;

use harness::{Order, Scale, Subject};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use watch::Tally;
use way::{Outcome, say, serve};

fn main() -> Outcome<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test` runs benches too, with an argument that says so: there is nothing to assert here.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    // Each connector has three connections.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        if args.first().is_some_and(|word| ROLES.contains(&word.as_str())) {
            // In a task, as in a service: a runtime's main thread is woken for everything that it waits for.
            return tokio::spawn(play(args)).await?;
        }
        let order = order(&args)?;
        let subjects = subjects(order.scale);
        harness::run(order, subjects).await
    });
    // Connectors that are dropped give back in the background, and nobody waits for that here.
    runtime.shutdown_background();
    done
}

const ROLES: [&str; 5] = ["--way", "--watch", "--worker", "--weigh", "--victims"];

async fn play(args: Vec<String>) -> Outcome<()> {
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["--way", way, url, scale] => {
            let went = be_way(way, url, Scale::of(scale)).await;
            went.or_else(|reason| say(&reason.to_string()))
        }
        ["--watch", "ours", url, group, every] => ours::watch(url, group, Tally::new(every.parse()?)).await,
        ["--watch", _, url, group, every] => base::watch(url, group, Tally::new(every.parse()?)).await,
        ["--worker", url, group] => hand_over::work(url, group).await,
        ["--weigh", url, group, members] => large::weigh(url, group, members.parse()?).await,
        ["--victims", url, group, ttl, connectors, members] => {
            crash::be_victims(url, group, ttl, connectors, members).await
        }
        _ => Err(format!("no role: {}", args.join(" ")).into()),
    }
}

fn order(args: &[String]) -> Outcome<Order> {
    let mut order = Order::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut next = || words.next().cloned().ok_or_else(|| format!("{word} what?"));
        match word.as_str() {
            "--quick" => order.scale = Scale::Quick,
            "--json" => order.json = true,
            "--only" => order.only = next()?.split(',').map(str::to_owned).collect(),
            "--before" => order.before = Some(next()?.into()),
            "--peers" => order.peers = Some(next()?.into()),
            "--revision" => order.revision = Some(next()?),
            "--before-revision" => order.before_revision = Some(next()?),
            "--left-out" => order.left_out.push(next()?),
            other => return Err(format!("it does not know {other}").into()),
        }
    }
    Ok(order)
}

/// In the order of what matters most: where time runs out, the last are left out.
fn subjects(scale: Scale) -> Vec<Subject> {
    let mut subjects = vec![
        membership::subject(scale),
        locks::subject(scale),
        locks::many_tasks(scale),
        hand_over::subject(scale, 2),
        hand_over::subject(scale, 50),
        reads::subject(scale),
        crash::subject(scale, 0),
        crash::subject(scale, 100_000),
        kill::subject(scale),
        large::burst(scale),
        crash::all_at_once(scale),
        crowd::subject(scale, scale.pick(100, 300)),
        idle::subject(scale),
        large::joins(scale),
        large::at_rest(scale),
    ];
    if scale == Scale::Full {
        subjects.extend([crowd::subject(scale, 1000), hello::subject(scale), crash::subject(scale, 1_000_000)]);
    }
    subjects
}

/// What a contestant is told to measure, and, behind a colon, how many.
async fn be_way(way: &str, url: &str, scale: Scale) -> Outcome<()> {
    let (name, count) = way.split_once(':').unwrap_or((way, "0"));
    if name == "hello" {
        return serve(hello::Hello::begin(count).await?).await;
    }
    let count = count.parse()?;
    match name {
        "pings" => serve(base::Pings::begin(url, membership::times(scale)).await?).await,
        "membership" => serve(membership::Ours::begin(url, scale).await?).await,
        "bare-membership" => serve(membership::Bare::begin(url, scale).await?).await,
        "locks" => serve(locks::InTurn::<locks::Ours>::begin(url, scale).await?).await,
        "ping-pairs" => serve(locks::InTurn::<locks::Pings>::begin(url, scale).await?).await,
        "simplest-locks" => serve(locks::InTurn::<locks::Simplest>::begin(url, scale).await?).await,
        "tasks" => serve(locks::Together::<locks::Ours>::begin(url).await?).await,
        "ping-tasks" => serve(locks::Together::<locks::Pings>::begin(url).await?).await,
        "hand-over" => serve(hand_over::Ours::begin(url, scale, count).await?).await,
        "reads" => serve(reads::Reads::begin(url, scale, count).await?).await,
        "crash" => serve(crash::Ours::sessions(url, count).await?).await,
        "die" => serve(crash::Ours::members(url, count).await?).await,
        "bare-crash" => serve(crash::Bare::begin(url, count).await?).await,
        "kill" => serve(kill::Ours::begin(url, scale).await?).await,
        "burst" => serve(large::Burst::begin(url, count).await?).await,
        "bare-burst" => serve(large::BareBurst::begin(url, count).await?).await,
        "crowd" => serve(crowd::Ours::begin(url, count).await?).await,
        "bare-crowd" => serve(crowd::Bare::begin(url, count).await?).await,
        "large" => serve(large::Large::begin(url, scale, count).await?).await,
        "joins" => serve(large::Joins::begin(url, count).await?).await,
        "idle" => serve(idle::Ours::members(url, scale, count).await?).await,
        "idle-watchers" => serve(idle::Ours::watchers(url, scale, count).await?).await,
        "idle-pings" => serve(idle::Pings::begin(url, scale, count).await?).await,
        _ => Err(format!("nobody knows how to measure {way}").into()),
    }
}
