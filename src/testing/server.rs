//! The server that a test gets, whatever runs it.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::launch::{self, Launched, Server};
use super::plan::{Endpoint, Plan};
use super::{Backend, TestRedisBuilder, TestRedisError, probe};

/// How long a connection of [`TestRedis::connection`] may take to be there, and to answer.
const CONNECT: Duration = Duration::from_secs(5);
const RESPONSE: Duration = Duration::from_secs(10);

/// A real Redis server for one test. Dropped, it is gone with all its data.
///
/// Dropping waits until the server is gone: some milliseconds for a process, up to a second for a container.
pub struct TestRedis {
    backend: Backend,
    plan: Plan,
    endpoint: Endpoint,
    port: u16,
    version: String,
    /// 0 where there is none.
    pid: AtomicU32,
    server: Mutex<Server>,
}

impl TestRedis {
    /// Starts a server with the default settings, and waits until it answers PING.
    ///
    /// # Errors
    /// [`TestRedisError::NoServer`], with what was tried and why each failed.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves no server behind.
    pub async fn start() -> Result<Self, TestRedisError> {
        Self::builder().start().await
    }

    /// To give the server arguments, or to choose what runs it.
    pub fn builder() -> TestRedisBuilder {
        TestRedisBuilder::default()
    }

    pub(super) fn new(backend: Backend, plan: Plan, launched: Launched) -> Self {
        let Launched { port, endpoint, server, identity } = launched;
        let pid = AtomicU32::new(pid_of(&server));
        Self { backend, plan, endpoint, port, version: identity.version, pid, server: Mutex::new(server) }
    }

    /// The URL to connect to, with the login where there is one; it stays the same over a restart.
    ///
    /// It logs in as the first [`user`](TestRedisBuilder::user), else as the default user, or where that one may not log
    /// in, as one of the users that the arguments name. A URL cannot say which certificate to trust: with
    /// [`tls`](TestRedisBuilder::tls), use [`client`](Self::client).
    #[must_use]
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// The URL to connect to as this user; `None` where there is none of that name, or none whose password is known.
    /// The name of the default user is `default`.
    #[must_use]
    pub fn url_as(&self, user: &str) -> Option<&str> {
        self.endpoint.urls.iter().find(|(name, _)| name == user).map(|(_, url)| url.as_str())
    }

    /// A client with the login of the URL, which trusts the certificate of the server, for
    /// [`GroupConnector::from_client`](crate::GroupConnector::from_client).
    #[must_use]
    pub fn client(&self) -> redis::Client {
        self.endpoint.client.clone()
    }

