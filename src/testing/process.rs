//! A server as a child process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::TestRedisError;

/// Starts the server, says its process id, waits until its own standard input ends, and kills it: however the test
/// ends, the pipe closes.
const GUARD: &str = r#"
folder=$1; shift
"$@" </dev/null >"$folder/log" 2>&1 &
server=$!
echo $server
cat >/dev/null
kill -9 $server 2>/dev/null
wait $server 2>/dev/null
case $folder in */group-redis-*) rm -rf "$folder";; esac
"#;

pub(super) struct Process {
    binary: String,
    args: Vec<String>,
    port: u16,
    folder: TempDir,
    guard: Option<Child>,
    pid: u32,
}

/// The first server binary that runs here.
pub(super) fn binary() -> Result<String, String> {
    let named = std::env::var("GROUP_REDIS_TEST_SERVER").ok();
    let candidates = named.map_or_else(|| vec!["redis-server".into(), "valkey-server".into()], |named| vec![named]);
    let runs = |name: &&String| {
        let run = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    candidates.iter().find(runs).cloned().ok_or_else(|| format!("{} is not installed", candidates.join(" or ")))
}

impl Process {
    pub(super) fn start(binary: String, args: &[String], port: u16) -> Result<Self, TestRedisError> {
        let folder = tempfile::Builder::new().prefix("group-redis-").tempdir();
        let folder = folder.map_err(|error| TestRedisError::refused("making a folder", error))?;
        let mut process = Self { binary, args: args.to_vec(), port, folder, guard: None, pid: 0 };
        process.run()?;
        Ok(process)
    }

    pub(super) fn run(&mut self) -> Result<(), TestRedisError> {
        let refused = |error| TestRedisError::refused("starting the server", error);
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(self.folder.path())
            .arg(&self.binary)
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string(), "--dir"])
            .arg(self.folder.path())
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(refused)?;
        let mut line = String::new();
        if let Some(stdout) = guard.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(refused)?;
        }
        self.guard = Some(guard);
        self.pid = line.trim().parse().map_err(|error| TestRedisError::refused("reading the process id", error))?;
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn signal(&self, signal: &'static str) -> Result<(), TestRedisError> {
        let status = Command::new("kill").args([signal, &self.pid.to_string()]).stderr(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(TestRedisError::refused("sending a signal", status.to_string())),
            Err(error) => Err(TestRedisError::refused("sending a signal", error)),
        }
    }

    /// Kills the server and keeps its folder.
    pub(super) fn kill(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        // The guard removes the folder when the test is gone; here it is the test that stops the server.
        let _ = self.signal("-KILL");
        let _ = guard.kill();
        let _ = guard.wait();
    }

    pub(super) fn forget_data(&self) {
        // Where there is none, there is none to forget.
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
