//! How a server is started, and how to reach it.

use std::path::PathBuf;

use redis::Client;

use super::access::Access;
use super::acl::Login;
use super::arguments::Arguments;
use super::certificates::Certificates;
use super::{TestRedisBuilder, TestRedisError};
use crate::wire::encode;

/// How to start a server and to reach it, whatever runs it.
pub(super) struct Plan {
    args: Vec<String>,
    raw: Arguments,
    access: Access,
    /// Where the builder was asked for TLS.
    certificates: Option<Certificates>,
    port: Port,
    pub(super) network: Network,
    /// Ports that the arguments open besides.
    pub(super) other_port: Option<u16>,
}

/// Whose network a container has.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Network {
    /// Its own: a port of this machine leads into it.
    #[default]
    Own,
    /// That of this machine: servers find each other at the addresses at which clients find them.
    Host,
}

/// The port that the URL shows.
#[derive(Clone, Copy)]
struct Port {
    is_tls: bool,
    /// `None`: any that is free.
    fixed: Option<u16>,
}

/// How to reach a server that runs.
pub(super) struct Endpoint {
    pub(super) url: String,
    /// Logs in as the URL does.
    pub(super) client: Client,
    /// Logs in as somebody who may do everything, where there is one.
    pub(super) own: Client,
    /// The URL for each user that can log in.
    pub(super) urls: Vec<(String, String)>,
    pub(super) ca_file: Option<PathBuf>,
}

/// What of TLS a client has to know.
#[derive(Default)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only a client with TLS reads it"))]
struct Trust {
    ca: Option<Vec<u8>>,
    /// Certificate and key of its own.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Plan {
    /// The names are those that the server may have beside `localhost`.
    pub(super) fn new(builder: &TestRedisBuilder, names: Vec<String>) -> Result<Self, TestRedisError> {
        let raw = Arguments::read(&builder.args);
        let access = Access::new(builder.password.as_deref(), &builder.users, &raw)?;
        let opened = |port: Option<u16>, by_builder: bool| match port {
            Some(0) => None,
            Some(port) => Some(Some(port)),
            None => by_builder.then_some(None),
        };
        let (plain, tls) = (opened(raw.port, !builder.tls), opened(raw.tls_port, builder.tls));
        let (port, other_port) = match (plain, tls) {
            (Some(fixed), other) if !builder.tls => (Port { is_tls: false, fixed }, other.flatten()),
            (other, Some(fixed)) => (Port { is_tls: true, fixed }, other.flatten()),
            _ => {
                return Err(TestRedisError::unsuitable(
                    "the arguments close every port; leave `--port` or `--tls-port`",
                ));
            }
        };
        if port.is_tls && !cfg!(feature = "tls") {
            let cure = "switch on the feature \"tls\" of group-redis";
            return Err(TestRedisError::unsuitable(format!("a test reaches it by TLS only; {cure}")));
        }
        let certificates = builder.tls.then(|| Certificates::new(names)).transpose()?;
        Ok(Self { args: builder.args.clone(), raw, access, certificates, port, network: builder.network, other_port })
    }

    /// The port that the arguments fix.
    pub(super) fn fixed_port(&self) -> Option<u16> {
        self.port.fixed
    }

    /// The arguments of a server on this port.
    pub(super) fn args(&self, port: u16) -> Vec<String> {
        let port = port.to_string();
        let mut args: Vec<String> = match &self.certificates {
            None => vec!["--port".to_owned(), port],
            Some(made) => {
                let [ca, certificate, key] = [made.ca_file(), made.certificate_file(), made.key_file()]
                    .map(|path| path.to_string_lossy().into_owned());
                let listening = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"].map(str::to_owned);
                let names = ["--tls-ca-cert-file", "--tls-cert-file", "--tls-key-file"].map(str::to_owned);
                let files = names.into_iter().zip([ca, certificate, key]).flat_map(<[String; 2]>::from);
                listening.into_iter().chain(files).collect()
            }
        };
        args.extend(self.access.args.iter().chain(&self.args).cloned());
        args
    }

    /// The files that the server reads.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let made = self.certificates.iter();
        let made = made.flat_map(|made| [made.ca_file(), made.certificate_file(), made.key_file()]);
        made.chain(self.raw.files().cloned()).filter(|path| path.is_file()).collect()
    }

    /// The file with the certificate to trust.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        let made = self.certificates.as_ref().map(Certificates::ca_file);
        self.raw.ca.clone().or(made).filter(|_| self.port.is_tls)
    }

    pub(super) fn endpoint(&self, host: &str, port: u16) -> Result<Endpoint, TestRedisError> {
        let trust = if self.port.is_tls { self.trust()? } else { Trust::default() };
        let url = |login: &Login| {
            let scheme = if self.port.is_tls { "rediss" } else { "redis" };
            let user = login.user.as_deref().map(encode).unwrap_or_default();
            let login = login.password.as_deref().map(|password| format!("{user}:{}@", encode(password)));
            format!("{scheme}://{}{host}:{port}/", login.unwrap_or_default())
        };
        let client =
            |login: &Login| open(&url(login), &trust).map_err(|error| TestRedisError::Redis("making a client", error));
        let Access { own, shown, logins, .. } = &self.access;
        let named = |login: &Login| login.user.clone().unwrap_or_else(|| "default".to_owned());
        let urls = logins.iter().map(|login| (named(login), url(login))).collect();
        Ok(Endpoint { url: url(shown), client: client(shown)?, own: client(own)?, urls, ca_file: self.ca_file() })
    }

    fn trust(&self) -> Result<Trust, TestRedisError> {
        let read = |path: PathBuf| {
            std::fs::read(&path)
                .map_err(|error| TestRedisError::unsuitable(format!("{} cannot be read: {error}", path.display())))
        };
        let made = self.certificates.as_ref();
        let certificate = self.raw.certificate.clone().or(made.map(Certificates::certificate_file));
        let key = self.raw.key.clone().or(made.map(Certificates::key_file));
        let identity = match (certificate, key) {
            // As for the server, whose default it is to ask clients for theirs: its own is one that it trusts.
            (Some(certificate), Some(key)) if self.raw.asks_clients.unwrap_or(made.is_none()) => {
                Some((read(certificate)?, read(key)?))
            }
            _ => None,
        };
        Ok(Trust { ca: self.ca_file().map(read).transpose()?, identity })
    }
}

impl Endpoint {
    /// A server that somebody else runs.
    pub(super) fn at(url: String) -> Result<Self, redis::RedisError> {
        let client = open(&url, &Trust::default())?;
        Ok(Self { url, own: client.clone(), client, urls: Vec::new(), ca_file: None })
    }
}

#[cfg(feature = "tls")]
fn open(url: &str, trust: &Trust) -> Result<Client, redis::RedisError> {
    crate::transport::choose_cryptography();
    if trust.ca.is_none() && trust.identity.is_none() {
        return Client::open(url);
    }
    let identity = trust.identity.clone();
    let client_tls = identity.map(|(client_cert, client_key)| redis::ClientTlsConfig { client_cert, client_key });
    Client::build_with_tls(url, redis::TlsCertificates { client_tls, root_cert: trust.ca.clone() })
}

#[cfg(not(feature = "tls"))]
fn open(url: &str, _: &Trust) -> Result<Client, redis::RedisError> {
    Client::open(url)
}
