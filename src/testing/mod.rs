//! A throw-away Redis server for tests: yours as well as ours.
//!
//! [`TestRedis::start`] answers a real server, in this order:
//! 1. the one that `GROUP_REDIS_TEST_URL` names: shared, never flushed, never restarted;
//! 2. a container, where a Docker engine answers and has or can pull the image `GROUP_REDIS_TEST_IMAGE`
//!    (default `redis:7`);
//! 3. a child process of `redis-server` or `valkey-server` on a free port, or of what `GROUP_REDIS_TEST_SERVER`
//!    names, in a folder of its own; it dies with the test, even one that is killed.
//!
//! `GROUP_REDIS_TEST_BACKEND` (`url`, `container` or `process`) allows one only. Nothing is skipped in silence: which
//! one serves is printed once, and where there is none, starting fails and says what was tried.
//!
//! # Examples
//! ```no_run
//! use group_redis::{GroupConnector, testing::TestRedis};
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let redis = TestRedis::start().await?;
//! let group = GroupConnector::builder(redis.url()).group("my-test").connect().await?;
//! group.join("me").await?;
//! redis.restart_empty().await?;
//! group.wait_for(std::time::Duration::from_secs(10), |view| view.contains("me")).await?;
//! # Ok(())
//! # }
//! ```

mod container;
mod error;
mod process;
mod server;

pub use error::TestRedisError;
pub use server::{Backend, TestRedis, TestRedisBuilder};
