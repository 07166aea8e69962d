//! The Lua scripts. Sent by their digest, and loaded when the server says that it does not know them.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("../lua/prelude.lua"), include_str!($file))));
    };
}

script!(JOIN, "../lua/join.lua");
script!(UPDATE, "../lua/update.lua");
script!(LEAVE, "../lua/leave.lua");
script!(CLOSE, "../lua/close.lua");
script!(HEARTBEAT, "../lua/heartbeat.lua");
script!(RENEW, "../lua/renew.lua");
script!(SWEEP, "../lua/sweep.lua");
script!(LIST, "../lua/list.lua");
script!(READ, "../lua/read.lua");
