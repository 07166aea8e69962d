//! The Lua scripts, each beside the one function that calls it and the one that reads its answer.
//!
//! A function lists keys and arguments in the order of the script's header. It sends nothing: `transport` does. The
//! scripts are sent by their digest, and loaded when the server says that it does not know them.

mod call;
mod fields;
pub(crate) mod lock;
pub(crate) mod member;
pub(crate) mod persistent;
pub(crate) mod presence;
pub(crate) mod session;
mod text;
pub(crate) mod value;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use call::{BatchRequest, BatchScript, ScriptCall};
pub(crate) use fields::number;

use crate::wire::Keys;

/// By what channels messages go to a connector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Channels {
    /// Those of `PUBLISH`. In a cluster each message goes to every node.
    #[default]
    Plain,
    /// Those of `SPUBLISH`: a message stays at the node that serves the group.
    Sharded,
}

/// What the arguments of many scripts say of this connector and its group.
#[derive(Debug)]
pub(crate) struct ScriptContext {
    pub(crate) keys: Keys,
    pub(crate) connector: String,
    /// The start of a lease's value, which names its holder.
    pub(crate) holder: String,
    pub(crate) ttl: Duration,
    /// The safety ttl of what a session owns.
    pub(crate) safety: Duration,
    /// Whether messages go by [`Channels::Sharded`]: as the server that was connected to last wants it.
    pub(crate) is_sharded: AtomicBool,
}

impl ScriptContext {
    pub(crate) fn channels(&self) -> Channels {
        if self.is_sharded.load(Ordering::Relaxed) { Channels::Sharded } else { Channels::Plain }
    }

    pub(crate) fn set_channels(&self, channels: Channels) {
        self.is_sharded.store(channels == Channels::Sharded, Ordering::Relaxed);
    }
}

pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where a listing goes on, in the order of the revisions.
fn range_after(after: Option<u64>) -> String {
    after.map_or_else(|| "-inf".to_owned(), |after| format!("({after}"))
}
