//! Everything that touches a socket. It decides nothing about membership.

mod batcher;
mod commands;
#[cfg(feature = "tls")]
mod cryptography;
mod deadlines;
mod flags;
mod heartbeat;
mod heartbeat_connection;
mod heartbeat_thread;
mod link;
mod listener;
mod locks;
mod login;
mod opener;
mod replication;
mod topology;
mod vouched;

pub(crate) use commands::Commands;
#[cfg(feature = "tls")]
pub(crate) use cryptography::choose_cryptography;
pub(crate) use heartbeat::{Beat, KeptLease, LeaseKeeper};
pub(crate) use link::{Access, Dialer, InboxSink, Link};
pub(crate) use redis::FromRedisValue;
pub(crate) use topology::{Sentinels, Servers};
pub(crate) use vouched::Vouched;
#[cfg(test)]
pub(crate) use {heartbeat_thread::Looked, vouched::Vouch};
