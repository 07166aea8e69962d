//! A member, or a holder of locks, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use group_redis::{Error, GroupConnector};
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc;

use crate::{Outcome, PATIENCE};

/// What a member process does: it joins, says what becomes of it, and ends with its standard input.
pub(crate) async fn run(args: Vec<String>) -> ExitCode {
    match live(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("member: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn live(args: &[String]) -> Result<(), Error> {
    let [url, group, name, ttl] = args else { std::process::exit(2) };
    let ttl = Duration::from_millis(ttl.parse().unwrap_or(2000));
    let group = GroupConnector::builder(url).group(group).ttl(ttl).connect().await?;
    let me = group.join(name).metadata(&std::process::id()).await?;
    println!("joined");
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) if line == "leave" => {
                    me.leave().await?;
                    println!("left");
                    return group.close().await;
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => std::process::exit(1),
            },
            cause = me.lost() => {
                println!("lost: {cause}");
                if me.held().await.is_some() {
                    println!("held again");
                }
            }
        }
    }
}

/// Such a process, as its parent sees it.
pub(crate) struct Process {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Process {
    pub(crate) fn start(role: &str, url: &str, group: &str, name: &str, ttl: Duration) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role, url, group, name, &ttl.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, lines) = mpsc::unbounded_channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        Ok(Self { child, lines })
    }

    /// Waits for a line that begins so.
    pub(crate) async fn line(&mut self, start: &str) -> Outcome<String> {
        let waiting = async {
            while let Some(line) = self.lines.recv().await {
                if line.starts_with(start) {
                    return Ok(line);
                }
            }
            Err(format!("a process ended before it said {start:?}").into())
        };
        tokio::time::timeout(PATIENCE, waiting).await?
    }

    pub(crate) fn tell(&mut self, word: &str) -> Outcome<()> {
        let stdin = self.child.stdin.as_mut().ok_or("its input is closed")?;
        Ok(writeln!(stdin, "{word}")?)
    }

    pub(crate) fn signal(&self, signal: &str) -> Outcome<()> {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("kill {signal}: {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killed also where it is frozen; one that is gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
