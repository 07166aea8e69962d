//! What it costs to read the members from memory.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use group_redis::{GroupConnector, Member, View};

use crate::clock;
use crate::harness::{Goal, Scale, Subject, ours as by_ours, row};
use crate::ours;
use crate::way::{Figures, Outcome, Way};

const THREADS: usize = 8;

pub(crate) fn subject(scale: Scale) -> Subject {
    let (few, many) = (10, scale.pick(1_000, 100_000));
    let big = format!("{many} members");
    let small = format!("{few} members");
    let view =
        |label: &str, threads: usize| row(format!("members(), {label}{}", by(threads)), label, &view_by(threads));
    let name =
        |label: &str, threads: usize| row(format!("member(id), {label}{}", by(threads)), label, &name_by(threads));
    let mut rows = Vec::new();
    for threads in [1, THREADS] {
        for label in [&small, &big] {
            let (swap, map) = (format!("ArcSwap{}", by(threads)), format!("DashMap{}", by(threads)));
            rows.push(view(label, threads).against(label, &swap, Goal::AtMost(2.0)).base_is("ArcSwap::load"));
            rows.push(name(label, threads).against(label, &map, Goal::AtMost(1.2)).base_is("DashMap::get, cloned"));
            rows.push(view(label, threads).against_before(Goal::None));
            rows.push(name(label, threads).against_before(Goal::None));
        }
    }
    rows.push(view(&big, 1).against(&small, &view_by(1), Goal::None));
    rows.push(name(&big, 1).against(&small, &name_by(1), Goal::None));
    Subject::new("reads", scale.pick(5, 15))
        .compares([by_ours(&small, &format!("reads:{few}")), by_ours(&big, &format!("reads:{many}"))])
        .rows(rows)
}

fn by(threads: usize) -> String {
    if threads == 1 { String::new() } else { format!(", {threads} threads") }
}

fn view_by(threads: usize) -> String {
    format!("members(){}", by(threads))
}

fn name_by(threads: usize) -> String {
    format!("member(id){}", by(threads))
}

pub(crate) struct Reads {
    group: GroupConnector,
    swap: ArcSwap<View>,
    map: DashMap<String, Arc<Member>>,
    times: usize,
}

impl Reads {
    pub(crate) async fn begin(url: &str, scale: Scale, count: usize) -> Outcome<Self> {
        let group = ours::builder(url, &ours::own_group()).connect().await?;
        ours::join_all(&group, (0..count).map(|number| format!("m{number}"))).await?;
        let view = group.wait_for(ours::PATIENCE, |view| view.len() == count).await?;
        let map = view.iter().map(|member| (member.id().to_string(), member.clone())).collect();
        Ok(Self { group, swap: ArcSwap::new(view), map, times: scale.pick(50_000, 200_000) })
    }

    /// Seconds a call, where so many threads call at the same time.
    fn each(&self, threads: usize, call: impl Fn() + Sync) -> f64 {
        let times = self.times / threads;
        let took = || {
            let began = clock::now();
            for _ in 0..times {
                call();
            }
            clock::now() - began
        };
        let took: f64 = thread::scope(|scope| {
            let calling: Vec<_> = (0..threads).map(|_| scope.spawn(took)).collect();
            calling.into_iter().filter_map(|thread| thread.join().ok()).sum()
        });
        took / (times * threads) as f64
    }
}

impl Way for Reads {
    async fn round(&mut self) -> Outcome<Figures> {
        let mut all = Figures::new();
        for threads in [1, THREADS] {
            let swap = self.each(threads, || drop(black_box(self.swap.load())));
            let view = self.each(threads, || drop(black_box(self.group.members())));
            let map = self.each(threads, || drop(black_box(self.map.get(black_box("m7")).map(|found| found.clone()))));
            let name = self.each(threads, || drop(black_box(self.group.member(black_box("m7")))));
            all.insert(format!("ArcSwap{}", by(threads)), vec![swap]);
            all.insert(view_by(threads), vec![view]);
            all.insert(format!("DashMap{}", by(threads)), vec![map]);
            all.insert(name_by(threads), vec![name]);
        }
        Ok(all)
    }
}
