//! The Lua scripts. Sent by their digest, and loaded when the server says that it does not know them.

use std::sync::LazyLock;

use redis::Script;

use crate::mutant;

fn script(text: &str) -> Script {
    Script::new(&mutant::script(text))
}

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| script(concat!(include_str!("../lua/prelude.lua"), include_str!($file))));
    };
}

/// A script that gives something back, or takes what was given back.
macro_rules! estate_script {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            script(concat!(include_str!("../lua/prelude.lua"), include_str!("../lua/estate.lua"), include_str!($file)))
        });
    };
}

/// A script whose first part does without the shared functions, since making them costs as much as its own work.
macro_rules! split_script {
    ($name:ident, $first:literal, $rest:literal) => {
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            script(concat!(
                include_str!($first),
                include_str!("../lua/prelude.lua"),
                include_str!("../lua/estate.lua"),
                include_str!($rest)
            ))
        });
    };
}

script!(OPEN, "../lua/open.lua");
script!(JOIN, "../lua/join.lua");
script!(UPDATE, "../lua/update.lua");
script!(LEAVE, "../lua/leave.lua");
estate_script!(CLOSE, "../lua/close.lua");
script!(HEARTBEAT, "../lua/heartbeat.lua");
script!(RENEW, "../lua/renew.lua");
script!(PROBERS, "../lua/probers.lua");
script!(SHORTEN, "../lua/shorten.lua");
estate_script!(SWEEP, "../lua/sweep.lua");
script!(LIST, "../lua/list.lua");
script!(READ, "../lua/read.lua");
estate_script!(EXTEND, "../lua/extend.lua");
split_script!(ACQUIRE, "../lua/acquire.lua", "../lua/enqueue.lua");
split_script!(RELEASE, "../lua/release.lua", "../lua/handover.lua");
estate_script!(BREAK, "../lua/break.lua");
script!(STORE, "../lua/store.lua");
script!(ERASE, "../lua/erase.lua");
estate_script!(LOOK, "../lua/look.lua");
script!(CATALOG, "../lua/catalog.lua");
script!(PERSIST, "../lua/persist.lua");
script!(EXCHANGE, "../lua/exchange.lua");
script!(RECALL, "../lua/recall.lua");
script!(REMOVE, "../lua/remove.lua");
estate_script!(FENCE, "../lua/fence.lua");

/// What is put before a script of the user's.
pub(super) const FENCED: &str =
    concat!(include_str!("../lua/prelude.lua"), include_str!("../lua/estate.lua"), include_str!("../lua/fenced.lua"));

estate_script!(INSPECT, "../lua/inspect.lua");
