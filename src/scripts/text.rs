//! The texts of the scripts, put together, and what redis says of a script that failed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use redis::{RedisError, Script};

use super::Channels;
use crate::error::Error;
use crate::mutant;

const PRELUDE: &str = include_str!("prelude.lua");
const OWNERSHIP: &str = include_str!("ownership.lua");
const SERVER_RUN: &str = include_str!("server_run.lua");

/// The texts of the scripts in use, by their digests: an error names the line where a script failed.
static TEXTS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

fn known(text: &str) -> Script {
    let text = mutant::script(text);
    let script = Script::new(&text);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.get_or_insert_default().insert(script.get_hash().to_owned(), text.into_owned());
    script
}

/// A script with the functions that all share.
pub(super) fn script(text: &str) -> Script {
    known(&[PRELUDE, text].concat())
}

/// A script that asks who owns what.
pub(super) fn ownership_script(text: &str) -> Script {
    known(&[PRELUDE, OWNERSHIP, text].concat())
}

/// A script that uses the channels of connectors.
pub(crate) struct ChannelScript {
    plain: Script,
    sharded: Script,
}

impl ChannelScript {
    /// A script with the functions that all share.
    pub(super) fn new(text: &str) -> Self {
        Self::of(&[PRELUDE, text].concat())
    }

    /// A script that gives something back, and tells those who get it.
    pub(super) fn ownership(text: &str) -> Self {
        Self::of(&[PRELUDE, OWNERSHIP, text].concat())
    }

    /// A script that asks which run of the server this is.
    pub(super) fn server_run(text: &str) -> Self {
        Self::of(&[PRELUDE, SERVER_RUN, text].concat())
    }

    /// A script whose first part does without the shared functions, since making them costs as much as its own work.
    pub(super) fn split(first: &str, rest: &str) -> Self {
        Self::of(&[first, PRELUDE, OWNERSHIP, rest].concat())
    }

    fn of(text: &str) -> Self {
        let sharded = text.replace("'PUBLISH'", "'SPUBLISH'").replace("'NUMSUB'", "'SHARDNUMSUB'");
        Self { plain: known(text), sharded: known(&sharded) }
    }

    pub(crate) fn by(&self, channels: Channels) -> &Script {
        match channels {
            Channels::Plain => &self.plain,
            Channels::Sharded => &self.sharded,
        }
    }
}

/// A script that asks which run of the server this is.
pub(super) fn server_run_script(text: &str) -> Script {
    known(&[PRELUDE, SERVER_RUN, text].concat())
}

/// A script of the user's, behind what checks that it may run. Its lines are not known to errors, nor is it kept.
pub(super) fn user_script(check: &str, text: &str) -> Script {
    Script::new(&format!("{PRELUDE}{OWNERSHIP}{check}return {{'done', (function()\n{text}\nend)()}}"))
}

/// Translates what redis said of a script. Older servers do not say which command a user may not run.
pub(crate) fn failed(call: &str, error: RedisError) -> Error {
    let refused = error.detail().and_then(refused);
    match refused {
        Some(refused) => Error::from_redis_about(call, &refused, error),
        None => Error::from_redis(call, error),
    }
}

/// What the user may not do: what the line that the server names wanted, or loading the script.
fn refused(said: &str) -> Option<String> {
    // Before Redis 7.0 it names the command alone.
    if said.contains("'script' command or its subcommand") {
        return Some("the user may not run script|load".to_owned());
    }
    let line = said.split("@user_script:").nth(1)?.trim_start();
    let line: usize = line.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let digest = said.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 40)?;
    let texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let line = texts.as_ref()?.get(digest)?.lines().nth(line.checked_sub(1)?)?;
    let calls = line.split("call('").skip(1).filter_map(|call| call.split('\'').next());
    let commands: Vec<_> = calls.collect();
    if commands.is_empty() {
        return None;
    }
    let commands = commands.join(" or ");
    Some(match () {
        () if said.contains("keys") => format!("the user may not use a key of the group, in {commands}"),
        () if said.contains("channel") => format!("the user may not use a channel of the group, in {commands}"),
        () => format!("the user may not run {commands}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_not_do_in_a_script_is_read_off_its_line() {
        let text =
            "-- KEYS\nlocal a = redis.call('GET', KEYS[1])\nredis.pcall('ZADD', KEYS[2], redis.call('TIME')[1], a)";
        let digest = known(text).get_hash().to_owned();
        let older = |what: &str, line: u32| {
            refused(&format!("The user executing the script can't {what} script: {digest}, on @user_script:{line}."))
        };
        let run = "run this command or subcommand";
        assert_eq!(older(run, 2).as_deref(), Some("the user may not run GET"));
        assert_eq!(older(run, 3).as_deref(), Some("the user may not run ZADD or TIME"));
        let keys = older("access at least one of the keys mentioned in the command arguments", 2);
        assert_eq!(keys.as_deref(), Some("the user may not use a key of the group, in GET"));
        assert_eq!(older(run, 1), None);
        assert_eq!(older(run, 9), None);
        let newer = format!("User u has no permissions to run the 'get' command script: {digest}, on @user_script:2.");
        assert_eq!(refused(&newer).as_deref(), Some("the user may not run GET"));
        let load = "this user has no permissions to run the 'script' command or its subcommand";
        assert_eq!(refused(load).as_deref(), Some("the user may not run script|load"));
        assert_eq!(refused("Error running script (call to f_0): @user_script:2: @user_script: 2: no"), None);
    }
}
