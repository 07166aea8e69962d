//! The throw-away server itself, on whichever backend `GROUP_REDIS_TEST_BACKEND` names.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use group_redis::testing::{Backend, TestRedis, TestRedisError};
use support::{PATIENCE, Reaped, Scratch, eventually, listens, play, read, runs, scene, write};

mod kits;
mod logins;
mod ports;
mod support;

async fn config(redis: &TestRedis, name: &str) -> String {
    let mut connection = redis.connection().await.expect("a connection");
    let answer: (String, String) =
        redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await.expect("CONFIG GET");
    answer.1
}

#[tokio::test]
async fn starts_and_says_what_it_is() {
    let redis = TestRedis::start().await.expect("a server");
    assert_eq!(redis.url(), format!("redis://{}:{}/", host(redis.url()), redis.port()));
    assert!(redis.version().split('.').count() >= 2, "{:?}", redis.version());
    assert!(redis.is_own());
    assert_eq!(redis.pid().is_some(), redis.backend() == Backend::Process);
    if let Ok(asked) = std::env::var("GROUP_REDIS_TEST_BACKEND") {
        assert_eq!(redis.backend().to_string(), asked);
    }
    let mut connection = redis.connection().await.expect("a connection");
    assert_eq!(redis::cmd("PING").query_async::<String>(&mut connection).await.expect("PING"), "PONG");
}

fn host(url: &str) -> &str {
    url.trim_start_matches("redis://").split(':').next().unwrap_or_default()
}

#[tokio::test]
async fn two_servers_share_nothing() {
    let (one, other) = tokio::join!(TestRedis::start(), TestRedis::start());
    let (one, other) = (one.expect("one server"), other.expect("another server"));
    assert_ne!(one.port(), other.port());
    write(&one, "one").await;
    assert_eq!(read(&other).await, None);
    drop(one);
    assert_eq!(read(&other).await, None);
}

#[tokio::test]
async fn a_server_saves_nothing_unless_told_to() {
    let redis = TestRedis::start().await.expect("a server");
    assert_eq!(config(&redis, "save").await, "");
}

#[tokio::test]
async fn arguments_reach_the_server_and_outlast_a_restart() {
    let builder = TestRedis::builder().arg("--maxmemory").arg("64mb").args(["--notify-keyspace-events", "KEA"]);
    let redis = builder.start().await.expect("a server");
    for restart in [false, true] {
        if restart {
            redis.restart_empty().await.expect("a restart");
        }
        assert_eq!(config(&redis, "maxmemory").await, (64 << 20).to_string());
        assert!(config(&redis, "notify-keyspace-events").await.contains('A'));
    }
}

