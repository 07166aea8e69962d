//! Everything that touches a socket. It decides nothing about membership.

mod combine;
mod commands;
mod data;
mod fences;
mod flags;
mod heartbeat;
mod link;
mod listener;
mod locks;
mod overdue;
mod replies;

pub(crate) use commands::Commands;
pub(crate) use data::{Stow, StowAnswer, unexpected};
pub(crate) use fences::FencedWrite;
pub(crate) use heartbeat::{Beat, Keeper, Keeping, Vouched};
pub(crate) use link::{Dialer, Letterbox, Link};
pub(crate) use redis::FromRedisValue;
