//! Every error that connecting can end with: one line that names the server, what was tried, the reason and the cure, and
//! never a password.

use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use group_redis::testing::{Backend, TestRedis};
use group_redis::{Error, ErrorKind, GroupConnector, GroupConnectorBuilder, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::support::{Fixture, TTL, eventually};

const SECRET: &str = "hunter2";

/// How long a connect of these tests waits for what may pass. What may not is told long before.
const LIMIT: Duration = Duration::from_secs(3);

/// Where something is that one can connect to, and what connecting to it ends with.
struct Case {
    what: &'static str,
    url: String,
    kind: ErrorKind,
    reason: &'static str,
    cure: &'static str,
    passes: bool,
}

impl Case {
    fn builder(&self) -> GroupConnectorBuilder {
        GroupConnector::builder(&self.url).connect_timeout(LIMIT / 2).command_timeout(LIMIT / 2).ttl(TTL)
    }

    /// `host:port, database n`, as the error is to say it.
    fn server(&self) -> String {
        let (_, rest) = self.url.split_once("://").unwrap();
        let rest = rest.rsplit('@').next().unwrap().trim_end_matches("#insecure");
        let (address, database) = rest.split_once('/').unwrap();
        format!("{address}, database {}", if database.is_empty() { "0" } else { database })
    }
}

/// What an error and all that it was caused by say, each on a line of its own.
fn chain(error: &Error) -> Vec<String> {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |error| error.source()).map(|error| format!("{error}\t{error:?}")).collect()
}

/// What is wrong with what it says, if anything is.
fn faults(error: &Error, server: &str, reason: &str, cure: &str) -> Vec<&'static str> {
    let (said, chain) = (error.to_string(), chain(error));
    let checks = [
        ("the server is not named", said.starts_with(&format!("{server}: "))),
        ("the reason is not said", said.contains(reason)),
        ("no cure", said.rsplit_once("; ").is_some_and(|(_, last)| last.contains(cure))),
        ("not one short line", !said.contains(['\n', '\r']) && said.len() < 600),
        ("the password is told", chain.iter().all(|said| !said.contains(SECRET))),
    ];
    checks.into_iter().filter(|(_, is_right)| !is_right).map(|(fault, _)| fault).collect()
}

/// What an error of a call is to be.
pub(crate) struct Expected {
    pub(crate) kind: ErrorKind,
    pub(crate) reason: &'static str,
    pub(crate) cure: &'static str,
    pub(crate) is_retryable: bool,
    pub(crate) is_unapplied: bool,
}

/// Collects what is wrong, so that one run shows all.
#[derive(Default)]
pub(crate) struct Wrong(pub(crate) Vec<String>);

impl Wrong {
    pub(crate) fn check<T>(&mut self, what: &str, result: Result<T, Error>, server: &str, expected: &Expected) {
        let Err(error) = result else { return self.0.push(format!("{what}: it succeeded")) };
        let mut faults = faults(&error, server, expected.reason, expected.cure);
        for (fault, is_right) in [
            ("another kind", error.kind() == expected.kind),
            ("is_retryable", error.is_retryable() == expected.is_retryable),
            ("is_unapplied", error.is_unapplied() == expected.is_unapplied),
        ] {
            faults.extend((!is_right).then_some(fault));
        }
        if !faults.is_empty() {
            self.0.push(format!("{what}: {faults:?} {error}: {error:?}"));
        }
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "{:#?}", self.0);
    }
}

/// A port behind which something answers so to whatever comes first.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

