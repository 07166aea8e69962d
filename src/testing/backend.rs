//! What can run a server, and which of them a test run may use.

use std::fmt;
use std::io::Write;
use std::sync::Once;

/// What runs a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// A server that runs already, at `GROUP_REDIS_TEST_URL`.
    Url,
    /// A Docker engine.
    Container,
    /// This process, by a child of its own.
    Process,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "url",
            Self::Container => "container",
            Self::Process => "process",
        })
    }
}

pub(super) const URL: &str = "GROUP_REDIS_TEST_URL";
pub(super) const IMAGE: &str = "GROUP_REDIS_TEST_IMAGE";
pub(super) const SERVER: &str = "GROUP_REDIS_TEST_SERVER";
const BACKEND: &str = "GROUP_REDIS_TEST_BACKEND";

/// A variable of the environment; one that is empty counts as not set.
pub(super) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The backends to try, in order: what the code asks for, else what the environment asks for, else any.
///
/// A URL is a choice too: if its server does not answer, another server would hide that.
pub(super) fn allowed(asked: Option<Backend>) -> Result<Vec<Backend>, String> {
    if let Some(backend) = asked {
        return Ok(vec![backend]);
    }
    match setting(BACKEND).as_deref() {
        Some("url") => Ok(vec![Backend::Url]),
        Some("container") => Ok(vec![Backend::Container]),
        Some("process") => Ok(vec![Backend::Process]),
        Some(other) => Err(format!("{BACKEND} is {other:?}: it must be url, container or process")),
        None if setting(URL).is_some() => Ok(vec![Backend::Url]),
        None => Ok(vec![Backend::Container, Backend::Process]),
    }
}

/// Says once per process and backend which server the tests have.
pub(super) fn announce(backend: Backend, server: &str, port: u16) {
    static SAID: [Once; 3] = [const { Once::new() }; 3];
    SAID[backend as usize].call_once(|| say(&format!("{backend} {server} on port {port}")));
}

/// Writes past the capture of the test harness, which would show it only with a test that fails.
pub(super) fn say(line: &str) {
    // A closed standard error is no reason to fail a test.
    let _ = std::io::stderr().write_all(format!("TestRedis: {line}\n").as_bytes());
}
