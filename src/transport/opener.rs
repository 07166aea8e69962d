//! Opens connections to a server, or to a sentinel, with the certificates that its files have at that moment.

use redis::{AsyncConnectionConfig, Client, ConnectionInfo};

use crate::error::Error;
use crate::settings::Tls;

#[derive(Clone)]
pub(super) struct Opener {
    tls: Option<Tls>,
}

impl Opener {
    pub(super) fn new(tls: Option<Tls>) -> Self {
        Self { tls }
    }

    /// A client of the server with this address and these settings.
    pub(super) fn client(&self, info: ConnectionInfo) -> Result<Client, Error> {
        match &self.tls {
            None => Client::open(info).map_err(|error| Error::connecting("opening the client", error)),
            Some(tls) => with_certificates(info, tls),
        }
    }

    /// Settings for connections to it. The timeouts are the caller's: redis would count them for each part of a call.
    pub(super) fn complete(&self, settings: AsyncConnectionConfig, info: &ConnectionInfo) -> AsyncConnectionConfig {
        let settings = settings.set_connection_timeout(None).set_response_timeout(None);
        match &self.tls {
            Some(Tls { server_name: Some(_), .. }) => resolved(settings, info),
            _ => settings,
        }
    }

    /// Whether the connections need settings, which a subscription of RESP2 has none of.
    pub(super) fn needs_settings(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.server_name.is_some())
    }
}

#[cfg(not(feature = "tls"))]
fn with_certificates(_: ConnectionInfo, _: &Tls) -> Result<Client, Error> {
    Err(Error::new(crate::error::ErrorKind::Config, "certificates need the feature \"tls\" of group-redis"))
}

#[cfg(not(feature = "tls"))]
fn resolved(settings: AsyncConnectionConfig, _: &ConnectionInfo) -> AsyncConnectionConfig {
    settings
}

#[cfg(feature = "tls")]
pub(super) use certificates::{resolved, with_certificates};

#[cfg(feature = "tls")]
mod certificates {
    use std::net::SocketAddr;
    use std::path::Path;

    use futures_util::FutureExt;
    use redis::io::AsyncDNSResolver;
    use redis::{ClientTlsConfig, ConnectionAddr, RedisError, RedisFuture, TlsCertificates};

    use super::{AsyncConnectionConfig, Client, ConnectionInfo, Error, Tls};

    pub(in crate::transport) fn with_certificates(info: ConnectionInfo, tls: &Tls) -> Result<Client, Error> {
        let root_cert = tls.ca.as_deref().map(read).transpose()?;
        let client_tls = match &tls.client {
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
            None => None,
        };
        let addr = match info.addr().clone() {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params } => {
                let host = tls.server_name.clone().unwrap_or(host);
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            addr => addr,
        };
        Client::build_with_tls(info.set_addr(addr), TlsCertificates { client_tls, root_cert })
            .map_err(|error: RedisError| Error::unusable_certificates(&error.to_string()))
    }

    fn read(path: &Path) -> Result<Vec<u8>, Error> {
        std::fs::read(path)
            .map_err(|error| Error::unusable_certificates(&format!("{} cannot be read: {error}", path.display())))
    }

    /// The address is looked up by its own name, whatever name the certificate is to have.
    pub(in crate::transport) fn resolved(
        settings: AsyncConnectionConfig,
        info: &ConnectionInfo,
    ) -> AsyncConnectionConfig {
        match info.addr() {
            ConnectionAddr::TcpTls { host, .. } => settings.set_dns_resolver(Resolver(host.clone())),
            _ => settings,
        }
    }

    struct Resolver(String);

    impl AsyncDNSResolver for Resolver {
        fn resolve<'a, 'b: 'a>(
            &'a self,
            _: &'b str,
            port: u16,
        ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
            async move {
                let found: Vec<_> = tokio::net::lookup_host((&*self.0, port)).await?.collect();
                let found: Box<dyn Iterator<Item = SocketAddr> + Send> = Box::new(found.into_iter());
                Ok(found)
            }
            .boxed()
        }
    }
}