/// A sentinel that watches nothing; `None` where there is no program for one.
async fn sentinel() -> Option<(Child, PathBuf, u16)> {
    let port = free_port().await;
    let config = std::env::temp_dir().join(format!("group-redis-sentinel-{}-{port}.conf", std::process::id()));
    std::fs::write(&config, format!("port {port}\nbind 127.0.0.1\n")).unwrap();
    let program = std::env::var("GROUP_REDIS_TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let mut command = Command::new(program);
    command.arg(&config).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn().ok()?;
    let is_up = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    eventually("the sentinel listens", is_up).await;
    Some((child, config, port))
}

/// Arguments for a server that speaks TLS on this port with a certificate that nobody trusts; `None` where there is
/// no `openssl` to make one.
#[cfg(feature = "tls")]
async fn untrusted(folder: &Path, port: u16) -> Option<Vec<String>> {
    let file = |name: &str| folder.join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate]);
    let made = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.ok()?;
    let port = port.to_string();
    let args = ["--tls-port", &port, "--tls-key-file", &key, "--tls-cert-file", &certificate];
    let rest = ["--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"];
    made.success().then(|| args.into_iter().chain(rest).map(str::to_owned).collect())
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread")]
async fn untrusted_certificate_is_told_at_once() {
    let folder = std::env::temp_dir().join(format!("group-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let port = free_port().await;
    if let Some(args) = untrusted(&folder, port).await
        && let Ok(server) = TestRedis::builder().backend(Backend::Process).args(args).start().await
    {
        let url = format!("rediss://app:{SECRET}@127.0.0.1:{port}/");
        let begun = Instant::now();
        let result = GroupConnector::builder(url).connect_timeout(LIMIT).connect().await;
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
        let (kind, reason, cure) =
            (ErrorKind::Connection, "invalid peer certificate", "a certificate that this host trusts");
        let expected = Expected { kind, reason, cure, is_retryable: false, is_unapplied: true };
        Wrong::default().check("a certificate", result, &format!("127.0.0.1:{port}, database 0"), &expected);
        drop(server);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Connecting says what it knows and waits only for what may pass.
#[tokio::test(flavor = "multi_thread")]
async fn connect_errors_say_what_is_known() {
    let fixture = Fixture::new().await;
    if fixture.redis.backend() != Backend::Process {
        return;
    }
    let mut server = fixture.connection().await;
    for user in [
        ["app", "on", &format!(">{SECRET}"), "~*", "&*", "+@all"],
        ["poor", "on", &format!(">{SECRET}"), "~*", "&*", "+ping"],
    ] {
        redis::cmd("ACL").arg("SETUSER").arg(&user[..]).exec_async(&mut server).await.unwrap();
    }
    let port = fixture.redis.port();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let own = |login: &str, database: &str| format!("redis://{login}{}/{database}", at(port));
    let replica = TestRedis::builder().args(["--replicaof", "127.0.0.1", &port.to_string()]).start().await.unwrap();
    let password = TestRedis::builder().start().await.unwrap();
    let mut asking = password.connection().await.unwrap();
    redis::cmd("CONFIG").arg(&["SET", "requirepass", SECRET]).exec_async(&mut asking).await.unwrap();
    let cluster = TestRedis::builder().args(["--cluster-enabled", "yes"]).start().await.unwrap();
    let mut asking = cluster.connection().await.unwrap();
    let databases: Vec<String> =
        redis::cmd("CONFIG").arg(&["GET", "cluster-databases"]).query_async(&mut asking).await.unwrap();
    let one_database = match databases[..] {
        [] => ("SELECT is not allowed in cluster mode", "database 0"),
        // Valkey 9 has several in a cluster, where it is set to.
        _ => ("DB index is out of range", "cluster-databases"),
    };
    let frozen = TestRedis::start().await.unwrap();
    frozen.freeze().await.unwrap();
    let web = answering(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.port();
    let (_sentinel, config, sentinel) = sentinel().await.expect("a sentinel");
    let silent = answering(b"").await.port();
    let gone = free_port().await;
    let case = |what, url: String, kind, reason, cure, passes| Case { what, url, kind, reason, cure, passes };
    let cases = [
        case(
            "a refused port",
            format!("redis://app:{SECRET}@{}/", at(gone)),
            ErrorKind::Connection,
            "connecting failed: Connection refused",
            "start the server",
            true,
        ),
        case(
            "an unknown host",
            format!("redis://app:{SECRET}@no-such-host.invalid:6379/2"),
            ErrorKind::Connection,
            "connecting failed: failed to lookup address",
            "DNS",
            true,
        ),
        case(
            "a server that does not answer",
            format!("redis://app:{SECRET}@{}/", at(frozen.port())),
            ErrorKind::Timeout,
            "connecting failed: timed out",
            "connect_timeout",
            true,
        ),
        case(
            "a server that hangs up",
            format!("redis://app:{SECRET}@{}/", at(silent)),
            ErrorKind::Connection,
            "connecting failed",
            "between here and the server",
            true,
        ),
        case(
            "a database out of range",
            own(&format!("app:{SECRET}@"), "99"),
            ErrorKind::Config,
            "connecting failed: ERR DB index is out of range",
            "databases",
            false,
        ),
        case(
            "a wrong password",
            own(&format!("app:{SECRET}x@"), ""),
            ErrorKind::Denied,
            "connecting failed: the server refused user or password",
            "check user and password",
            false,
        ),
        case(
            "no password",
            format!("redis://{}/", at(password.port())),
            ErrorKind::Denied,
            "NOAUTH",
            "the password",
            false,
        ),
        case(
            "no password for another database",
            format!("redis://{}/3", at(password.port())),
            ErrorKind::Denied,
            "Authentication required",
            "the password",
            false,
        ),
        case(
            "a user without rights",
            own(&format!("poor:{SECRET}@"), ""),
            ErrorKind::Denied,
            "no permissions to run",
            "ACL line in docs/SECURITY-ACL.md",
            false,
        ),
        case(
            "a web server",
            format!("redis://app:{SECRET}@{}/", at(web)),
            ErrorKind::Server,
            "does not speak the protocol of Redis",
            "check host and port",
            false,
        ),
        case(
            "a replica",
            format!("redis://{}/", at(replica.port())),
            ErrorKind::Server,
            "the server is a replica of",
            "connect to its primary",
            false,
        ),
        case(
            "a node of a cluster without slots",
            format!("redis://{}/", at(cluster.port())),
            ErrorKind::Server,
            "no node of the cluster serves this group",
            "give its slot to a node",
            false,
        ),
        case(
            "another database of a cluster",
            format!("redis://{}/1", at(cluster.port())),
            ErrorKind::Config,
            one_database.0,
            one_database.1,
            false,
        ),
        case(
            "a sentinel",
            format!("redis://{}/", at(sentinel)),
            ErrorKind::Config,
            "is a sentinel and no server",
            "redis+sentinel://",
            false,
        ),
        case(
            "TLS without a check",
            format!("rediss://app:{SECRET}@{}/#insecure", at(port)),
            ErrorKind::Config,
            "insecure",
            "features of the crate redis",
            false,
        ),
        case(
            "TLS where none is spoken",
            format!("rediss://app:{SECRET}@{}/", at(web)),
            ErrorKind::Connection,
            "connecting failed",
            "port for TLS",
            false,
        ),
    ];
    let mut wrong = Wrong::default();
    for case in &cases {
        if case.url.starts_with("rediss:") && !cfg!(feature = "tls") {
            continue;
        }
        let begun = Instant::now();
        let error = case.builder().connect().await.unwrap_err();
        let Case { kind, reason, cure, passes, .. } = *case;
        let expected = Expected { kind, reason, cure, is_retryable: passes, is_unapplied: true };
        wrong.check(case.what, Err::<(), _>(error.clone()), &case.server(), &expected);
        // What a server says of itself is no error of redis.
        let says_so = ["a replica", "a sentinel", "a node of a cluster without slots"].contains(&case.what);
        assert!(says_so || chain(&error).len() > 1, "{}: it has no source: {error:?}", case.what);
        assert!(passes || begun.elapsed() < LIMIT / 2, "{}: {:?}", case.what, begun.elapsed());

        // In the background it goes on trying, and says why it is not connected.
        let lazy = case.builder().connect_lazy().unwrap();
        let told = async || lazy.status().error.is_some_and(|told| told.to_string() == error.to_string());
        eventually(&format!("{}: the status says so", case.what), told).await;
        assert_eq!(lazy.state().get(), State::Connecting, "{}", case.what);
        lazy.close().await.unwrap();
    }
    std::fs::remove_file(config).unwrap();

    // What does not pass by itself may be put right.
    let lazy = GroupConnector::builder(replica.url()).connect_lazy().unwrap();
    eventually("the status says so", async || lazy.status().error.is_some()).await;
    let mut promoting = replica.connection().await.unwrap();
    redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec_async(&mut promoting).await.unwrap();
    lazy.state().wait_for(|state| state == State::Connected).await;
    assert!(lazy.status().error.is_none(), "{:?}", lazy.status());
    lazy.join("me").await.unwrap();
}
