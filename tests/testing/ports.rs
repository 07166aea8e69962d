//! Who has the port of a server: a start never takes another server for its own, and waits for what comes late.

use std::fs;
use std::net::TcpListener;
use std::pin::pin;
use std::process::Command;
use std::time::{Duration, Instant};

use group_redis::testing::{Backend, TestRedis, TestRedisError};

use crate::support::{PATIENCE, Scratch, play, read, write};

/// How long a start has to be seen not to give up.
const MOMENT: Duration = Duration::from_millis(300);

async fn process() -> Option<TestRedis> {
    let started = TestRedis::builder().backend(Backend::Process).start().await;
    // A machine may have an engine only.
    started.ok().or_else(|| {
        eprintln!("no server program here: nothing to test");
        None
    })
}

/// A program that does something before it becomes the server; `$dir`, `$port` and `$server` are set.
fn wrapper(scratch: &Scratch, before: &str) -> String {
    let server = std::env::var("GROUP_REDIS_TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let path = format!("{}/server", scratch.path());
    let script = format!(
        "#!/bin/sh\nscratch='{}'; server='{server}'\n\
         for arg; do case $last in --dir) dir=$arg;; --port) port=$arg;; esac; last=$arg; done\n\
         {before}\nexec \"$server\" \"$@\"\n",
        scratch.path()
    );
    fs::write(&path, script).expect("a script");
    let made = Command::new("chmod").args(["+x", &path]).status().expect("chmod");
    assert!(made.success());
    path
}

/// The file with the server's process id comes 0.3 s after the server: every start and restart waits for it.
#[tokio::test]
async fn late_pid_file_is_waited_for() {
    if process().await.is_none() {
        return;
    }
    let scratch = Scratch::new("late");
    let late = r#"until [ -s "$dir/pid" ]; do sleep 0.01; done
mv "$dir/pid" "$dir/later"
(sleep 0.3; mv "$dir/later" "$dir/pid") &"#;
    let server = wrapper(&scratch, late);
    let environment = [("GROUP_REDIS_TEST_BACKEND", "process"), ("GROUP_REDIS_TEST_SERVER", server.as_str())];
    let (passed, said) = play("ports::scene_restarts", &environment);
    assert!(passed && said.contains("restarted"), "{said}");
}

/// At the first three starts another server, which answers for longer than a start takes, has the port.
#[tokio::test]
async fn another_server_on_the_port_is_not_taken() {
    if process().await.is_none() {
        return;
    }
    for protection in ["", "--requirepass secret"] {
        let scratch = Scratch::new(&format!("others{}", protection.len()));
        let others = Others(scratch);
        let first = r#"set -- "$@"
count=$(ls "$scratch" | grep -c other)
if [ "$count" -lt 3 ]; then
  "$server" --bind 127.0.0.1 --save '' --port "$port" PROTECTION >"$scratch/log" 2>&1 &
  echo "$!" >"$scratch/other-$count"
  until grep -q Ready "$scratch/log"; do sleep 0.01; done
  sleep 0.2
fi"#;
        let server = wrapper(&others.0, &first.replace("PROTECTION", protection));
        let environment = [("GROUP_REDIS_TEST_BACKEND", "process"), ("GROUP_REDIS_TEST_SERVER", server.as_str())];
        let (passed, said) = play("ports::scene_restarts", &environment);
        assert!(passed && said.contains("restarted"), "{said}");
        assert_eq!(others.pids().count(), 3, "{said}");
    }
}

/// The servers that a wrapper has started.
struct Others(Scratch);

impl Others {
    fn pids(&self) -> impl Iterator<Item = String> {
        let files = fs::read_dir(self.0.path()).expect("the folder").map(|entry| entry.expect("an entry"));
        let files = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("other-"));
        files.filter_map(|entry| fs::read_to_string(entry.path()).ok()).map(|pid| pid.trim().to_owned())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).status();
        }
    }
}

#[tokio::test]
async fn start_again_waits_for_its_port() {
    let Some(redis) = process().await else { return };
    redis.stop().await.expect("a stop");
    let occupied = TcpListener::bind(("127.0.0.1", redis.port())).expect("its port");
    let mut start = pin!(redis.start_again());
    let early = tokio::time::timeout(MOMENT, &mut start).await;
    assert!(early.is_err(), "{early:?}");
    drop(occupied);
    start.await.expect("a start");
}

