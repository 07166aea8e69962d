//! The contestants' processes, asked in turn.

use std::path::PathBuf;
use std::time::Instant;

use futures_util::future::join_all;
use group_redis::testing::TestRedis;

use super::judge::Measured;
use super::subject::{By, Contestant, Scale, Subject};
use crate::process::Process;
use crate::way::{Figures, Outcome};

pub(super) struct Programs {
    this: PathBuf,
    before: Option<PathBuf>,
    pub(super) peers: Option<PathBuf>,
}

impl Programs {
    pub(super) fn new(before: Option<PathBuf>, peers: Option<PathBuf>) -> Outcome<Self> {
        Ok(Self { this: std::env::current_exe()?, before, peers })
    }

    fn of(&self, by: By) -> Option<&PathBuf> {
        match by {
            By::Ours | By::Base => Some(&self.this),
            By::Before => self.before.as_ref(),
            By::Peer => self.peers.as_ref(),
        }
    }
}

struct Runner {
    label: String,
    /// Or why it has ended.
    process: Result<Process, String>,
    rounds: Vec<Figures>,
}

impl Runner {
    async fn round(&mut self) {
        let Ok(process) = &mut self.process else { return };
        match ask(process).await {
            Ok(figures) => self.rounds.push(figures),
            Err(reason) => {
                eprintln!("bench: {} has failed: {reason}", self.label);
                self.process = Err(reason.to_string());
            }
        }
    }
}

async fn ask(process: &mut Process) -> Outcome<Figures> {
    process.tell("round").await?;
    let line = process.line().await?;
    Ok(serde_json::from_str(&line).map_err(|_| line)?)
}

/// As the connectors would set it, and nobody has to while others measure.
async fn server() -> Outcome<TestRedis> {
    Ok(TestRedis::builder().args(["--notify-keyspace-events", "K$gxe"]).start().await?)
}

pub(super) async fn measure(subject: &Subject, programs: &Programs, scale: Scale, end: Instant) -> Outcome<Measured> {
    let (mut servers, mut runners) = (Vec::new(), Vec::new());
    for contestant in &subject.contestants {
        let Some(program) = programs.of(contestant.by) else { continue };
        if subject.own_servers || servers.is_empty() {
            servers.push(server().await?);
        }
        let url = servers.last().ok_or("a server")?.url();
        let args = ["--way", &contestant.way, url, scale.name()];
        let process = Process::start_of(program, &args).await.map_err(|reason| reason.to_string());
        runners.push(runner(contestant, process));
    }
    for round in 0..subject.rounds {
        if round > 0 && Instant::now() >= end {
            break;
        }
        if subject.at_once {
            join_all(runners.iter_mut().map(Runner::round)).await;
            continue;
        }
        // Back and forth, so that none is always the one after the same other.
        runners.reverse();
        for runner in &mut runners {
            runner.round().await;
        }
    }
    let mut measured = Vec::new();
    for Runner { label, process, rounds } in runners {
        match process {
            Ok(process) => {
                process.end().await?;
                measured.push((label, Ok(rounds)));
            }
            Err(reason) => measured.push((label, Err(reason))),
        }
    }
    Ok(measured)
}

fn runner(contestant: &Contestant, process: Result<Process, String>) -> Runner {
    if let Err(reason) = &process {
        eprintln!("bench: {} cannot begin: {reason}", contestant.label);
    }
    Runner { label: contestant.label.clone(), process, rounds: Vec::new() }
}
