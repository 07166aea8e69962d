//! No password is told, whatever goes wrong: not in a log, not in `Debug`, not in an error or what caused it.

use std::fmt::Debug;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use group_redis::{Error, ErrorKind, GroupConnector, GroupConnectorBuilder, redis};
use tracing_subscriber::filter::LevelFilter;

use crate::support::{Fixture, TTL};

/// As it is, as a URL has it, and the part that both have in common and nothing else has.
const SECRET: &str = "p@55 w/ord-hunter2";
const ENCODED: &str = "p%4055%20w%2Ford-hunter2";
const TRACES: [&str; 4] = [SECRET, ENCODED, "hunter2", "p@55"];

/// Whatever is logged at any level, and whatever else was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Said {
    fn says(&self, what: &impl Debug) {
        writeln!(self.clone(), "{what:?}\n{what:#?}").unwrap();
    }

    fn error(&self, error: &Error) {
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(said) = source {
            writeln!(self.clone(), "{said}\n{said:?}\n{said:#?}").unwrap();
            source = said.source();
        }
    }

    async fn fails(&self, builder: GroupConnectorBuilder, kind: ErrorKind) {
        self.says(&builder);
        let quick = Duration::from_millis(500);
        let error = builder.connect_timeout(quick).command_timeout(quick).connect().await.unwrap_err();
        self.error(&error);
        assert_eq!(error.kind(), kind, "{error:?}");
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn is_silent(&self) {
        let text = self.text();
        for line in text.lines() {
            assert!(!TRACES.iter().any(|trace| line.contains(trace)), "it is told: {line}");
        }
    }
}

/// Only a process of its own has a logger of its own, and an environment: the heartbeats have a thread, and other
/// tests log too.
#[tokio::test]
async fn no_password_is_shown() {
    if std::env::var_os("GROUP_REDIS_TEST_SECRETS").is_some() {
        return tell_nothing().await;
    }
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let mut server = fixture.connection().await;
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "app", "on", &format!(">{SECRET}"), "~*", "&*", "+@all"]);
    user.exec_async(&mut server).await.unwrap();
    let mut default = redis::cmd("CONFIG");
    default.arg(&["SET", "requirepass", "another"]).exec_async(&mut server).await.unwrap();

    let test = "secrets::no_password_is_shown";
    let not_unicode = [b"redis://app:", ENCODED.as_bytes(), b"\xff@127.0.0.1/"].concat();
    let as_url = |login: &str| fixture.redis.url().replace("redis://", &format!("redis://{login}"));
    for (case, url) in [
        ("right", as_url(&format!("app:{ENCODED}@")).into_bytes()),
        ("wrong", as_url(&format!("app:{ENCODED}x@")).into_bytes()),
        ("not a URL", format!("redis://app:{ENCODED}@h:port/").into_bytes()),
        ("not UTF-8", not_unicode),
    ] {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env("GROUP_REDIS_TEST_SECRETS", case);
        child.env("REDIS_URL", std::ffi::OsStr::from_bytes(&url)).env("GROUP_REDIS_TEST_SERVER_URL", as_url(""));
        let output = child.output().await.unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "{case}: {said}");
    }
}

/// In the child.
async fn tell_nothing() {
    let said = Said::default();
    let writer = said.clone();
    let logger = tracing_subscriber::fmt().with_ansi(false).with_max_level(LevelFilter::TRACE);
    logger.with_writer(move || writer.clone()).init();
    let from_env = GroupConnector::from_env().group("secrets").ttl(TTL);
    match std::env::var("GROUP_REDIS_TEST_SECRETS").unwrap().as_str() {
        "right" => {
            works(&said, from_env).await;
            let url = std::env::var("REDIS_URL").unwrap();
            works(&said, GroupConnector::builder(&url).ttl(TTL)).await;
            works(&said, GroupConnector::from_client(redis::Client::open(url).unwrap()).ttl(TTL)).await;
        }
        "wrong" => {
            said.fails(from_env, ErrorKind::Denied).await;
            let server = std::env::var("GROUP_REDIS_TEST_SERVER_URL").unwrap();
            let url = |login: &str| server.replace("redis://", &format!("redis://{login}@"));
            for login in [format!("nobody:{ENCODED}"), format!(":{ENCODED}"), format!("app:{ENCODED}x")] {
                said.fails(GroupConnector::builder(url(&login)), ErrorKind::Denied).await;
                let client = redis::Client::open(url(&login)).unwrap();
                said.fails(GroupConnector::from_client(client), ErrorKind::Denied).await;
            }
            let nowhere = format!("redis://app:{ENCODED}@127.0.0.1:1/");
            said.fails(GroupConnector::builder(nowhere), ErrorKind::Connection).await;
        }
        "not a URL" => {
            said.fails(from_env, ErrorKind::Config).await;
            let unix = "redis+unix:///run/redis.sock?protocol=3:PW";
            for bad in [
                "http://app:PW@x/",
                "redis://app:PW@h/db",
                "redis://app:PW@h:99999/",
                "rediss://app:PW@h/#x",
                unix,
                "PW",
            ] {
                for secret in [SECRET, ENCODED] {
                    let builder = GroupConnector::builder(bad.replace("PW", secret));
                    said.fails(builder, ErrorKind::Config).await;
                }
            }
        }
        _ => {
            said.fails(from_env, ErrorKind::Config).await;
            assert!(said.text().contains("UTF-8") && !said.text().contains("not set"), "{}", said.text());
        }
    }
    said.is_silent();
}

/// Connects, does something of all, and shows all that there is to show.
async fn works(said: &Said, builder: GroupConnectorBuilder) {
    said.says(&builder);
    let group = builder.connect().await.unwrap();
    let join = group.join("me");
    said.says(&join);
    let me = join.await.unwrap();
    let guard = group.lock("lock").acquire().await.unwrap();
    group.ephemeral().set("path", &1).await.unwrap();
    said.says(&(&group, group.status(), group.state(), &me, group.members(), &guard, group.locks()));
    guard.release().await;
    // A heartbeat is a thing to log, too.
    me.update_text("new").await.unwrap();
    group.sync().await.unwrap();
    said.error(&group.wait_for(TTL, |view| view.contains("nobody")).await.unwrap_err());
    group.close().await.unwrap();
    // Else nothing is proven.
    assert!(said.text().contains("TRACE") || said.text().contains("DEBUG"), "nothing is logged");
}
