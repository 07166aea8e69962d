//! What redis said, in words of ours: which kind of error it is, whether it passes by itself, and what helps.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind as Said, RedisError, make_extension_error};

use super::ErrorKind;

/// The longest text of a server that a message shows.
const MOST_SHOWN: usize = 300;

/// A server that does not know a command says it back with its arguments, and they may hold a password.
const ARGUMENTS: &str = "args beginning with";

pub(super) const NOT_CONNECTED: &str =
    "look whether the server is frozen or cut off, or wants TLS or none, or allow more by connect_timeout";
pub(super) const NO_ANSWER: &str = "look whether the server is overloaded or cut off, or allow more by command_timeout";

/// What was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    Connecting,
    Call,
}

/// What an answer means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) kind: ErrorKind,
    /// Whether it may pass with nothing changed by the caller.
    pub(super) passes: bool,
    /// Whether the connection is of no use any more: another one may do better.
    pub(super) ends_link: bool,
    /// What to say instead of the words of redis, where these tell less.
    pub(super) reason: Option<&'static str>,
    pub(super) cure: &'static str,
}

const fn passing(kind: ErrorKind, cure: &'static str) -> Verdict {
    Verdict { kind, passes: true, ends_link: false, reason: None, cure }
}

const fn lasting(kind: ErrorKind, cure: &'static str) -> Verdict {
    Verdict { kind, passes: false, ends_link: false, reason: None, cure }
}

impl Verdict {
    const fn ends_link(self) -> Self {
        Self { ends_link: true, ..self }
    }

    const fn says(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

/// The answers of a server that have a meaning of their own: by code, or by words, where the code is lost on the way.
/// Older servers quote the error of a command that fails in a script, and redis drops the code where a connection is
/// set up.
const ANSWERS: [(&str, &str, Verdict); 25] = [
    ("WRONGPASS", "WRONGPASS", lasting(ErrorKind::Denied, "check user and password").ends_link()),
    (
        "NOAUTH",
        "Authentication required",
        lasting(ErrorKind::Denied, "give the URL the user and the password").ends_link(),
    ),
    (
        "DENIED",
        "protected mode",
        lasting(ErrorKind::Denied, "give the server a password, or bind it to an address that you trust").ends_link(),
    ),
    ("NOPERM", "NOPERM", RIGHTS),
    ("", "ACL failure", RIGHTS),
    ("", "The user executing the script", RIGHTS),
    (
        "OOM",
        "OOM command not allowed",
        passing(ErrorKind::OutOfMemory, "the server is out of memory, raise maxmemory or free some"),
    ),
    (
        "WRONGTYPE",
        "WRONGTYPE",
        lasting(ErrorKind::ForeignValue, "a key of this group holds another program's value, remove it"),
    ),
    (
        "READONLY",
        "read only replica",
        lasting(ErrorKind::Server, "the server is a replica, connect to its primary").ends_link(),
    ),
    (
        "MOVED",
        "-MOVED ",
        passing(ErrorKind::Server, "the connector goes to the node that it names by itself, try again").ends_link(),
    ),
    ("ASK", "-ASK ", MIGRATION),
    ("TRYAGAIN", "TRYAGAIN", MIGRATION),
    (
        "",
        "Hash slot not served",
        lasting(ErrorKind::Server, "the node belongs to a cluster that does not serve this group, set up its slots")
            .ends_link(),
    ),
    (
        "CLUSTERDOWN",
        "CLUSTERDOWN",
        passing(ErrorKind::Server, "wait until the cluster is up again, or see to its nodes").ends_link(),
    ),
    (
        "MASTERDOWN",
        "MASTERDOWN",
        passing(ErrorKind::Server, "the server is a replica without a primary, wait or connect to the primary")
            .ends_link(),
    ),
    (
        "LOADING",
        "Redis is loading",
        passing(ErrorKind::Server, "wait until the server has loaded its data").ends_link(),
    ),
    (
        "BUSY",
        "Redis is busy running",
        passing(ErrorKind::Server, "a script runs too long on the server, wait or use SCRIPT KILL").ends_link(),
    ),
    ("NOREPLICAS", "NOREPLICAS", passing(ErrorKind::Server, "bring its replicas back, or lower min-replicas-to-write")),
    ("MISCONF", "MISCONF", passing(ErrorKind::Server, "the server cannot save its data, see to its disk and its log")),
    (
        "",
        "DB index is out of range",
        lasting(
            ErrorKind::Config,
            "choose a database that the server has, or raise its setting databases, cluster-databases in a cluster",
        )
        .ends_link(),
    ),
    (
        "",
        "SELECT is not allowed in cluster mode",
        lasting(ErrorKind::Config, "choose database 0, the only one of a cluster").ends_link(),
    ),
    (
        "",
        "No such master with that name",
        lasting(ErrorKind::Config, "use the name that SENTINEL MASTERS lists").ends_link(),
    ),
    (
        "",
        "undeclared key",
        lasting(
            ErrorKind::Server,
            "let scripts use keys that they do not declare: Dragonfly does with --default_lua_flags=allow-undeclared-keys",
        ),
    ),
    ("", "unknown command", UNKNOWN_COMMAND),
    ("", "Unknown Redis command", UNKNOWN_COMMAND),
];

const UNKNOWN_COMMAND: Verdict = lasting(
    ErrorKind::Server,
    "connect to the Redis server itself, not to a sentinel or a proxy, and let it know the command",
);

const MIGRATION: Verdict =
    passing(ErrorKind::Server, "the slot of this group moves to another node, wait until it is there").ends_link();

const RIGHTS: Verdict =
    lasting(ErrorKind::Denied, "check user and password, and grant the rights of the ACL line in docs/SECURITY-ACL.md");

/// What to think of this error.
pub(super) fn verdict(error: &RedisError, during: During) -> Verdict {
    match error.kind() {
        Said::AuthenticationFailed => lasting(ErrorKind::Denied, "check user and password")
            .ends_link()
            .says("the server refused user or password"),
        Said::RESP3NotSupported => lasting(ErrorKind::Server, "use a server that knows HELLO, Redis 6 or later"),
        Said::InvalidClientConfig if !is_unknown_host(error) => {
            lasting(ErrorKind::Config, "correct the URL, or the features of the crate redis").ends_link()
        }
        Said::Server(_) | Said::Extension => answered(error),
        Said::Parse if during == During::Connecting => {
            lasting(ErrorKind::Server, "check host and port, and use rediss:// where the server wants TLS")
                .ends_link()
                .says("what answers there does not speak the protocol of Redis")
        }
        _ => unanswered(error, during).ends_link(),
    }
}

fn answered(error: &RedisError) -> Verdict {
    let (code, words) = (error.code().unwrap_or_default(), words(error));
    let known = ANSWERS.iter().find(|(of, part, _)| (!of.is_empty() && *of == code) || words.contains(part));
    known.map_or(passing(ErrorKind::Server, "look into the log of the server"), |(_, _, verdict)| *verdict)
}

/// No answer came, or none that can be one.
fn unanswered(error: &RedisError, during: During) -> Verdict {
    let io = io_error(error);
    if io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)) {
        return passing(ErrorKind::Timeout, if during == During::Connecting { NOT_CONNECTED } else { NO_ANSWER });
    }
    if during == During::Call {
        return passing(ErrorKind::Connection, "the connector connects again by itself, try again");
    }
    if let Some(verdict) = tls_fault(io) {
        return verdict;
    }
    let cure = match () {
        () if error.is_connection_refusal() => "start the server there, or correct the address",
        () if is_unknown_host(error) => "correct the name of the host, or see to the DNS",
        () => "check the address, and what is between here and the server",
    };
    passing(ErrorKind::Connection, cure)
}

