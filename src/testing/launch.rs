//! Bringing a server up, on a port of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Once};
use std::time::Duration;

use redis::ConnectionAddr;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::TestRedisError;
use super::backend::{self, Backend};
use super::container::{self, Container};
use super::plan::{Endpoint, Plan};
use super::probe::{self, Identity, Port};
use super::process::{self, Process};

/// Another program may take a free port before the server has it.
const ATTEMPTS: usize = 8;
/// How long another program may have a port that must be this one, and how often to try.
const OCCUPIED: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_millis(50);
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
    pub(super) endpoint: Endpoint,
    pub(super) port: u16,
    pub(super) identity: Identity,
}

/// What runs servers that have to find each other. A server that runs already is one alone, so it is none of them.
pub(super) async fn backend_of_several() -> Result<Backend, TestRedisError> {
    let allowed = backend::allowed(None).map_err(TestRedisError::NoServer)?;
    let can_be_containers = cfg!(target_os = "linux");
    match allowed[..] {
        [Backend::Container] if can_be_containers => Ok(Backend::Container),
        [Backend::Container] => {
            let why = "containers that find each other share the network of this machine, which needs Linux";
            Err(TestRedisError::unsuitable(why))
        }
        [Backend::Container, ..] if can_be_containers && container::is_available().await.is_ok() => {
            Ok(Backend::Container)
        }
        _ => Ok(Backend::Process),
    }
}

/// The server that runs already.
pub(super) async fn find(url: String) -> Result<Launched, TestRedisError> {
    let endpoint = Endpoint::at(url).map_err(|error| TestRedisError::Redis("reading the URL", error))?;
    let port = match endpoint.own.get_connection_info().addr() {
        ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } => *port,
        _ => 0,
    };
    let identity = probe::wait_until_ready(&endpoint.own, async || Ok(Port::Reserved)).await?;
    Ok(Launched { server: Server::Foreign, endpoint, port, identity })
}

/// A server of our own, without data, on the port that is asked for, or else on a free one.
pub(super) async fn anew(backend: Backend, plan: &Plan) -> Result<Launched, TestRedisError> {
    if backend == Backend::Container {
        container::is_available().await?;
    }
    if let Some(port) = plan.fixed_port() {
        return on_port(backend, plan, port).await;
    }
    let mut attempt = 1;
    loop {
        let port = free_port(backend)?;
        match try_port(backend, plan, port).await {
            Err(TestRedisError::PortTaken(_)) if attempt < ATTEMPTS => attempt += 1,
            answer => return answer,
        }
    }
}

/// A server of our own, without data, on this port, as soon as nobody else has it.
pub(super) async fn on_port(backend: Backend, plan: &Plan, port: u16) -> Result<Launched, TestRedisError> {
    once_it_is_free(async || try_port(backend, plan, port).await).await
}

/// Tries again for a while, as long as the port is in use: another program may come to have it while there is no server.
pub(super) async fn once_it_is_free<T>(
    start: impl AsyncFn() -> Result<T, TestRedisError>,
) -> Result<T, TestRedisError> {
    let deadline = Instant::now() + OCCUPIED;
    loop {
        match start().await {
            Err(TestRedisError::PortTaken(_)) if Instant::now() < deadline => sleep(BETWEEN).await,
            answer => return answer,
        }
    }
}

async fn try_port(backend: Backend, plan: &Plan, port: u16) -> Result<Launched, TestRedisError> {
    if backend == Backend::Container {
        let (container, endpoint, identity) = Container::start(plan, port).await?;
        return Ok(Launched { server: Server::Container(Box::new(container)), endpoint, port, identity });
    }
    in_folder(plan, port, Arc::new(process::folder()?)).await
}

/// A server process with the data that the folder holds, as soon as nobody else has the port.
pub(super) async fn on_folder(plan: &Plan, port: u16, folder: Arc<TempDir>) -> Result<Launched, TestRedisError> {
    once_it_is_free(async || in_folder(plan, port, folder.clone()).await).await
}

async fn in_folder(plan: &Plan, port: u16, folder: Arc<TempDir>) -> Result<Launched, TestRedisError> {
    let binary = process::binary().map_err(|why| TestRedisError::refused("no server program", why))?;
    let endpoint = plan.endpoint(process::HOST, port)?;
    let (process, identity) = Process::start(&binary, plan, &endpoint, port, folder).await?;
    Ok(Launched { server: Server::Process(process), endpoint, port, identity })
}

pub(super) fn free_port(backend: Backend) -> Result<u16, TestRedisError> {
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
