//! How to start a server.

use std::fmt;

use super::access::NewUser;
use super::backend::{self, Backend, URL, setting};
use super::plan::{Network, Plan};
use super::probe::Identity;
use super::{TestRedis, TestRedisError, container, launch};

/// How to start a server; [`TestRedis::builder`] makes one.
///
/// # Examples
/// ```no_run
/// use group_redis::{GroupConnector, testing::TestRedis};
///
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// let redis = TestRedis::builder().user("app", "secret").tls().start().await?;
/// let group = GroupConnector::from_client(redis.client()).group("my-test").connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until it starts"]
pub struct TestRedisBuilder {
    pub(super) args: Vec<String>,
    pub(super) password: Option<String>,
    pub(super) users: Vec<NewUser>,
    pub(super) tls: bool,
    pub(super) network: Network,
    backend: Option<Backend>,
}

impl TestRedisBuilder {
    /// One more argument for the server, as on its command line, such as `--maxmemory`. It overrules what else is set.
    ///
    /// Arguments that decide how to reach the server are understood, also over restarts: `--port`, `--requirepass`,
    /// `--user` and `--aclfile` with passwords in clear, `--tls-port` and the `--tls-..-file`s. What a file that is
    /// included sets is not.
    ///
    /// A shared server (`GROUP_REDIS_TEST_URL`) takes no arguments, and none of the following settings: with one,
    /// [`start`](Self::start) fails there. Its URL may hold user, password and `rediss://`.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments for the server.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Gives the default user a password, which then stands in [`url`](TestRedis::url).
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds an ACL user with all rights. The first one stands in [`url`](TestRedis::url), the others in
    /// [`url_as`](TestRedis::url_as).
    ///
    /// Nobody gets in without a login then: the default user gets a random password, if not one by
    /// [`password`](Self::password). Needs Redis 6.2 or later.
    ///
    /// With an `--aclfile`, this tells the password of a user whose hash stands there.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.push(NewUser { name: name.into(), password: password.into(), rules: None });
        self
    }

    /// The same, for a user with these rights instead of all, by rules as of `ACL SETUSER`: `~jobs:*`, `+get`.
    pub fn user_with_rules<T: Into<String>>(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
        rules: impl IntoIterator<Item = T>,
    ) -> Self {
        let rules = Some(rules.into_iter().map(Into::into).collect());
        self.users.push(NewUser { name: name.into(), password: password.into(), rules });
        self
    }

    /// Lets the server speak TLS, and nothing else, with a certificate made for it.
    ///
    /// [`client`](TestRedis::client) trusts it, and [`ca_file`](TestRedis::ca_file) is what others have to trust. Needs
    /// the feature `tls`, and a server that was built with TLS. Clients need no certificate, unless
    /// `--tls-auth-clients yes` is an argument.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Allows this backend only, whatever the environment says.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// As one of several servers that have to find each other.
    pub(super) fn beside_others(mut self, backend: Backend) -> Self {
        self.network = Network::Host;
        self.backend(backend)
    }

    /// Starts the server and waits until it answers PING.
    ///
    /// # Errors
    /// [`TestRedisError::NoServer`], with what was tried and why each failed; [`TestRedisError::NotOurs`] for settings of
    /// a shared server; [`TestRedisError::Unsuitable`] for settings that do not fit together.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, it leaves no server behind.
    pub async fn start(self) -> Result<TestRedis, TestRedisError> {
        let mut allowed = backend::allowed(self.backend).map_err(TestRedisError::NoServer)?.into_iter().peekable();
        let mut tried = Vec::new();
        while let Some(backend) = allowed.next() {
            match self.start_by(backend).await {
                Ok(server) => return Ok(server),
                Err(error @ (TestRedisError::NotOurs(_) | TestRedisError::Unsuitable(_))) => return Err(error),
                Err(error) => tried.push(format!("{backend}: {error}")),
            }
            if let (Some(next), Some(why)) = (allowed.peek(), tried.last()) {
                launch::say_fallback(why, *next);
            }
        }
        Err(TestRedisError::NoServer(format!("tried {}", tried.join("; "))))
    }

    async fn start_by(&self, backend: Backend) -> Result<TestRedis, TestRedisError> {
        if let Some(what) = self.first_setting().filter(|_| backend == Backend::Url) {
            return Err(TestRedisError::NotOurs(what));
        }
        let names = if backend == Backend::Container { container::host_names() } else { Vec::new() };
        let plan = Plan::new(self, names)?;
        let launched = match backend {
            Backend::Url => {
                let url = setting(URL).ok_or_else(|| TestRedisError::refused("no URL", format!("{URL} is not set")))?;
                launch::find(url).await?
            }
            Backend::Container | Backend::Process => launch::anew(backend, &plan).await?,
        };
        let Identity { name, version, .. } = &launched.identity;
        backend::announce(backend, &format!("{name} {version}"), launched.port);
        Ok(TestRedis::new(backend, plan, launched))
    }

    /// What a shared server cannot have.
    fn first_setting(&self) -> Option<&'static str> {
        let settings = [
            (!self.args.is_empty(), "give the server arguments"),
            (self.password.is_some(), "give the server a password"),
            (!self.users.is_empty(), "give the server users"),
            (self.tls, "let the server speak TLS"),
        ];
        settings.into_iter().find_map(|(is_set, what)| is_set.then_some(what))
    }
}

impl fmt::Debug for TestRedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither users nor arguments: they may hold passwords.
        f.debug_struct("TestRedisBuilder")
            .field("backend", &self.backend)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
