//! Group membership on Redis.

#[cfg(feature = "testing")]
pub mod testing;
pub use redis;
