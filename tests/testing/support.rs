//! What the tests of the test server have in common.

#[cfg(feature = "tls")]
use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use group_redis::testing::TestRedis;
use redis::AsyncCommands;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so, asking every few milliseconds.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: it did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says what a test could not show with this server, past the capture of the test harness.
#[cfg(feature = "tls")]
pub(crate) fn not_shown(why: &dyn std::fmt::Display) {
    let _ = std::io::stderr().write_all(format!("not shown here: {why}\n").as_bytes());
}

pub(crate) fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Whether there is a process of this id, by the system's own words.
pub(crate) fn runs(pid: u32) -> bool {
    let sent = Command::new("sh").args(["-c", &format!("kill -0 {pid}")]).stderr(Stdio::null()).status();
    sent.expect("a shell").success()
}

pub(crate) async fn write(redis: &TestRedis, value: &str) {
    let mut connection = redis.connection().await.expect("a connection");
    connection.set::<_, _, ()>("key", value).await.expect("SET");
}

pub(crate) async fn read(redis: &TestRedis) -> Option<String> {
    redis.connection().await.expect("a connection").get("key").await.expect("GET")
}

/// One of the `scene_*` tests, in a process and with an environment of its own.
pub(crate) fn scene(name: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test's program"));
    command.args(["--exact", name, "--ignored", "--nocapture"]).stdin(Stdio::null());
    command.env_remove("GROUP_REDIS_TEST_URL").envs(environment.iter().copied());
    command
}

pub(crate) fn play(name: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let Output { status, stdout, stderr } = scene(name, environment).output().expect("a child process");
    let said = [stdout, stderr].map(|output| String::from_utf8_lossy(&output).into_owned()).join("\n");
    (status.success(), said)
}

/// A child that does not outlive a test that fails.
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder for the folders of a child's servers.
pub(crate) struct Scratch(String);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = format!("{}/{name}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).expect("the folder").next().is_none()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
