//! By what certificates the connector and the servers know each other.

use std::path::PathBuf;

/// Certificates for the servers of a `rediss://` URL, and for their sentinels. Without them, the authorities of the
/// system are trusted, and the connector shows no certificate.
///
/// The files are read anew for each connection, so that renewed certificates need no restart. PEM, each.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), group_redis::Error> {
/// use group_redis::{GroupConnector, Tls};
///
/// let tls = Tls::new().ca_file("/tls/ca.pem").client_files("/tls/client.pem", "/tls/client.key");
/// let group = GroupConnector::builder("rediss://redis.internal/").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until a builder gets it"]
pub struct Tls {
    pub(crate) ca: Option<PathBuf>,
    /// The certificate, and its key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// The authorities of the system, and no certificate of ours.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this file, instead of those of the system.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Shows the servers this certificate, with what leads to its authority, and proves it by this key (mutual TLS).
    pub fn client_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some((certificate.into(), key.into()));
        self
    }

    /// Expects this name in the certificates of the servers, whatever address they are connected to by: for servers
    /// that are found by an address that is in no certificate, as those that sentinels and clusters announce may be.
    /// Default: the host of the URL, or what was announced.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}
