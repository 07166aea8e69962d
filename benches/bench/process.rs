//! Another process, of this program or of a like one, with which lines are exchanged.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::way::Outcome;

/// For one answer of another process.
const PATIENCE: Duration = Duration::from_secs(240);
/// For a process to end once its input has.
const FAREWELL: Duration = Duration::from_secs(5);

pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// This program once more, in another role, when it is ready.
    pub(crate) async fn start(args: &[&str]) -> Outcome<Self> {
        Self::start_of(&std::env::current_exe()?, args).await
    }

    pub(crate) async fn start_of(program: &Path, args: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut process = Self { child, input, output };
        match process.line().await?.as_str() {
            "ready" => Ok(process),
            other => Err(other.into()),
        }
    }

    pub(crate) async fn line(&mut self) -> Outcome<String> {
        Ok(timeout(PATIENCE, self.output.next_line()).await??.ok_or("it has ended")?)
    }

    pub(crate) async fn tell(&mut self, line: &str) -> Outcome<()> {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Outcome<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).ok_or("it has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Its input ends, and it with it; at once where it does not.
    pub(crate) async fn end(self) -> Outcome<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        if timeout(FAREWELL, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(())
    }
}
