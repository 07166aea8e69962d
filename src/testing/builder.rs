//! How to start a server.

use super::backend::{self, Backend, URL, setting};
use super::launch::Launched;
use super::{TestRedis, TestRedisError, launch};

/// How to start a server; [`TestRedis::builder`] makes one.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it starts"]
pub struct TestRedisBuilder {
    args: Vec<String>,
    backend: Option<Backend>,
}

impl TestRedisBuilder {
    /// One more argument for the server, as on its command line, such as `--maxmemory`.
    ///
    /// A shared server (`GROUP_REDIS_TEST_URL`) takes no arguments: with one, [`start`](Self::start) fails there.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments for the server.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Allows this backend only, whatever the environment says.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Starts the server and waits until it answers PING.
    ///
    /// # Errors
    /// [`TestRedisError::NoServer`], with what was tried and why each failed; [`TestRedisError::NotOurs`] for arguments
    /// to a shared server.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves no server behind.
    pub async fn start(self) -> Result<TestRedis, TestRedisError> {
        let mut allowed = backend::allowed(self.backend).map_err(TestRedisError::NoServer)?.into_iter().peekable();
        let mut tried = Vec::new();
        while let Some(backend) = allowed.next() {
            match self.start_by(backend).await {
                Ok(server) => return Ok(server),
                Err(error @ TestRedisError::NotOurs(_)) => return Err(error),
                Err(error) => tried.push(format!("{backend}: {error}")),
            }
            if let (Some(next), Some(why)) = (allowed.peek(), tried.last()) {
                launch::say_fallback(why, *next);
            }
        }
        Err(TestRedisError::NoServer(format!("tried {}", tried.join("; "))))
    }

    async fn start_by(&self, backend: Backend) -> Result<TestRedis, TestRedisError> {
        let launched = match backend {
            Backend::Url => {
                if !self.args.is_empty() {
                    return Err(TestRedisError::NotOurs("give the server arguments"));
                }
                let url = setting(URL).ok_or_else(|| TestRedisError::refused("no URL", format!("{URL} is not set")))?;
                launch::find(url).await?
            }
            Backend::Container | Backend::Process => launch::on_a_free_port(backend, &self.args).await?,
        };
        let Launched { port, url, server, identity } = launched;
        backend::announce(backend, &format!("{} {}", identity.name, identity.version), port);
        Ok(TestRedis::new(backend, url, port, identity.version, self.args.clone(), server))
    }
}
