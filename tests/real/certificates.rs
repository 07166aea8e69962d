//! Certificates by files: an authority of our own, a certificate of the client's, and files that change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use group_redis::testing::{Backend, TestRedis};
use group_redis::{ErrorKind, GroupConnector, GroupConnectorBuilder, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use super::support::{PATIENCE, eventually, not_shown};

/// The years in which a certificate is valid.
const NOW: (i32, i32) = (2020, 2090);
const PAST: (i32, i32) = (2020, 2021);

/// An authority, and what it has signed.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let (folder, key) = (TempDir::new().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate of this file's name and for these hosts, and writes it and its key.
    fn sign(&self, file: &str, hosts: &[&str], (from, to): (i32, i32)) -> (PathBuf, PathBuf) {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (pem, secret) = (self.file(&format!("{file}.pem")), self.file(&format!("{file}.key")));
        std::fs::write(&pem, certificate.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        (pem, secret)
    }

    /// A server that wants a certificate of its clients, where it can speak TLS. A container is asked by another name than this host.
    async fn server(&self) -> Option<TestRedis> {
        let (certificate, key) = self.sign("server", &["127.0.0.1", "redis.internal"], NOW);
        let text = |path: &Path| path.display().to_string();
        let args = ["--port", "0", "--tls-port", &free_port().await.to_string(), "--tls-auth-clients", "yes"]
            .map(str::to_owned);
        let files = [
            "--tls-cert-file".into(),
            text(&certificate),
            "--tls-key-file".into(),
            text(&key),
            "--tls-ca-cert-file".into(),
            text(&self.file("ca.pem")),
        ];
        match TestRedis::builder().backend(Backend::Process).args(args.into_iter().chain(files)).start().await {
            Err(error) if error.to_string().contains("built without TLS") => {
                not_shown(&"this server is built without TLS");
                None
            }
            started => Some(started.unwrap()),
        }
    }

    fn tls(&self, client: (PathBuf, PathBuf)) -> Tls {
        Tls::new().ca_file(self.file("ca.pem")).client_files(client.0, client.1)
    }
}

async fn free_port() -> u16 {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn builder(redis: &TestRedis, tls: Tls) -> GroupConnectorBuilder {
    builder_at("127.0.0.1", redis, tls)
}

fn builder_at(host: &str, redis: &TestRedis, tls: Tls) -> GroupConnectorBuilder {
    GroupConnector::builder(format!("rediss://{host}:{}/", redis.port())).group("g").tls(tls)
}

#[tokio::test]
async fn client_shows_its_certificate_and_trusts_its_authority_only() {
    let authority = Authority::new();
    let Some(redis) = authority.server().await else { return };
    let client = authority.sign("client", &[], NOW);
    let group = builder(&redis, authority.tls(client.clone())).connect().await.unwrap();
    group.join("a").await.unwrap();
    group.lock("l").acquire().await.unwrap().release().await;

    let stranger = Authority::new();
    let untrusting = Tls::new().ca_file(stranger.file("ca.pem")).client_files(&client.0, &client.1);
    let error = builder(&redis, untrusting).connect().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Connection, false), "{error}");
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn client_without_a_certificate_or_with_an_expired_one_is_told_so() {
    let authority = Authority::new();
    let Some(redis) = authority.server().await else { return };
    let expired = authority.tls(authority.sign("expired", &[], PAST));
    for (tls, reason) in
        [(expired, "CertificateExpired"), (Tls::new().ca_file(authority.file("ca.pem")), "CertificateRequired")]
    {
        let error = builder(&redis, tls).connect().await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Connection, false), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// Certificates expire while a connector lives: it keeps trying, with pauses, and takes the new ones from the files.
#[tokio::test]
async fn renewed_files_are_read_at_the_next_connection() {
    let authority = Authority::new();
    let Some(redis) = authority.server().await else { return };
    let client = authority.sign("client", &[], NOW);
    let group = builder(&redis, authority.tls(client)).connect().await.unwrap();
    let me = group.join("a").await.unwrap();

    authority.sign("client", &[], PAST);
    let mut admin = redis.connection().await.unwrap();
    for kind in ["normal", "pubsub"] {
        let words = ["KILL", "TYPE", kind, "SKIPME", "yes"];
        redis::cmd("CLIENT").arg(&words).exec_async(&mut admin).await.unwrap();
    }
    let says = async || group.status().error.is_some_and(|error| error.to_string().contains("CertificateExpired"));
    eventually("it says why it cannot connect", says).await;
    let connections = async || {
        let mut admin = redis.connection().await.unwrap();
        let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut admin).await.unwrap();
        let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let (before, time) = (connections().await, Duration::from_secs(3));
    tokio::time::sleep(time).await;
    let tried = connections().await - before;
    assert!((1..60).contains(&tried), "{tried} attempts in {time:?}");

    authority.sign("client", &[], NOW);
    eventually("it is back", async || me.is_held()).await;
    group.wait_for(PATIENCE, |view| view.contains("a")).await.unwrap();
}

/// The address is in no certificate, as that of a server that sentinels or a cluster announce may be.
#[tokio::test]
async fn server_is_known_by_the_name_that_was_given() {
    let authority = Authority::new();
    let Some(redis) = authority.server().await else { return };
    let tls = authority.tls(authority.sign("client", &[], NOW));
    let error = builder_at("localhost", &redis, tls.clone()).connect().await.unwrap_err();
    assert!(error.to_string().contains("certificate not valid for name"), "{error}");
    let group = builder_at("localhost", &redis, tls.server_name("redis.internal")).connect().await.unwrap();
    group.join("a").await.unwrap();
    group.wait_for(PATIENCE, |view| view.contains("a")).await.unwrap();
}

#[tokio::test]
async fn wrong_files_are_named() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("client", &[], NOW);
    std::fs::write(authority.file("text"), "no certificate").unwrap();
    for (tls, part) in [
        (Tls::new().ca_file("/no/such.pem"), "/no/such.pem cannot be read"),
        (Tls::new().client_files(&certificate, "/no/such.key"), "/no/such.key cannot be read"),
        (Tls::new().client_files(&certificate, authority.file("text")), "private key"),
        (Tls::new().client_files(&key, &key), "certificate"),
    ] {
        let error = GroupConnector::builder("rediss://127.0.0.1:1/").tls(tls).connect().await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Config, false), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let plain = GroupConnector::builder("redis://127.0.0.1:1/").tls(Tls::new()).connect().await.unwrap_err();
    assert!(plain.to_string().contains("use rediss://"), "{plain}");
}