#[tokio::test]
async fn an_argument_the_server_does_not_know_is_an_error_with_its_words() {
    let begun = Instant::now();
    let error = TestRedis::builder().args(["--no-such-setting", "1"]).start().await.expect_err("no server");
    assert!(matches!(error, TestRedisError::NoServer(_)), "{error:?}");
    assert!(error.to_string().contains("no-such-setting"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn restart_empty_loses_the_data_also_those_saved_before() {
    let redis = TestRedis::start().await.expect("a server");
    write(&redis, "value").await;
    redis.restart_with_data().await.expect("a restart");
    assert_eq!(read(&redis).await.as_deref(), Some("value"));
    redis.restart_empty().await.expect("a restart");
    assert_eq!(read(&redis).await, None);
}

#[tokio::test]
async fn restart_with_data_keeps_them_time_and_again() {
    let redis = TestRedis::start().await.expect("a server");
    for value in ["first", "second"] {
        write(&redis, value).await;
        let (url, pid) = (redis.url().to_owned(), redis.pid());
        redis.restart_with_data().await.expect("a restart");
        assert_eq!(read(&redis).await.as_deref(), Some(value));
        assert_eq!(redis.url(), url);
        assert!(pid.is_none() || redis.pid() != pid, "the same process: {pid:?}");
    }
}

#[tokio::test]
async fn a_crashed_server_comes_back_with_what_it_had_saved_last() {
    let redis = TestRedis::start().await.expect("a server");
    write(&redis, "saved").await;
    let mut connection = redis.connection().await.expect("a connection");
    redis::cmd("SAVE").query_async::<()>(&mut connection).await.expect("a save");
    write(&redis, "not saved").await;
    let (url, pid) = (redis.url().to_owned(), redis.pid());
    redis.crash_and_restart().await.expect("a restart");
    assert_eq!(read(&redis).await.as_deref(), Some("saved"));
    assert_eq!(redis.url(), url);
    assert!(pid.is_none() || redis.pid() != pid, "the same process: {pid:?}");
}

#[tokio::test]
async fn stop_ends_the_server_and_start_again_brings_it_back_empty() {
    let redis = TestRedis::start().await.expect("a server");
    write(&redis, "value").await;
    assert!(matches!(redis.start_again().await, Err(TestRedisError::Running(_))));
    redis.stop().await.expect("a stop");
    eventually("the port is closed", || !listens(redis.port())).await;
    assert_eq!(redis.pid(), None);
    redis.stop().await.expect("nothing to stop");
    assert!(matches!(redis.restart_with_data().await, Err(TestRedisError::Stopped(_))));
    assert!(matches!(redis.crash_and_restart().await, Err(TestRedisError::Stopped(_))));
    assert!(matches!(redis.freeze().await, Err(TestRedisError::Stopped(_))));
    redis.start_again().await.expect("a start");
    assert_eq!(read(&redis).await, None);
}

#[tokio::test]
async fn a_frozen_server_answers_nothing_until_it_is_thawed() {
    let redis = TestRedis::start().await.expect("a server");
    let mut connection = redis.connection().await.expect("a connection");
    redis.freeze().await.expect("a freeze");
    let ping = redis::cmd("PING");
    let mut other = connection.clone();
    let frozen = tokio::time::timeout(Duration::from_millis(300), ping.query_async::<String>(&mut other)).await;
    assert!(frozen.is_err(), "a frozen server answered {frozen:?}");
    redis.thaw().await.expect("a thaw");
    assert_eq!(ping.query_async::<String>(&mut connection).await.expect("the same connection"), "PONG");
}

#[tokio::test]
async fn a_frozen_server_can_be_restarted_and_dropped() {
    let redis = TestRedis::start().await.expect("a server");
    redis.freeze().await.expect("a freeze");
    redis.restart_empty().await.expect("a restart");
    assert_eq!(read(&redis).await, None);
    redis.freeze().await.expect("a freeze");
    let (port, pid) = (redis.port(), redis.pid());
    drop(redis);
    assert!(!listens(port) && !pid.is_some_and(runs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_leaves_no_server_and_no_folder() {
    let redis = TestRedis::start().await.expect("a server");
    redis.restart_with_data().await.expect("a restart");
    let (backend, port, pid) = (redis.backend(), redis.port(), redis.pid());
    let folder = config(&redis, "dir").await;
    drop(redis);
    assert!(!listens(port), "somebody still listens on {port}");
    assert!(!pid.is_some_and(runs), "process {pid:?} still runs");
    assert!(backend != Backend::Process || !Path::new(&folder).exists(), "{folder} is still there");
}

#[test]
fn a_server_may_be_dropped_outside_of_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let redis = runtime.block_on(TestRedis::start()).expect("a server");
    let port = redis.port();
    drop(runtime);
    drop(redis);
    assert!(!listens(port), "somebody still listens on {port}");
}

#[tokio::test]
async fn a_killed_test_leaves_no_server() {
    let folder = Scratch::new("killed");
    let mut child = Reaped(
        scene("scene_holds_a_server", &[("TMPDIR", folder.path())]).stdout(Stdio::piped()).spawn().expect("a child"),
    );
    let output = BufReader::new(child.0.stdout.take().expect("its output"));
    let told =
        output.lines().map_while(Result::ok).find_map(|line| line.split_once("port=").map(|(_, port)| port.to_owned()));
    let port: u16 = told.expect("a server of the child's").trim().parse().expect("a port");
    assert!(listens(port));
    // SIGKILL.
    child.0.kill().expect("a kill");
    eventually("the port is closed", || !listens(port)).await;
    eventually("the folder is removed", || folder.is_empty()).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_server() {
    let folder = Scratch::new("given-up");
    let (passed, said) = play("scene_gives_up_starting", &[("TMPDIR", folder.path())]);
    assert!(passed, "{said}");
    let ports = said.lines().filter_map(|line| line.split_once("port=")?.1.trim().parse().ok());
    for port in ports.collect::<Vec<u16>>() {
        eventually("the port is closed", || !listens(port)).await;
    }
    assert!(folder.is_empty(), "a folder is left");
}

#[test]
fn a_server_program_that_is_missing_is_named() {
    let environment = [("GROUP_REDIS_TEST_BACKEND", "process"), ("GROUP_REDIS_TEST_SERVER", "/no/such/server")];
    let (passed, said) = play("scene_starts", &environment);
    assert!(passed, "{said}");
    assert!(said.contains("failed: no Redis server for this test; tried process: "), "{said}");
    assert!(said.contains("/no/such/server"), "{said}");
}

#[test]
fn an_image_or_an_engine_that_is_missing_is_named_at_once() {
    let container = ("GROUP_REDIS_TEST_BACKEND", "container");
    let nowhere = ("DOCKER_HOST", "tcp://127.0.0.1:9");
    for (environment, named) in [
        ([container, ("GROUP_REDIS_TEST_IMAGE", "registry.invalid/no-such:image")], "registry.invalid/no-such:image"),
        ([container, nowhere], "Docker engine"),
    ] {
        let begun = Instant::now();
        let (passed, said) = play("scene_starts", &environment);
        assert!(passed, "{said}");
        assert!(said.contains("failed: no Redis server for this test; tried container: "), "{said}");
        // Without any engine, that is what is said of the image too.
        assert!(said.contains(named) || said.contains("Docker engine"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    }
}

#[test]
fn without_an_engine_a_process_serves_and_both_are_said_once() {
    let environment = [("GROUP_REDIS_TEST_BACKEND", ""), ("DOCKER_HOST", "tcp://127.0.0.1:9")];
    let (passed, said) = play("scene_starts", &environment);
    assert!(passed, "{said}");
    if said.contains("failed: ") {
        // Neither is here: then both are named.
        assert!(said.contains("tried container: ") && said.contains("; process: "), "{said}");
        return;
    }
    assert_eq!(said.matches("started: process").count(), 2, "{said}");
    assert_eq!(said.matches("TestRedis: no container: ").count(), 1, "{said}");
    assert_eq!(said.matches("TestRedis: process ").count(), 1, "{said}");
}

#[test]
fn a_backend_that_does_not_exist_is_an_error() {
    let (passed, said) = play("scene_starts", &[("GROUP_REDIS_TEST_BACKEND", "cloud")]);
    assert!(passed && said.contains("must be url, container or process"), "{said}");
}

#[tokio::test]
async fn a_shared_server_is_used_and_left_alone() {
    let redis = TestRedis::start().await.expect("a server");
    write(&redis, "theirs").await;
    let (passed, said) =
        play("scene_has_a_shared_server", &[("GROUP_REDIS_TEST_URL", redis.url()), ("GROUP_REDIS_TEST_BACKEND", "")]);
    assert!(passed, "{said}");
    assert!(said.contains("unset GROUP_REDIS_TEST_URL"), "{said}");
    assert_eq!(read(&redis).await.as_deref(), Some("theirs"));
}

#[tokio::test]
#[ignore = "played by other tests"]
async fn scene_holds_a_server() {
    let redis = TestRedis::start().await.expect("a server");
    println!("port={}", redis.port());
    tokio::time::sleep(2 * PATIENCE).await;
}

#[tokio::test]
#[ignore = "played by other tests"]
async fn scene_starts() {
    for _ in 0..2 {
        match TestRedis::start().await {
            Ok(redis) => println!("started: {}", redis.backend()),
            Err(error) => println!("failed: {error}"),
        }
    }
}

#[tokio::test]
#[ignore = "played by other tests"]
async fn scene_gives_up_starting() {
    for patience in [0, 1, 2, 5, 10, 20, 40, 80, 160, 320] {
        match tokio::time::timeout(Duration::from_millis(patience), TestRedis::start()).await {
            Ok(redis) => println!("port={}", redis.expect("a server").port()),
            Err(_) => println!("given up after {patience} ms"),
        }
    }
}

#[tokio::test]
#[ignore = "played by other tests"]
async fn scene_has_a_shared_server() {
    let redis = TestRedis::start().await.expect("the shared server");
    assert_eq!((redis.backend(), redis.is_own(), redis.pid()), (Backend::Url, false, None));
    assert_ne!(redis.port(), 0);
    assert_eq!(read(&redis).await.as_deref(), Some("theirs"));
    let refusals = [
        redis.stop().await,
        redis.start_again().await,
        redis.restart_empty().await,
        redis.restart_with_data().await,
        redis.crash_and_restart().await,
        redis.freeze().await,
        redis.thaw().await,
        TestRedis::builder().arg("--maxmemory").arg("1gb").start().await.map(drop),
    ];
    for refusal in refusals {
        let error = refusal.expect_err("a server that is not ours");
        assert!(matches!(error, TestRedisError::NotOurs(_)), "{error:?}");
        println!("{error}");
    }
}
