//! A server as a child process.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::Client;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::backend::{SERVER, setting};
use super::plan::{Endpoint, Plan};
use super::probe::{self, Identity, PAUSE, Port};
use super::{TestRedisError, guard, log};

/// How long a killed server, or one told to shut down, may take to be gone.
const END: Duration = Duration::from_secs(20);
/// How much of the log an error shows.
const LOG_LINES: usize = 5;

/// Starts the server, writes its process id to a file and waits for its end. A second shell waits for the end of
/// standard input, which is a pipe from the test: however the test ends, that pipe closes, and the server dies with it.
/// That shell is gone before the server's process id can be another process's.
const SCRIPT: &str = r#"
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- >"$folder/log" 2>&1 &
server=$!
(while read -r _; do :; done <&3; rm -rf "$folder"; kill -9 "$server") >/dev/null 2>&1 &
guard=$!
exec 3<&- </dev/null
echo "$server" >"$folder/pid"
wait "$server"
status=$?
kill -9 "$guard"
exit "$status"
"#;

/// A running server; dropped, it is killed and its folder removed.
pub(super) struct Process {
    guard: Child,
    folder: Arc<TempDir>,
    pid: Option<u32>,
}

/// The server binary to run.
pub(super) fn binary() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| {
        let name = Path::new(name);
        let folders = std::env::split_paths(&path).map(|folder| folder.join(name));
        // A name with a folder in it is not looked up.
        if name.components().count() > 1 {
            name.is_file().then(|| name.into())
        } else {
            folders.into_iter().find(|file| file.is_file())
        }
    };
    match setting(SERVER) {
        Some(named) => find(&named).ok_or_else(|| format!("there is no {named}, which {SERVER} names")),
        None => find("redis-server").or_else(|| find("valkey-server")).ok_or_else(|| {
            format!("neither redis-server nor valkey-server is on the PATH; install one, or name it by {SERVER}")
        }),
    }
}

/// Where it listens.
pub(super) const HOST: &str = "127.0.0.1";

/// An empty folder for a server.
pub(super) fn folder() -> Result<TempDir, TestRedisError> {
    let made = tempfile::Builder::new().prefix("group-redis-test-").tempdir();
    made.map_err(|error| TestRedisError::refused("making a folder for the server", error))
}

impl Process {
    /// Starts a server on what the folder holds, and waits until it answers.
    pub(super) async fn start(
        binary: &Path,
        plan: &Plan,
        endpoint: &Endpoint,
        port: u16,
        folder: Arc<TempDir>,
    ) -> Result<(Self, Identity), TestRedisError> {
        let mut args: Vec<OsString> = ["--bind", HOST, "--save", "", "--dir"].map(OsString::from).into();
        args.push(folder.path().into());
        args.extend(plan.args(port).into_iter().map(OsString::from));
        Self::run(binary, &args, &endpoint.own, port, folder).await
    }

    /// The same with these arguments and no others.
    pub(super) async fn run(
        binary: &Path,
        args: &[OsString],
        client: &Client,
        port: u16,
        folder: Arc<TempDir>,
    ) -> Result<(Self, Identity), TestRedisError> {
        // Of an earlier server in this folder.
        let _ = fs::remove_file(folder.path().join("pid"));
        let mut command = guard::command(SCRIPT);
        command.arg(folder.path()).arg(binary).args(args);
        let guard = command.spawn().map_err(|error| TestRedisError::refused("starting the server", error))?;
        let mut process = Self { guard, folder, pid: None };
        let identity = probe::wait_until_ready(client, async || process.is_there(port)).await?;
        Ok((process, identity))
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Another server may have the port: it answers until ours ends for that reason, and may ask for a password.
    fn is_there(&mut self, port: u16) -> Result<Port, TestRedisError> {
        let ended = self.ended()?;
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        if let Some(status) = ended {
            let is_taken = log::is_port_taken(&text, port);
            return Err(if is_taken { TestRedisError::PortTaken(port) } else { ended_by_itself(status, &text) });
        }
        // The file is complete when its line is.
        let written = fs::read_to_string(self.folder.path().join("pid")).ok();
        let written = written.as_deref().and_then(|line| line.strip_suffix('\n'));
        self.pid = written.and_then(|pid| pid.parse().ok());
        Ok(Port::of(self.pid, log::listens(&text)))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, TestRedisError> {
        self.guard.try_wait().map_err(|error| TestRedisError::refused("waiting for the end of the server", error))
    }

    /// Sends a signal to the server by the shell's own `kill`, since the program of that name may be missing.
    pub(super) async fn signal(&self, signal: &str) -> Result<(), TestRedisError> {
        let pid = self.pid.unwrap_or_default();
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal, &pid.to_string()])
            .stderr(Stdio::null())
            .status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(TestRedisError::refused("sending a signal to the server", status.to_string())),
            Err(error) => Err(TestRedisError::refused("sending a signal to the server", error)),
        }?;
        if signal == "STOP" {
            self.wait_until_stopped(pid).await?;
        }
        Ok(())
    }

    /// A signal is on its way for a moment. Where there is no `/proc`, that moment is the test's.
    async fn wait_until_stopped(&self, pid: u32) -> Result<(), TestRedisError> {
        let deadline = Instant::now() + END;
        while let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            if stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(TestRedisError::Timeout("freezing the server", END, stat));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Waits for the end of a server that is about to end; answers its folder, with what it saved.
    pub(super) async fn wait_for_end(mut self) -> Result<Arc<TempDir>, TestRedisError> {
        let deadline = Instant::now() + END;
        while self.ended()?.is_none() {
            if Instant::now() >= deadline {
                return Err(TestRedisError::Timeout("the end of the server", END, "it still runs".to_owned()));
            }
            sleep(PAUSE).await;
        }
        Ok(self.folder.clone())
    }
}

fn ended_by_itself(status: ExitStatus, log: &str) -> TestRedisError {
    let lines: Vec<_> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    TestRedisError::ended(&format!("{status}; {}", last.join(" | ")))
}

impl Drop for Process {
    fn drop(&mut self) {
        guard::end(&mut self.guard, END);
    }
}
