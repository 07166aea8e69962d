//! Breaks the library on purpose, in every way its servers and its clients can break, and looks whether what it promises
//! stays true.
//!
//! `nemesis --minutes N [--topology T] [--seed S] [--json]` runs; `nemesis --check FILE` judges a history again. The same
//! program is its own worker.

mod chance;
mod checkers;
mod faults;
mod history;
mod inject;
mod plan;
mod promotions;
mod queues;
mod reign;
mod servers;
mod stage;
mod stall;
mod summary;
mod topology;
mod truth;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chance::Chance;
use history::What;
use plan::Fault;
use stage::{Stage, Worker};
use tokio::time::{sleep, timeout};
use topology::Topology;

const WORKERS: usize = 8;
/// After so many rounds of faults a quiet window comes.
const ROUNDS: usize = 2;
/// By how much numbers may rise between a look at them and a fault.
const UNDER_WAY: u64 = 1_000_000;
/// How much longer than wanted a run may take until its last window is over.
const GRACE: Duration = Duration::from_secs(180);

struct Settings {
    topology: Topology,
    time: Duration,
    seed: u64,
    json: bool,
    /// Where the history goes, whatever is found.
    keep: Option<PathBuf>,
    only: Option<String>,
    /// What a violation that ends the run begins with: the name of a checker, or nothing for any.
    first: Option<String>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "worker") {
        worker::run(&args[1..]);
        return ExitCode::SUCCESS;
    }
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    if let Some(file) = value("--check") {
        let lines = history::load(&PathBuf::from(file)).expect("a history");
        return summary::judge(&lines, 0, Duration::ZERO, true);
    }
    let Some(minutes) = value("--minutes").and_then(|minutes| minutes.parse::<f64>().ok()) else {
        eprintln!(
            "nemesis --minutes N [--topology standalone|sentinel|cluster] [--seed S] [--only FAULT,..] [--first [CHECKER]] [--keep FILE] [--json] | nemesis --check FILE"
        );
        return ExitCode::from(2);
    };
    let named = value("--topology").map_or("standalone", String::as_str);
    let Some(topology) = Topology::by_name(named) else {
        eprintln!("there is no topology {named}: standalone, sentinel or cluster");
        return ExitCode::from(2);
    };
    let settings = Settings {
        topology,
        time: Duration::from_secs_f64(minutes * 60.0),
        seed: value("--seed").and_then(|seed| seed.parse().ok()).unwrap_or(1),
        json: args.iter().any(|arg| arg == "--json"),
        keep: value("--keep").map(PathBuf::from),
        only: value("--only").cloned(),
        first: args.iter().any(|arg| arg == "--first").then(|| {
            let checker = value("--first").filter(|named| !named.starts_with("--"));
            checker.cloned().unwrap_or_default()
        }),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run(&settings))
}

async fn run(settings: &Settings) -> ExitCode {
    let clocks = std::env::var_os("NEMESIS_CLOCKS").map(PathBuf::from).unwrap_or_default();
    let stage = Stage::new(settings.topology, WORKERS, clocks).await;
    let history = stage.history.clone();
    stall::watch(move |ms| history.note(What::Stall { ms }));
    let playing = async {
        tokio::select! {
            () = queues::watch(&stage) => {}
            () = reign::watch(&stage) => {}
            () = play(&stage, settings) => {}
        }
    };
    if timeout(settings.time + GRACE, playing).await.is_err() {
        stage.history.note(What::Overran);
    }
    for worker in &stage.workers {
        stage.kill(worker).await;
    }
    let lines = stage.history.lines();
    if let Some(path) = &settings.keep {
        history::save(&lines, path).expect("to keep the history");
    }
    summary::judge(&lines, settings.seed, settings.time, settings.json)
}

async fn play(stage: &Stage, settings: &Settings) {
    let mut chance = Chance::new(settings.seed);
    let end = Instant::now() + settings.time;
    let named =
        |fault: &&Fault| settings.only.as_ref().is_none_or(|only| only.split(',').any(|name| name == fault.name));
    let all: Vec<&Fault> = settings.topology.faults().into_iter().filter(named).collect();
    let mut deck: Vec<&Fault> = Vec::new();
    quiet(stage).await;
    while Instant::now() < end {
        for _ in 0..ROUNDS {
            let first = draw(&mut deck, &all, &mut chance);
            // A clock that is set back while data are lost is more than can be promised.
            let fits = |second: &Fault| !first.clock && !second.clock && (first.single || second.single);
            let second = match (chance.from(0, 3) == 0).then(|| draw(&mut deck, &all, &mut chance)) {
                Some(unfit) if !fits(unfit) => {
                    deck.push(unfit);
                    None
                }
                second => second,
            };
            let (mut one, mut two) = (Chance::new(chance.from(0, u64::MAX)), Chance::new(chance.from(0, u64::MAX)));
            let pick = |chance: &mut Chance| {
                &stage.workers[usize::try_from(chance.from(0, WORKERS as u64)).unwrap_or_default()]
            };
            let (on, other) = (pick(&mut one), pick(&mut two));
            match second {
                Some(second) if !(std::ptr::eq(on, other) && first.single && second.single) => {
                    tokio::join!(fire(stage, first, on, one), fire(stage, second, other, two));
                }
                _ => fire(stage, first, on, one).await,
            }
            stage.workers.iter().for_each(|worker| stage.start(worker));
            sleep(Duration::from_millis(chance.from(100, 1000))).await;
        }
        quiet(stage).await;
        let ends = |first: &String| checkers::all(&stage.history.lines()).iter().any(|found| found.starts_with(first));
        if settings.first.as_ref().is_some_and(ends) {
            return;
        }
    }
}

/// Each fault once before any comes again.
fn draw<'a>(deck: &mut Vec<&'a Fault>, all: &[&'a Fault], chance: &mut Chance) -> &'a Fault {
    if deck.is_empty() {
        deck.extend(all);
    }
    deck.swap_remove(usize::try_from(chance.from(0, deck.len() as u64)).unwrap_or_default())
}

async fn fire(stage: &Stage, fault: &Fault, on: &Worker, mut chance: Chance) {
    let names = if fault.single { vec![on.name.clone()] } else { Vec::new() };
    stage.history.note(What::Fault { fault: fault.name.into(), on: names.clone() });
    let before = stage.stamp().await;
    let effective = inject::inject(stage, fault, on, &mut chance).await;
    // Where data were lost after the clock had been ahead, numbers begin again below those of before.
    let stamp = match (before, stage.stamp().await) {
        (Some(before), Some(after)) if before > after => Some(before + UNDER_WAY),
        (_, after) => after,
    };
    stage.history.note(What::Healed { fault: fault.name.into(), on: names, effective, stamp });
}

async fn quiet(stage: &Stage) {
    stage.history.note(What::Quiet { begins: true });
    truth::compare(stage).await;
    stage.history.note(What::Quiet { begins: false });
}
