//! Everything that touches a socket. It decides nothing about membership.

mod commands;
mod flags;
mod heartbeat;
mod link;
mod replies;
mod scripts;

pub(crate) use commands::Commands;
pub(crate) use heartbeat::{Beat, Keeper, Keeping, Vouched};
pub(crate) use link::{Dialer, Link};