    /// The file, in PEM, with the certificate that a client of this server has to trust. `None` without TLS. A program in
    /// whose environment `SSL_CERT_FILE` names this file can connect by the URL alone.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.endpoint.ca_file.as_deref()
    }

    /// The port of that URL; 0 where it names a Unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What runs the server.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The server's version by its own words, such as `7.0.15`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the server is the test's own, to stop and freeze.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.backend != Backend::Url
    }

    /// The server's process id, where it is a process of this machine and runs. A restart changes it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// A new connection, with 5 s to connect and 10 s for an answer. It does not connect again after a restart.
    ///
    /// It may do everything, where there is a user who may: the URL's need not be that one.
    ///
    /// # Errors
    /// What the redis crate says.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        probe::connect(&self.endpoint.own, CONNECT, RESPONSE).await
    }

    /// Kills the server, as `kill -9` would; its data are gone. Does nothing to one that is stopped.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], or what the engine says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server is killed all the same.
    pub async fn stop(&self) -> Result<(), TestRedisError> {
        self.kill(&mut *self.server.lock().await, "stop the server").await
    }

    /// Starts a server that was stopped, on the same port and with the same arguments, without data. Waits until it
    /// answers PING.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], [`TestRedisError::Running`], or why it did not start; it is stopped then.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server is stopped.
    pub async fn start_again(&self) -> Result<(), TestRedisError> {
        let server = &mut *self.server.lock().await;
        match server {
            Server::Foreign => Err(TestRedisError::NotOurs("start the server again")),
            Server::Process(_) | Server::Container(_) => Err(TestRedisError::Running("start the server again")),
            Server::Stopped => self.launch(server).await,
        }
    }

    /// Kills the server and starts it again without data. Waits until it answers PING.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop) and [`start_again`](Self::start_again).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server runs on or is stopped.
    pub async fn restart_empty(&self) -> Result<(), TestRedisError> {
        let server = &mut *self.server.lock().await;
        self.kill(server, "restart the server").await?;
        self.launch(server).await
    }

    /// Shuts the server down so that it saves its data, and starts it again with them. Waits until it answers PING.
    ///
    /// Settings made by `CONFIG SET` are no data: they are gone.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], [`TestRedisError::Stopped`], or why it did not save or start; after the latter it is
    /// stopped.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server runs on or is stopped, its data lost.
    pub async fn restart_with_data(&self) -> Result<(), TestRedisError> {
        self.restart_with_data_after(Duration::ZERO).await
    }

    /// As [`restart_with_data`](Self::restart_with_data), and stays away for so long in between.
    ///
    /// # Errors
    /// As for [`restart_with_data`](Self::restart_with_data).
    ///
    /// # Cancel safety
    /// As for [`restart_with_data`](Self::restart_with_data).
    pub async fn restart_with_data_after(&self, outage: Duration) -> Result<(), TestRedisError> {
        const WHAT: &str = "restart the server with its data";
        let server = &mut *self.server.lock().await;
        match server {
            Server::Foreign => return Err(TestRedisError::NotOurs(WHAT)),
            Server::Stopped => return Err(TestRedisError::Stopped(WHAT)),
            Server::Process(_) | Server::Container(_) => self.shut_down().await?,
        }
        self.start_on_what_is_saved(server, WHAT, outage).await
    }

    /// Kills the server, as `kill -9` would, and starts it again with what it had saved last: by `SAVE`, `BGSAVE`, or an
    /// append-only file. Waits until it answers PING.
    ///
    /// # Errors
    /// As for [`restart_with_data`](Self::restart_with_data).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server runs on or is stopped, its data lost.
    pub async fn crash_and_restart(&self) -> Result<(), TestRedisError> {
        self.crash_and_restart_after(Duration::ZERO).await
    }

    /// As [`crash_and_restart`](Self::crash_and_restart), and stays away for so long in between: long enough for others
    /// to elect another primary, say. A node of a cluster is the same node when it is back.
    ///
    /// # Errors
    /// As for [`restart_with_data`](Self::restart_with_data).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server runs on or is stopped, its data lost.
    pub async fn crash_and_restart_after(&self, outage: Duration) -> Result<(), TestRedisError> {
        const WHAT: &str = "crash the server";
        let server = &mut *self.server.lock().await;
        match server {
            Server::Foreign => return Err(TestRedisError::NotOurs(WHAT)),
            Server::Stopped => return Err(TestRedisError::Stopped(WHAT)),
            Server::Process(process) => process.signal("KILL").await?,
            Server::Container(container) => container.kill().await?,
        }
        self.start_on_what_is_saved(server, WHAT, outage).await
    }

    /// Waits for the end of a server that is about to end, and starts it again where it was.
    async fn start_on_what_is_saved(
        &self,
        server: &mut Server,
        what: &'static str,
        outage: Duration,
    ) -> Result<(), TestRedisError> {
        self.pid.store(0, Ordering::Relaxed);
        *server = match server.take(what)? {
            Server::Process(process) => {
                let folder = process.wait_for_end().await?;
                sleep(outage).await;
                launch::on_folder(&self.plan, self.port, folder).await?.server
            }
            Server::Container(container) => {
                sleep(outage).await;
                container.start_again(&self.endpoint, self.port).await?;
                Server::Container(container)
            }
            other => other,
        };
        self.pid.store(pid_of(server), Ordering::Relaxed);
        Ok(())
    }

    /// Stops the server in its tracks (SIGSTOP): its connections stay, nothing is answered.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], [`TestRedisError::Stopped`], or what the engine or the system says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may be frozen or not.
    pub async fn freeze(&self) -> Result<(), TestRedisError> {
        const WHAT: &str = "freeze the server";
        match &*self.server.lock().await {
            Server::Foreign => Err(TestRedisError::NotOurs(WHAT)),
            Server::Stopped => Err(TestRedisError::Stopped(WHAT)),
            Server::Process(process) => process.signal("STOP").await,
            Server::Container(container) => container.pause().await,
        }
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], [`TestRedisError::Stopped`], or what the engine or the system says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may be frozen or not.
    pub async fn thaw(&self) -> Result<(), TestRedisError> {
        const WHAT: &str = "thaw the server";
        match &*self.server.lock().await {
            Server::Foreign => Err(TestRedisError::NotOurs(WHAT)),
            Server::Stopped => Err(TestRedisError::Stopped(WHAT)),
            Server::Process(process) => process.signal("CONT").await,
            Server::Container(container) => container.unpause().await,
        }
    }

    async fn kill(&self, server: &mut Server, what: &'static str) -> Result<(), TestRedisError> {
        let ending = server.take(what)?;
        self.pid.store(0, Ordering::Relaxed);
        ending.kill().await
    }

    async fn launch(&self, server: &mut Server) -> Result<(), TestRedisError> {
        *server = launch::on_port(self.backend, &self.plan, self.port).await?.server;
        self.pid.store(pid_of(server), Ordering::Relaxed);
        Ok(())
    }

    /// Saves the data and ends the server; what ends the connection with it is no error.
    async fn shut_down(&self) -> Result<(), TestRedisError> {
        let refused = |error| TestRedisError::Redis("shutting the server down", error);
        let mut connection = self.connection().await.map_err(refused)?;
        let answer = redis::cmd("SHUTDOWN").arg("SAVE").query_async::<()>(&mut connection).await;
        match answer {
            Err(error) if !error.is_connection_dropped() => Err(refused(error)),
            _ => Ok(()),
        }
    }
}

fn pid_of(server: &Server) -> u32 {
    match server {
        Server::Process(process) => process.pid().unwrap_or_default(),
        Server::Foreign | Server::Stopped | Server::Container(_) => 0,
    }
}

impl fmt::Debug for TestRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestRedis")
            .field("backend", &self.backend)
            .field("version", &self.version)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