fn is_unknown_host(error: &RedisError) -> bool {
    let words = error.to_string();
    words.contains("lookup address information") || words.contains("No address found")
}

/// The error of the system in it, if it is one.
fn io_error(error: &RedisError) -> Option<&io::Error> {
    let inner = error.source()?;
    inner.downcast_ref::<Arc<dyn StdError + Send + Sync>>()?.downcast_ref()
}

/// What to think of a fault of TLS, if it is one.
#[cfg(feature = "tls")]
fn tls_fault(io: Option<&io::Error>) -> Option<Verdict> {
    use rustls::{AlertDescription as Alert, Error};

    let cure = match io?.get_ref()?.downcast_ref()? {
        Error::InvalidCertificate(_) => {
            "use a certificate that this host trusts and that has the server's name, or give its CA by Tls::ca_file"
        }
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => "the server refuses the client's certificate, give one that it trusts by Tls::client_files",
        _ => "check that the port is the server's port for TLS",
    };
    Some(lasting(ErrorKind::Connection, cure))
}

#[cfg(not(feature = "tls"))]
fn tls_fault(_: Option<&io::Error>) -> Option<Verdict> {
    None
}

/// The words of redis, on one line.
pub(super) fn said(error: &RedisError) -> String {
    let words = words(error);
    // Where in a script it was stands in the source.
    let is_place = |rest: &str| rest.bytes().take_while(u8::is_ascii_hexdigit).count() == 40;
    match words.rsplit_once(" script: ") {
        Some((words, rest)) if is_place(rest) => words.to_owned(),
        _ => words,
    }
}

fn words(error: &RedisError) -> String {
    one_line(&match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    })
}

/// Text of others as a part of a message: on one line, and not too long.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if let Some((end, _)) = line.char_indices().nth(MOST_SHOWN) {
        line.truncate(end);
        line.push_str("..");
    }
    line
}

/// The same error without the arguments that a server quotes.
pub(super) fn without_arguments(error: RedisError) -> RedisError {
    let words = error.to_string();
    let Some(end) = words.find(ARGUMENTS) else { return error };
    let code = error.code().unwrap_or("ERR").to_owned();
    let detail = error.detail().unwrap_or(&words[..end]);
    let end = detail.find(ARGUMENTS).unwrap_or(detail.len());
    let detail = detail[..end].trim_end_matches([',', ' ']).trim_end_matches("with").trim_end_matches([',', ' ']);
    make_extension_error(code, Some(detail.to_owned()))
}
