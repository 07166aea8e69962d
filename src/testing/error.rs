//! Why there is no server, or why it did not do what was asked.

use std::time::Duration;

/// What the engine, the operating system or a server said.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a test server could not be started, or could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestRedisError {
    /// No backend could start a server. The text says what was tried and why each failed.
    #[error("no Redis server for this test; {0}")]
    NoServer(String),
    /// The server was not started here: a test must not stop, freeze or configure it.
    #[error(
        "cannot {0}: the server at GROUP_REDIS_TEST_URL is shared; unset GROUP_REDIS_TEST_URL for a server of its own"
    )]
    NotOurs(&'static str),
    /// The builder's settings, or the arguments, do not fit together or with this build.
    #[error("cannot start such a test server: {0}")]
    Unsuitable(String),
    /// The server has no command for this. Nothing was done.
    #[error("the server cannot {0}")]
    Lacking(&'static str),
    /// The server was stopped; start it again first.
    #[error("cannot {0}: the server is stopped; call start_again first")]
    Stopped(&'static str),
    /// The server runs; stop it first.
    #[error("cannot {0}: the server is running; call stop first, or restart_empty instead")]
    Running(&'static str),
    /// The server ended by itself, as it does on an argument it does not know. The text is the end of its log.
    #[error("the server ended by itself: {0}")]
    Ended(String),
    /// Another program has the port.
    #[error("port {0} is already in use; end the program that has it, or let the test server choose its port")]
    PortTaken(u16),
    /// The request was not done in time. The text is the last that was heard.
    #[error("{0} did not happen within {1:?}: {2}")]
    Timeout(&'static str, Duration, String),
    /// The server answered with an error, or not at all.
    #[error("{0}: {1}")]
    Redis(&'static str, #[source] redis::RedisError),
    /// The engine or the operating system refused.
    #[error("{0}: {1}")]
    Refused(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TestRedisError {
    pub(super) fn unsuitable(why: impl Into<String>) -> Self {
        Self::Unsuitable(why.into())
    }

    /// The server ended; its log is the reason.
    pub(super) fn ended(log: &str) -> Self {
        let is_unknown = log.contains("'tls-") && log.contains("Bad directive");
        // A server that takes TLS from a module knows the directives in any case.
        let knows_no_tls = is_unknown || log.contains("Failed finding TLS support");
        let cure = if knows_no_tls { " (it was built without TLS: use a server that was built with it)" } else { "" };
        Self::Ended(format!("{log}{cure}"))
    }

    pub(super) fn refused(what: &'static str, cause: impl Into<Cause>) -> Self {
        Self::Refused(what, cause.into())
    }
}
