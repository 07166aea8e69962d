//! A throw-away Redis server for tests, and a proxy that breaks the connections to it: yours as well as ours.
//!
//! [`FaultProxy`] stands between a client and its server, and delays, cuts, withholds or resets what passes.
//!
//! [`TestRedis::start`] answers a real server:
//! 1. the one that `GROUP_REDIS_TEST_URL` names, where that is set: shared, so never flushed, configured or restarted;
//! 2. else a container, where a Docker engine answers and has or can pull the image `GROUP_REDIS_TEST_IMAGE`
//!    (`name[:tag]`, default `redis:7`);
//! 3. else a child process of `redis-server` or `valkey-server`, or of what `GROUP_REDIS_TEST_SERVER` names, on a free
//!    port of 127.0.0.1 and in a folder of its own.
//!
//! [`TestSentinel`] and [`TestCluster`] answer several servers that find each other. What runs them is chosen in the same
//! way, but a server that runs already is none of them: they are child processes then. Their containers share the network of
//! this machine, which needs Linux and an engine on it, and listen on 127.0.0.1 alone.
//!
//! `GROUP_REDIS_TEST_BACKEND` (`url`, `container` or `process`) allows one only, and [`TestRedisBuilder::backend`]
//! overrules the environment. Nothing is skipped in silence: standard error says once which server the tests have, and
//! where there is none, starting fails with what was tried.
//!
//! A server of our own saves nothing by itself, and is gone when the [`TestRedis`] is dropped. It is gone, too, when the
//! test is killed by SIGKILL: a small `sh` waits for the end of the test. For a container, that needs the `docker`
//! command besides the engine.
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

mod access;
mod acl;
mod arguments;
mod backend;
mod builder;
mod certificates;
mod cluster;
mod container;
mod error;
mod guard;
mod launch;
mod log;
mod migration;
mod plan;
mod probe;
mod process;
mod proxy;
mod sentinel;
mod server;

pub use backend::Backend;
pub use builder::TestRedisBuilder;
pub use cluster::TestCluster;
pub use error::TestRedisError;
pub use proxy::{FaultProxy, Flow, Line, Way};
pub use sentinel::TestSentinel;
pub use server::TestRedis;
