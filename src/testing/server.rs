//! The server that a test gets, whatever runs it.

use std::fmt;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep, timeout};

use super::TestRedisError;
use super::container::{self, Container};
use super::process::{self, Process};

/// How long anything that is asked of a server may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to ask whether it has.
const PAUSE: Duration = Duration::from_millis(5);
/// A free port may be taken by somebody else before the server has it.
const ATTEMPTS: usize = 5;

/// What runs a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Somebody else, at `GROUP_REDIS_TEST_URL`.
    Url,
    /// A Docker engine.
    Container,
    /// This process.
    Process,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "url",
            Self::Container => "container",
            Self::Process => "process",
        })
    }
}

/// How to start a server.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it starts"]
pub struct TestRedisBuilder {
    args: Vec<String>,
    backend: Option<Backend>,
}

impl TestRedisBuilder {
    /// One more argument for the server, as on its command line.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments for the server.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Allows this backend only.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// [`TestRedisError::NoServer`], with what was tried.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves no server behind.
    pub async fn start(self) -> Result<TestRedis, TestRedisError> {
        let allowed = match self.backend {
            Some(backend) => Some(backend),
            None => match std::env::var("GROUP_REDIS_TEST_BACKEND").as_deref() {
                Ok("url") => Some(Backend::Url),
                Ok("container") => Some(Backend::Container),
                Ok("process") => Some(Backend::Process),
                Ok(other) => {
                    let message = format!("GROUP_REDIS_TEST_BACKEND is {other:?}: it is url, container or process");
                    return Err(TestRedisError::NoServer(message));
                }
                Err(_) => None,
            },
        };
        let mut tried = Vec::new();
        for backend in [Backend::Url, Backend::Container, Backend::Process] {
            if allowed.is_some_and(|allowed| allowed != backend) {
                continue;
            }
            match self.start_by(backend).await {
                Ok(server) => return Ok(server.announced()),
                Err(why) => tried.push(format!("{backend}: {why}")),
            }
        }
        Err(TestRedisError::NoServer(format!("Tried {}", tried.join("; "))))
    }

    async fn start_by(&self, backend: Backend) -> Result<TestRedis, String> {
        match backend {
            Backend::Url => {
                let url = std::env::var("GROUP_REDIS_TEST_URL").map_err(|_| "GROUP_REDIS_TEST_URL is not set")?;
                TestRedis::answering(url, 0, Running::Url).await.map_err(|error| error.to_string())
            }
            Backend::Container => {
                // Without an engine or the image, the next test would wait for the same refusal.
                static REFUSED: OnceCell<String> = OnceCell::const_new();
                if let Some(why) = REFUSED.get() {
                    return Err(why.clone());
                }
                let refusal = match self.start_on_a_port(backend).await {
                    Ok(server) => return Ok(server),
                    Err(why) => format!("{why} (image {})", container::image()),
                };
                Err(REFUSED.get_or_init(|| async { refusal }).await.clone())
            }
            Backend::Process => self.start_on_a_port(backend).await,
        }
    }

    async fn start_on_a_port(&self, backend: Backend) -> Result<TestRedis, String> {
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let port = free_port().map_err(|error| error.to_string())?;
            let running = match backend {
                Backend::Process => Process::start(process::binary()?, &self.args, port).map(Running::Process),
                _ => Container::start(&self.args, port).await.map(Running::Container),
            };
            let started = match running {
                Ok(running) => TestRedis::answering(format!("redis://127.0.0.1:{port}/"), port, running).await,
                Err(error) => Err(error),
            };
            match started {
                Ok(server) => return Ok(server),
                Err(error) => why = error.to_string(),
            }
            if !why.contains("already") {
                break;
            }
        }
        Err(why)
    }
}

fn free_port() -> std::io::Result<u16> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr().map(|address| address.port())
}

enum Running {
    Url,
    Container(Container),
    Process(Process),
}

/// A real Redis server for one test. Dropped, it is gone with all its data.
pub struct TestRedis {
    url: String,
    port: u16,
    version: String,
    running: Mutex<Running>,
    backend: Backend,
    pid: Option<u32>,
    /// There is a dump that the server would load.
    saved: AtomicBool,
}

impl TestRedis {
    /// Starts a server with the default settings.
    ///
    /// # Errors
    /// [`TestRedisError::NoServer`], with what was tried.
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

    async fn answering(url: String, port: u16, running: Running) -> Result<Self, TestRedisError> {
        let (backend, pid) = match &running {
            Running::Url => (Backend::Url, None),
            Running::Container(_) => (Backend::Container, None),
            Running::Process(process) => (Backend::Process, Some(process.pid())),
        };
        let mut server = Self {
            url,
            port,
            version: String::new(),
            running: Mutex::new(running),
            backend,
            pid,
            saved: AtomicBool::new(false),
        };
        let info = server.answer().await?;
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        if let (Some(pid), Some(theirs)) = (pid, field("process_id:"))
            && pid.to_string() != theirs
        {
            return Err(TestRedisError::refused("starting the server", "its port was already taken"));
        }
        server.version = field("valkey_version:").or_else(|| field("redis_version:")).unwrap_or_default();
        Ok(server)
    }

