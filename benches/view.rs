//! What the members cost to read, and what a change of one of them costs, in groups of 1 000 to 100 000.
//!
//! `cargo bench --features testing --bench view` asks a connector beside a Redis. With
//! `RUSTFLAGS="--cfg group_redis_bench"` it also looks inside: what a change costs the view alone, and how much memory a
//! member takes in it.

#![cfg_attr(group_redis_bench, expect(clippy::print_stdout, reason = "its output is what it is for"))]

use std::future::IntoFuture;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use dashmap::DashMap;
use futures_util::{StreamExt, TryStreamExt};
use group_redis::testing::TestRedis;
use group_redis::{Error, Event, Events, GroupConnector, Member, MemberId, Membership, View};
use tokio::runtime::Runtime;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const THREADS: usize = 8;
/// How many members are looked up in turn.
const ASKED: usize = 4096;
/// How many joins are under way at once.
const JOINS: usize = 512;

/// A group with members of one connector, and another connector that watches.
struct Group {
    owner: GroupConnector,
    watcher: GroupConnector,
    events: Events,
    one: Membership,
    names: Vec<String>,
}

impl Group {
    async fn of(server: &TestRedis, size: usize) -> Result<Self, Error> {
        let builder = || GroupConnector::builder(server.url()).group(size.to_string()).ttl(Duration::from_secs(60));
        let connect = || builder().connect();
        let (watcher, owner) = (connect().await?, connect().await?);
        let joins = (1..size).map(|number| owner.join(format!("worker-{number}")).into_future());
        futures_util::stream::iter(joins).buffer_unordered(JOINS).try_for_each(async |_| Ok(())).await?;
        let one = owner.join("worker-0").await?;
        watcher.wait_for(Duration::from_secs(60), |view| view.len() == size).await?;
        let names = (0..ASKED).map(|number| format!("worker-{}", number * 7919 % size)).collect();
        Ok(Self { events: watcher.events(), owner, watcher, one, names })
    }

    /// How long it takes until the watcher has seen so many updates of one member, one after the other.
    async fn updates_seen(&mut self, count: u64) -> Result<Duration, Error> {
        let mut took = Duration::ZERO;
        for number in 0..count {
            let began = Instant::now();
            self.one.update(&number).await?;
            while let Some(event) = self.events.next().await {
                if matches!(event, Event::Updated { .. }) {
                    break;
                }
            }
            took += began.elapsed();
        }
        Ok(took)
    }
}

/// How long one reading takes while eight threads read at once.
fn at_once(count: u64, read: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(THREADS + 1);
    let read_all = || {
        barrier.wait();
        (0..usize::try_from(count).unwrap_or(usize::MAX)).for_each(&read);
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(read_all)).collect();
        barrier.wait();
        let began = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().expect("it reads"));
        began.elapsed()
    })
}

type Benches<'a> = BenchmarkGroup<'a, WallTime>;

/// One reading, by one thread and by eight.
fn reading(benches: &mut Benches<'_>, what: &str, size: usize, read: impl Fn(usize) + Sync) {
    benches.bench_function(BenchmarkId::new(what, size), |bench| {
        let mut turn = 0;
        bench.iter(|| {
            turn += 1;
            read(turn);
        });
    });
    benches.bench_function(BenchmarkId::new(format!("{what} by {THREADS} threads"), size), |bench| {
        bench.iter_custom(|count| at_once(count, &read));
    });
}

fn readings(benches: &mut Benches<'_>, size: usize, group: &Group) {
    let (watcher, view) = (&group.watcher, group.watcher.members());
    let name = |turn: usize| &*group.names[turn % ASKED];
    let bare: ArcSwap<View> = ArcSwap::new(view.clone());
    reading(benches, "bare ArcSwap load", size, |_| _ = black_box(bare.load().len()));
    reading(benches, "members()", size, |_| _ = black_box(watcher.members().len()));
    let bare: DashMap<MemberId, Arc<Member>> =
        view.iter().map(|member| (member.id().clone(), member.clone())).collect();
    reading(benches, "bare DashMap get", size, |turn| {
        black_box(bare.get(name(turn)).map(|member| member.value().clone()));
    });
    reading(benches, "member(name)", size, |turn| _ = black_box(watcher.member(name(turn))));
    reading(benches, "View::get", size, |turn| _ = black_box(view.get(name(turn))));
    benches.bench_function(BenchmarkId::new("oldest", size), |bench| bench.iter(|| black_box(view.oldest().is_some())));
}

fn walks(benches: &mut Benches<'_>, size: usize, view: &View) {
    benches.throughput(Throughput::Elements(size as u64));
    let list: Vec<_> = view.iter().cloned().collect();
    let count = |members: &mut dyn Iterator<Item = &Arc<Member>>| members.filter(|member| member.is_adopted()).count();
    benches.bench_function(BenchmarkId::new("a list of its members", size), |bench| {
        bench.iter(|| black_box(count(&mut list.iter())));
    });
    benches.bench_function(BenchmarkId::new("a view", size), |bench| bench.iter(|| black_box(count(&mut view.iter()))));
}

/// The view without a server.
#[cfg(group_redis_bench)]
fn changes(criterion: &mut Criterion) {
    for size in SIZES {
        let mut group = group_redis::bench::Group::new(size);
        let before = resident();
        group.fill();
        let each = resident().zip(before).map(|(after, before)| after.saturating_sub(before) / size);
        println!("with {size} members, one takes {each:?} bytes beside its own in the view");
        let mut benches = criterion.benchmark_group("change");
        benches.bench_function(BenchmarkId::new("update", size), |bench| bench.iter(|| group.update()));
        benches.bench_function(BenchmarkId::new("leave and join", size), |bench| bench.iter(|| group.restart()));
        assert_eq!(group.view().len(), size);
    }
}

/// How much memory this process has, in bytes.
#[cfg(group_redis_bench)]
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse::<usize>().ok().map(|kib| kib * 1024)
}

fn served(criterion: &mut Criterion) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::new()?;
    let server = runtime.block_on(TestRedis::start())?;
    let groups = SIZES.map(|size| runtime.block_on(Group::of(&server, size)).map(|group| (size, group)));
    for group in groups {
        let (size, mut group) = group?;
        readings(&mut criterion.benchmark_group("read"), size, &group);
        walks(&mut criterion.benchmark_group("walk"), size, &group.owner.members());
        criterion.benchmark_group("seen").bench_function(BenchmarkId::new("update", size), |bench| {
            bench.iter_custom(|count| runtime.block_on(group.updates_seen(count)).expect("a server that answers"));
        });
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo test` runs benches too, with an argument that says so: there is nothing to assert here.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let (warm_up, measurement) = (Duration::from_millis(500), Duration::from_secs(2));
    let criterion = Criterion::default().sample_size(20).warm_up_time(warm_up).measurement_time(measurement);
    let mut criterion = criterion.configure_from_args();
    #[cfg(group_redis_bench)]
    changes(&mut criterion);
    served(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
