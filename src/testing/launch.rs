//! Bringing a server up, on a port of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Once};

use redis::ConnectionAddr;
use tempfile::TempDir;

use super::TestRedisError;
use super::backend::{self, Backend};
use super::container::{self, Container};
use super::probe::{self, Identity};
use super::process::{self, Process};

/// Another program may take a free port before the server has it.
const ATTEMPTS: usize = 8;
/// Below the ports that systems give to outgoing connections: while a server is stopped, none of those must take its
/// port, and no client that tries again and again must come to be connected with itself.
const PORTS: std::ops::Range<u16> = 10_240..32_768;

/// What there is of a server.
pub(super) enum Server {
    Foreign,
    Stopped,
    Process(Process),
    Container(Box<Container>),
}

impl Server {
    /// Takes the server out, to end it.
    pub(super) fn take(&mut self, what: &'static str) -> Result<Self, TestRedisError> {
        match self {
            Self::Foreign => Err(TestRedisError::NotOurs(what)),
            running_or_not => Ok(std::mem::replace(running_or_not, Self::Stopped)),
        }
    }

    /// Kills the server and forgets its data.
    pub(super) async fn kill(self) -> Result<(), TestRedisError> {
        match self {
            Self::Container(container) => container.remove().await,
            Self::Process(process) => {
                drop(process);
                Ok(())
            }
            Self::Foreign | Self::Stopped => Ok(()),
        }
    }
}

/// A server that answers.
pub(super) struct Launched {
    pub(super) server: Server,
    pub(super) url: String,
    pub(super) port: u16,
    pub(super) identity: Identity,
}

/// The server that runs already.
pub(super) async fn find(url: String) -> Result<Launched, TestRedisError> {
    let client = redis::Client::open(url.as_str()).map_err(|error| TestRedisError::Redis("reading the URL", error))?;
    let port = match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } => *port,
        _ => 0,
    };
    let identity = probe::wait_until_ready(&url, async || Ok(())).await?;
    Ok(Launched { server: Server::Foreign, url, port, identity })
}

/// A server of our own, without data, on a free port.
pub(super) async fn on_a_free_port(backend: Backend, args: &[String]) -> Result<Launched, TestRedisError> {
    if backend == Backend::Container {
        container::is_available().await?;
    }
    let mut attempt = 1;
    loop {
        let port = free_port(backend)?;
        match on_port(backend, args, port).await {
            Err(TestRedisError::PortTaken(_)) if attempt < ATTEMPTS => attempt += 1,
            answer => return answer,
        }
    }
}

/// A server of our own, without data, on this port.
pub(super) async fn on_port(backend: Backend, args: &[String], port: u16) -> Result<Launched, TestRedisError> {
    if backend == Backend::Container {
        let (container, identity) = Container::start(args, port).await?;
        let url = container.url().to_owned();
        return Ok(Launched { server: Server::Container(Box::new(container)), url, port, identity });
    }
    on_folder(args, port, process::folder()?).await
}

/// A server process with the data that the folder holds.
pub(super) async fn on_folder(args: &[String], port: u16, folder: Arc<TempDir>) -> Result<Launched, TestRedisError> {
    let binary = process::binary().map_err(|why| TestRedisError::refused("no server program", why))?;
    let (process, identity) = Process::start(&binary, args, port, folder).await?;
    Ok(Launched { server: Server::Process(process), url: process::url(port), port, identity })
}

fn free_port(backend: Backend) -> Result<u16, TestRedisError> {
    let address = if backend == Backend::Container { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    // At random, since servers of other test processes look for a port at the same time.
    let random = || uuid::Uuid::new_v4().as_u128() % u128::from(PORTS.end - PORTS.start);
    let ports = std::iter::repeat_with(|| PORTS.start + u16::try_from(random()).unwrap_or_default());
    let free = ports.take(100).find(|port| TcpListener::bind((address, *port)).is_ok());
    free.ok_or_else(|| TestRedisError::refused("looking for a free port", "a hundred were taken"))
}

/// Says once why it is not the backend that comes first.
pub(super) fn say_fallback(why: &str, next: Backend) {
    static SAID: Once = Once::new();
    SAID.call_once(|| backend::say(&format!("no {why}; trying {next}")));
}
