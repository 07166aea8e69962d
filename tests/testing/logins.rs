//! Servers that want a login, or TLS: what production has.

#[cfg(feature = "tls")]
use std::path::Path;
use std::time::{Duration, Instant};

use group_redis::testing::{TestRedis, TestRedisBuilder, TestRedisError};
use group_redis::{ErrorKind, GroupConnector};
use redis::Client;

use crate::support::{PATIENCE, Scratch, eventually, listens, play, read, write};

/// A start that fails for good must not wait for the server's patience to be over.
const SOON: Duration = Duration::from_secs(10);

/// A connector joins and sees its member.
async fn joins(what: &str, client: Client) {
    let connecting = GroupConnector::from_client(client).group("logins").connect().await;
    let group = connecting.unwrap_or_else(|error| panic!("{what}: {error}"));
    let me = group.join("me").await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let seen = group.wait_for(PATIENCE, |view| view.contains("me")).await;
    seen.unwrap_or_else(|error| panic!("{what}: {error}"));
    me.leave().await.unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// Without a login, the server lets nobody in.
async fn refuses_strangers(what: &str, redis: &TestRedis) {
    let (_, place) = redis.url().split_once('@').unwrap_or_else(|| panic!("{what}: no login in {}", redis.url()));
    let strange = GroupConnector::builder(format!("redis://{place}")).connect().await;
    assert_eq!(strange.expect_err(what).kind(), ErrorKind::Denied, "{what}");
}

/// Start, join, every restart, stop.
async fn lives(what: &str, builder: TestRedisBuilder) -> TestRedis {
    let begun = Instant::now();
    let redis = builder.start().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
    let url = redis.url().to_owned();
    joins(what, redis.client()).await;
    write(&redis, "kept").await;
    redis.restart_with_data().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(read(&redis).await.as_deref(), Some("kept"), "{what}");
    redis.crash_and_restart().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(read(&redis).await.as_deref(), Some("kept"), "{what}");
    redis.restart_empty().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(read(&redis).await, None, "{what}");
    redis.stop().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    eventually("the port is closed", || !listens(redis.port())).await;
    redis.start_again().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(redis.url(), url, "{what}");
    joins(what, redis.client()).await;
    redis
}

fn is_plain(redis: &TestRedis) -> bool {
    redis.url().starts_with("redis://")
}

async fn lives_with_a_login(what: &str, builder: TestRedisBuilder) -> TestRedis {
    let redis = lives(what, builder).await;
    assert!(is_plain(&redis), "{what}");
    refuses_strangers(what, &redis).await;
    // By the URL alone, too.
    joins(what, Client::open(redis.url()).expect("a client")).await;
    redis
}

#[tokio::test]
async fn password() {
    let redis = lives_with_a_login("a password", TestRedis::builder().password("secret")).await;
    assert!(redis.url().starts_with("redis://:secret@"), "{}", redis.url());
    assert_eq!(redis.url_as("default"), Some(redis.url()));
    lives_with_a_login("an odd password", TestRedis::builder().password("p@s:s/w ö%\"'\\")).await;
}

#[tokio::test]
async fn user_has_all_rights() {
    let redis = lives_with_a_login("a user", TestRedis::builder().user("app", "p@s:s w")).await;
    assert!(redis.url().starts_with("redis://app:p%40s%3As%20w@"), "{}", redis.url());
    let mut app = redis.client().get_multiplexed_async_connection().await.expect("a connection");
    redis::cmd("FLUSHALL").query_async::<()>(&mut app).await.expect("all rights");
}

/// The rules are those of the user; the test server itself still may do everything.
#[tokio::test]
async fn user_has_the_rights_of_its_rules() {
    let rules = ["~*", "&*", "+@all", "-@dangerous", "-config", "+info"];
    let builder = TestRedis::builder().user_with_rules("app", "one", rules).user("admin", "two");
    let redis = lives_with_a_login("a user with rules", builder.password("three")).await;
    let mut app = redis.client().get_multiplexed_async_connection().await.expect("a connection");
    let refused = redis::cmd("FLUSHALL").query_async::<()>(&mut app).await.expect_err("no right");
    assert_eq!(refused.code(), Some("NOPERM"));
    for (user, password) in [("app", "one"), ("admin", "two"), ("default", "three")] {
        let url = redis.url_as(user).unwrap_or_else(|| panic!("no {user}"));
        assert!(url.contains(&format!(":{password}@")), "{url}");
        joins(user, Client::open(url).expect("a client")).await;
    }
    assert_eq!(redis.url_as("nobody"), None);
}

#[tokio::test]
async fn raw_arguments_of_logins_are_understood() {
    let raw = |args: &[&str]| TestRedis::builder().args(args.iter().copied());
    let redis = lives_with_a_login("--requirepass", raw(&["--requirepass", "secret"])).await;
    assert!(redis.url().starts_with("redis://:secret@"), "{}", redis.url());
    lives_with_a_login("--requirepass in one", raw(&["--requirepass secret"])).await;
    lives_with_a_login("the last counts", raw(&["--requirepass", "one", "--requirepass", "two"])).await;
    let users = ["--user", "default", "off", "--user", "app", "on", ">secret", "~*", "&*", "+@all"];
    let redis = lives_with_a_login("--user", raw(&users)).await;
    assert!(redis.url().starts_with("redis://app:secret@"), "{}", redis.url());
    let users = ["--user", "default", "on", ">secret", "~*", "&*", "+@all"];
    lives_with_a_login("the default user", raw(&users)).await;
    // An open server stays one, and its user can be asked for.
    let redis = lives("a user beside", raw(&["--user", "app", "on", ">secret", "~*", "&*", "+@all"])).await;
    assert!(redis.url_as("app").is_some_and(|url| url.starts_with("redis://app:secret@")));
}

#[tokio::test]
async fn acl_file_is_understood() {
    let scratch = Scratch::new("acl");
    let file = |name: &str, text: &str| {
        let path = format!("{}/{name}.acl", scratch.path());
        std::fs::write(&path, text).expect("a file");
        path
    };
    let clear = file("clear", "user default off\nuser app on >secret ~* &* +@all\n");
    let redis = lives_with_a_login("an ACL file", TestRedis::builder().args(["--aclfile", &clear])).await;
    assert!(redis.url().starts_with("redis://app:secret@"), "{}", redis.url());
    // SHA-256 of `secret`, as `ACL SAVE` writes it.
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let hashed = file("hashed", &format!("user default off\nuser app on #{hash} ~* &* +@all\n"));
    let builder = || TestRedis::builder().args(["--aclfile", &hashed]);
    lives_with_a_login("an ACL file with hashes", builder().user("app", "secret")).await;
    for (builder, words) in [
        (builder(), "no user can log in whose password is known"),
        (builder().user("other", "secret"), "no user \"other\" can be added"),
        (TestRedis::builder().args(["--aclfile", "/no/such/file"]), "/no/such/file cannot be read"),
        (TestRedis::builder().args(["--aclfile", &file("open", "")]).password("secret"), "`.password(..)` sets none"),
    ] {
        is_unsuitable(builder, words).await;
    }
}

async fn is_unsuitable(builder: TestRedisBuilder, words: &str) {
    let error = builder.start().await.expect_err("no server");
    assert!(matches!(error, TestRedisError::Unsuitable(_)), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn settings_that_cannot_be_are_named() {
    is_unsuitable(TestRedis::builder().password(""), "an empty password").await;
    is_unsuitable(TestRedis::builder().user("app", ""), "an empty password").await;
    is_unsuitable(TestRedis::builder().args(["--port", "0"]), "close every port").await;
    is_unsuitable(TestRedis::builder().args(["--user", "default", "off"]), "no user can log in").await;
    if !cfg!(feature = "tls") {
        is_unsuitable(TestRedis::builder().tls(), "the feature \"tls\"").await;
    }
}

/// A password that the test server cannot know of is an error at once, with its cure, and then it is told of it.
#[tokio::test]
async fn hidden_password_is_told_at_once() {
    let scratch = Scratch::new("hidden");
    let path = format!("{}/more.conf", scratch.path());
    std::fs::write(&path, "requirepass secret\n").expect("a file");
    let builder = TestRedis::builder().backend(group_redis::testing::Backend::Process).args(["--include", &path]);
    let begun = Instant::now();
    match builder.clone().start().await {
        Err(error) if error.to_string().contains("neither redis-server nor valkey-server") => return,
        started => {
            let error = started.expect_err("no login");
            assert!(error.to_string().contains("give the login by `.password(..)`"), "{error}");
        }
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    lives_with_a_login("a hidden password", builder.password("secret")).await;
}

#[tokio::test]
async fn shared_server_takes_no_logins_but_may_have_one() {
    let redis = TestRedis::builder().password("secret").start().await.expect("a server");
    write(&redis, "theirs").await;
    let environment = [("GROUP_REDIS_TEST_URL", redis.url()), ("GROUP_REDIS_TEST_BACKEND", "")];
    let (passed, said) = play("logins::scene_shared", &environment);
    assert!(passed, "{said}");
    let without = redis.url().replace(":secret@", "");
    let begun = Instant::now();
    let environment = [("GROUP_REDIS_TEST_URL", without.as_str()), ("GROUP_REDIS_TEST_BACKEND", "")];
    let (passed, said) = play("scene_starts", &environment);
    assert!(passed && said.contains("failed: ") && said.contains("or in the URL of a shared server"), "{said}");
    assert!(begun.elapsed() < 2 * SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "played by other tests"]
async fn scene_shared() {
    let redis = TestRedis::start().await.expect("the shared server");
    assert_eq!(read(&redis).await.as_deref(), Some("theirs"));
    joins("the shared server", redis.client()).await;
    for builder in [
        TestRedis::builder().password("secret"),
        TestRedis::builder().user("app", "secret"),
        TestRedis::builder().user_with_rules("app", "secret", ["+get"]),
        TestRedis::builder().tls(),
    ] {
        let error = builder.start().await.expect_err("a server that is not ours");
        assert!(matches!(error, TestRedisError::NotOurs(_)), "{error:?}");
    }
}

#[test]
fn debug_shows_no_password() {
    let builder = TestRedis::builder().password("secret").user("app", "secret").args(["--requirepass", "secret"]);
    assert!(!format!("{builder:?}").contains("secret"));
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use crate::support::not_shown;

    /// Whether the server was built with TLS. Standard error says so if not.
    async fn has_tls() -> bool {
        match TestRedis::builder().tls().start().await {
            Err(error) if error.to_string().contains("it was built without TLS") => {
                not_shown(&error);
                false
            }
            _ => true,
        }
    }

    async fn lives_with_tls(what: &str, builder: TestRedisBuilder) -> TestRedis {
        let redis = lives(what, builder).await;
        assert!(redis.url().starts_with("rediss://"), "{what}: {}", redis.url());
        assert!(redis.ca_file().is_some_and(Path::is_file), "{what}");
        // Nobody else trusts it.
        let error = GroupConnector::builder(redis.url()).connect().await.expect_err(what);
        assert!(error.to_string().contains("invalid peer certificate"), "{what}: {error}");
        // And without TLS nothing is answered.
        let plain = redis.url().replacen("rediss:", "redis:", 1);
        GroupConnector::builder(plain).connect().await.expect_err(what);
        redis
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn certificate_is_trusted_by_its_client() {
        if !has_tls().await {
            return;
        }
        lives_with_tls("TLS", TestRedis::builder().tls()).await;
        let builder = TestRedis::builder().tls().password("one").user("app", "two");
        let redis = lives_with_tls("TLS and a user", builder).await;
        assert!(redis.url().starts_with("rediss://app:two@"), "{}", redis.url());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn client_certificates_may_be_asked_for() {
        if !has_tls().await {
            return;
        }
        lives_with_tls("two-way TLS", TestRedis::builder().tls().args(["--tls-auth-clients", "yes"])).await;
    }

    /// A child process, or another program, trusts it by `SSL_CERT_FILE`.
    #[tokio::test(flavor = "multi_thread")]
    async fn certificate_is_trusted_by_its_file() {
        if !has_tls().await {
            return;
        }
        let redis = TestRedis::builder().tls().password("secret").start().await.expect("a server");
        write(&redis, "theirs").await;
        let file = redis.ca_file().expect("a file").to_str().expect("a path").to_owned();
        let environment =
            [("GROUP_REDIS_TEST_URL", redis.url()), ("GROUP_REDIS_TEST_BACKEND", ""), ("SSL_CERT_FILE", file.as_str())];
        let (passed, said) = play("logins::scene_shared", &environment);
        assert!(passed, "{said}");
        drop(redis);
        assert!(!Path::new(&file).exists(), "{file} is left");
    }

    /// The certificates of another server serve for raw arguments.
    #[tokio::test(flavor = "multi_thread")]
    async fn raw_arguments_of_tls_are_understood() {
        if !has_tls().await {
            return;
        }
        let other = TestRedis::builder().tls().start().await.expect("a server");
        let ca = other.ca_file().expect("a file");
        let file = |name: &str| ca.with_file_name(name).to_str().expect("a path").to_owned();
        let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let free = TestRedis::start().await.expect("a server");
        let port = free.port().to_string();
        drop(free);
        let args = ["--tls-port", &port, "--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate];
        let builder = TestRedis::builder().args(args).args(["--tls-key-file", &key]);
        let redis = lives("TLS beside", builder.clone()).await;
        assert!(is_plain(&redis) && redis.port().to_string() != port, "{}", redis.url());
        drop(redis);
        // Its clients need a certificate, as is the server's default.
        let redis = lives_with_tls("TLS by arguments", builder.clone().args(["--port", "0"])).await;
        assert_eq!(redis.port().to_string(), port);
        drop(redis);
        let builder = builder.args(["--port", "0", "--tls-auth-clients", "no", "--requirepass", "secret"]);
        lives_with_tls("TLS and a password by arguments", builder).await;
    }

    /// A server that was built without TLS says so in words that few understand.
    #[tokio::test]
    async fn server_without_tls_is_named() {
        let redis = "echo \">>> 'tls-port \\\"1\\\"'\"; echo 'Bad directive or wrong number of arguments'";
        let valkey = "echo '# Missing implement of connection type tls'; echo '# Failed finding TLS support.'";
        for (name, words) in [("redis-without-tls", redis), ("valkey-without-tls", valkey)] {
            let scratch = Scratch::new(name);
            let path = format!("{}/server", scratch.path());
            std::fs::write(&path, format!("#!/bin/sh\n{words}\nexit 1\n")).expect("a script");
            let made = std::process::Command::new("chmod").args(["+x", &path]).status().expect("chmod");
            assert!(made.success());
            let environment = [("GROUP_REDIS_TEST_BACKEND", "process"), ("GROUP_REDIS_TEST_SERVER", path.as_str())];
            let (passed, said) = play("logins::tls::scene_starts_with_tls", &environment);
            assert!(passed && said.contains("it was built without TLS"), "{name}: {said}");
        }
    }

    #[tokio::test]
    #[ignore = "played by other tests"]
    async fn scene_starts_with_tls() {
        let error = TestRedis::builder().tls().start().await.expect_err("no server");
        println!("{error}");
    }
}
