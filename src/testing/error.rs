//! Why there is no server.

use std::time::Duration;

/// Why a test server could not be started, or could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestRedisError {
    /// No backend could start a server. The text says what was tried and why each failed.
    #[error("no Redis server for this test. {0}")]
    NoServer(String),
    /// The server is somebody else's: it is not for a test to stop or freeze.
    #[error("{0} needs a server of its own, and this one is shared; unset GROUP_REDIS_TEST_URL")]
    NotOurs(&'static str),
    /// The server did not do what was asked in time.
    #[error("{0} did not happen within {1:?}")]
    Timeout(&'static str, Duration),
    /// The server answered with an error.
    #[error("{0}: {1}")]
    Redis(&'static str, #[source] redis::RedisError),
    /// The engine or the operating system refused.
    #[error("{0}: {1}")]
    Refused(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TestRedisError {
    pub(super) fn refused(what: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(what, error.into())
    }
}
