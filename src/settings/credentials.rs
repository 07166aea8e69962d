//! Who the connector is to the server, where that changes in the course of time.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

type Failure = Box<dyn StdError + Send + Sync>;

/// A user and a password, as a source of credentials answers them.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use group_redis::Credentials;
///
/// let token = Credentials::new("app", "a token of the cloud").expires_in(Duration::from_secs(3600));
/// let password = Credentials::password("of the default user");
/// assert!(!format!("{token:?} {password:?}").contains("token of"), "no secret is shown");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Option<String>,
    password: String,
    expires_in: Option<Duration>,
}

impl Credentials {
    /// This user, with its password or token.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password: password.into(), expires_in: None }
    }

    /// The default user, with the server's password.
    #[must_use]
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into(), expires_in: None }
    }

    /// For how long the server takes them, from now on. Default: for as long as the connector lives.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(time);
        self
    }

    pub(crate) fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("default")
    }

    pub(crate) fn secret(&self) -> &str {
        &self.password
    }

    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.expires_in
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, password: _, expires_in } = self;
        f.debug_struct("Credentials").field("user", user).field("expires_in", expires_in).finish_non_exhaustive()
    }
}

/// What is asked for credentials.
#[derive(Clone)]
pub(crate) struct CredentialsSource(Arc<dyn Fn() -> BoxFuture<'static, Result<Credentials, Failure>> + Send + Sync>);

impl CredentialsSource {
    pub(crate) fn new<F, E>(source: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Failure>,
    {
        Self(Arc::new(move || {
            let asking = source();
            async move { asking.await.map_err(Into::into) }.boxed()
        }))
    }

    pub(crate) fn ask(&self) -> BoxFuture<'static, Result<Credentials, Failure>> {
        (self.0)()
    }
}
