//! Members in processes of their own, to be killed and frozen.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::support::{Fixture, PATIENCE};

pub(crate) struct Worker {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

/// `tests/workers/member.rs`, which cargo builds beside the tests.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().expect("the path of the test");
    path.pop();
    path.pop();
    path.push("examples/member");
    assert!(path.exists(), "{} is missing: run `cargo build --examples` first", path.display());
    path
}

impl Worker {
    /// So many connectors with so many members each. Answers when all have joined.
    pub(crate) async fn start(fixture: &Fixture, name: &str, ttl: Duration, connectors: usize, members: usize) -> Self {
        let mut child = Command::new(example())
            .args([fixture.redis.url(), &fixture.group, name])
            .env("TTL_MS", ttl.as_millis().to_string())
            .env("CONNECTORS", connectors.to_string())
            .env("MEMBERS", members.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut worker = Self { child, lines };
        worker.wait_for("ready").await;
        worker
    }

    /// Waits for a line that begins so.
    pub(crate) async fn wait_for(&mut self, start: &str) -> String {
        let mut history = Vec::new();
        let waiting = async {
            while let Some(line) = self.lines.recv().await {
                if line.starts_with(start) {
                    return Some(line);
                }
                history.push(line);
            }
            None
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some(line)) => line,
            _ => panic!("the worker did not say {start:?}, but:\n{}", history.join("\n")),
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    pub(crate) fn leave(&mut self) {
        self.child.stdin.as_mut().expect("its input").write_all(b"leave\n").expect("its input is open");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