    #[expect(clippy::print_stderr, reason = "which server a test run had is never silent")]
    fn announced(self) -> Self {
        static ANNOUNCED: [Once; 3] = [const { Once::new() }; 3];
        ANNOUNCED[self.backend as usize].call_once(|| {
            eprintln!("TestRedis: {} {} on port {}", self.backend, self.version, self.port);
        });
        self
    }

    /// Waits until the server answers, and answers what it says of itself.
    async fn answer(&self) -> Result<String, TestRedisError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = async { redis::cmd("INFO").arg("server").query_async(&mut self.connection().await?).await };
            match timeout(PATIENCE, info).await {
                Ok(Ok(info)) => return Ok(info),
                Ok(Err(error)) if Instant::now() >= deadline => {
                    return Err(TestRedisError::Redis("waiting for the server's answer", error));
                }
                Err(_) => return Err(TestRedisError::Timeout("an answer of the server", PATIENCE)),
                Ok(Err(_)) => sleep(PAUSE).await,
            }
        }
    }

    /// The URL to connect to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port on 127.0.0.1, or 0 where the server is somebody else's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What runs it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The server's version, such as `7.0.15`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the server is the test's own, to stop and freeze.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.backend != Backend::Url
    }

    /// The server's process id as it was started first, where it is a child of this process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// A connection of the redis crate's, with 5 s to connect and 10 s for an answer.
    ///
    /// # Errors
    /// What the redis crate says.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connection(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(10)));
        redis::Client::open(self.url.as_str())?.get_multiplexed_async_connection_with_config(&settings).await
    }

    /// Kills the server, as `kill -9` would.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], or what the engine says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may run or not.
    pub async fn stop(&self) -> Result<(), TestRedisError> {
        match &mut *self.running.lock().await {
            Running::Url => Err(TestRedisError::NotOurs("stop")),
            Running::Container(container) => container.kill().await,
            Running::Process(process) => {
                process.kill();
                Ok(())
            }
        }
    }

    /// Starts a server that was stopped, on the same port, with what it had saved: nothing, as a rule.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], or that it does not answer in time.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may run or not.
    pub async fn start_again(&self) -> Result<(), TestRedisError> {
        match &mut *self.running.lock().await {
            Running::Url => return Err(TestRedisError::NotOurs("start_again")),
            Running::Container(container) => container.run().await?,
            Running::Process(process) => process.run()?,
        }
        self.answer().await.map(drop)
    }

    /// Restarts the server without its data.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop) and [`start_again`](Self::start_again).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may run or not.
    pub async fn restart_empty(&self) -> Result<(), TestRedisError> {
        if self.saved.swap(false, Ordering::Relaxed) {
            match &*self.running.lock().await {
                Running::Process(process) => process.forget_data(),
                Running::Container(_) | Running::Url => self.say("emptying the dump", &["FLUSHALL", "SAVE"]).await?,
            }
        }
        self.stop().await?;
        self.start_again().await
    }

    /// Saves the server's data and restarts it with them.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop) and [`start_again`](Self::start_again).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may run or not.
    pub async fn restart_with_data(&self) -> Result<(), TestRedisError> {
        if !self.is_own() {
            return Err(TestRedisError::NotOurs("restart_with_data"));
        }
        self.say("saving", &["SAVE"]).await?;
        self.saved.store(true, Ordering::Relaxed);
        self.stop().await?;
        self.start_again().await
    }

    async fn say(&self, what: &'static str, commands: &[&str]) -> Result<(), TestRedisError> {
        let failed = |error| TestRedisError::Redis(what, error);
        let mut connection = self.connection().await.map_err(failed)?;
        for command in commands {
            redis::cmd(command).query_async::<()>(&mut connection).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Stops the server in its tracks: its connections stay, nothing is answered.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], or what the engine says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may be frozen or not.
    pub async fn freeze(&self) -> Result<(), TestRedisError> {
        match &*self.running.lock().await {
            Running::Url => Err(TestRedisError::NotOurs("freeze")),
            Running::Container(container) => container.pause().await,
            Running::Process(process) => process.signal("-STOP"),
        }
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// [`TestRedisError::NotOurs`], or what the engine says.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the server may be frozen or not.
    pub async fn thaw(&self) -> Result<(), TestRedisError> {
        match &*self.running.lock().await {
            Running::Url => Err(TestRedisError::NotOurs("thaw")),
            Running::Container(container) => container.unpause().await,
            Running::Process(process) => process.signal("-CONT"),
        }
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
