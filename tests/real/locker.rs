//! Locks in processes of their own, to be killed and frozen.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::support::{Fixture, PATIENCE};

pub(crate) struct Locker {
    pub(crate) name: String,
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// What it has said and nobody has asked for since.
    pub(crate) said: Vec<String>,
}

impl Locker {
    pub(crate) async fn start(fixture: &Fixture, name: &str, ttl: Duration) -> Self {
        let mut path = std::env::current_exe().expect("the path of the test");
        path.pop();
        path.pop();
        path.push("examples/locker");
        assert!(path.exists(), "{} is missing: run `cargo build --examples` first", path.display());
        let mut child = Command::new(path)
            .args([fixture.redis.url(), &fixture.group, name])
            .env("TTL_MS", ttl.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut locker = Self { name: name.to_owned(), child, lines, said: Vec::new() };
        locker.wait_for("ready").await;
        locker
    }

    pub(crate) fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its input");
        input.write_all(format!("{line}\n").as_bytes()).expect("its input is open");
    }

    /// Waits for a line that begins so; answers the words after it.
    pub(crate) async fn wait_for(&mut self, start: &str) -> Vec<String> {
        let waiting = async {
            while let Some(line) = self.lines.recv().await {
                self.said.push(line);
                if let Some(rest) = self.said.last().and_then(|line| line.strip_prefix(start)) {
                    return Some(rest.split_whitespace().map(str::to_owned).collect());
                }
            }
            None
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some(words)) => words,
            _ => panic!("{} did not say {start:?}, but:\n{}", self.name, self.said.join("\n")),
        }
    }

    pub(crate) async fn ask(&mut self, line: &str, start: &str) -> Vec<String> {
        self.say(line);
        self.wait_for(start).await
    }

    /// What it has said by now.
    pub(crate) fn history(&mut self) -> &[String] {
        while let Ok(line) = self.lines.try_recv() {
            self.said.push(line);
        }
        &self.said
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