/// Another program takes the port while the server restarts, and lets it go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_wait_for_their_port() {
    let Some(redis) = process().await else { return };
    for kind in ["empty", "with data", "crash"] {
        write(&redis, kind).await;
        let mut connection = redis.connection().await.expect("a connection");
        redis::cmd("SAVE").query_async::<()>(&mut connection).await.expect("a save");
        let deadline = Instant::now() + PATIENCE;
        // The server may be faster.
        while !restart_with_an_occupied_port(&redis, kind).await {
            assert!(Instant::now() < deadline, "{kind}: nobody else got the port");
        }
        let expected = (kind != "empty").then_some(kind);
        assert_eq!(read(&redis).await.as_deref(), expected, "{kind}");
    }
}

/// Answers whether the port was occupied.
async fn restart_with_an_occupied_port(redis: &TestRedis, kind: &str) -> bool {
    let (port, deadline) = (redis.port(), Instant::now() + MOMENT);
    let mut occupied = tokio::task::spawn_blocking(move || {
        let tries = std::iter::from_fn(|| (Instant::now() < deadline).then(|| TcpListener::bind(("127.0.0.1", port))));
        tries.flatten().next()
    });
    let mut restart = pin!(async {
        match kind {
            "empty" => redis.restart_empty().await,
            "with data" => redis.restart_with_data().await,
            _ => redis.crash_and_restart().await,
        }
    });
    let mut early = None;
    let occupied = tokio::select! {
        occupied = &mut occupied => occupied.expect("a thread"),
        done = &mut restart => {
            early = Some(done);
            occupied.await.expect("a thread")
        }
    };
    let was_occupied = occupied.is_some();
    if was_occupied && early.is_none() {
        early = tokio::time::timeout(MOMENT, &mut restart).await.ok();
        assert!(early.is_none(), "{kind}: {early:?}");
    }
    drop(occupied);
    match early {
        Some(done) => done,
        None => restart.await,
    }
    .unwrap_or_else(|error| panic!("{kind}: {error}"));
    was_occupied
}

#[tokio::test]
async fn port_that_stays_in_use_is_an_error() {
    let Some(other) = process().await else { return };
    let builder = TestRedis::builder().backend(Backend::Process).args(["--port", &other.port().to_string()]);
    let begun = Instant::now();
    let error = builder.start().await.expect_err("no server");
    assert!(matches!(error, TestRedisError::NoServer(_)), "{error:?}");
    assert!(error.to_string().contains(&format!("port {} is already in use", other.port())), "{error}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn port_of_the_arguments_is_used() {
    let Some(free) = process().await else { return };
    let port = free.port();
    drop(free);
    let builder = TestRedis::builder().backend(Backend::Process).args(["--port", &port.to_string()]);
    let redis = builder.start().await.expect("a server");
    assert_eq!((redis.port(), redis.url()), (port, format!("redis://127.0.0.1:{port}/").as_str()));
    redis.restart_with_data().await.expect("a restart");
}

/// A program that starts the server as its child would be killed in its place.
#[tokio::test]
async fn wrapper_that_does_not_exec_is_named() {
    if process().await.is_none() {
        return;
    }
    let scratch = Scratch::new("child");
    let server = wrapper(
        &scratch,
        r#""$server" "$@" & child=$!
(while kill -0 "$$"; do sleep 0.05; done; kill "$child") &
wait "$child"; exit"#,
    );
    let environment = [("GROUP_REDIS_TEST_BACKEND", "process"), ("GROUP_REDIS_TEST_SERVER", server.as_str())];
    let (passed, said) = play("scene_starts", &environment);
    assert!(passed && said.contains("GROUP_REDIS_TEST_SERVER names has to `exec` the server"), "{said}");
}

#[tokio::test]
#[ignore = "played by other tests"]
async fn scene_restarts() {
    let redis = TestRedis::start().await.expect("a server");
    let is_ours = async || {
        let mut connection = redis.connection().await.expect("a connection");
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.expect("INFO");
        let pid = redis.pid().expect("a process");
        assert!(info.contains(&format!("process_id:{pid}\r\n")), "{pid} is not the one of {info}");
    };
    is_ours().await;
    redis.restart_empty().await.expect("a restart");
    is_ours().await;
    redis.restart_with_data().await.expect("a restart");
    is_ours().await;
    redis.crash_and_restart().await.expect("a restart");
    is_ours().await;
    redis.stop().await.expect("a stop");
    redis.start_again().await.expect("a start");
    is_ours().await;
    println!("restarted");
}
