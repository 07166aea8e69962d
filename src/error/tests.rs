//! Every answer that has a meaning of its own, and what comes of it.

use std::error::Error as _;
use std::io;

use redis::{ErrorKind as Said, RedisError, parse_redis_value};

use super::*;

fn answer(line: &str) -> RedisError {
    let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
    value.extract_error().unwrap_err()
}

/// The kind, whether it passes by itself, whether another link may help, and a part of the cure.
type Row<'a> = (RedisError, ErrorKind, bool, bool, &'a str);

fn check(translate: impl Fn(RedisError) -> Error, rows: Vec<Row<'_>>) {
    for (said, kind, passes, ends_link, cure) in rows {
        let error = translate(said.clone()).at(&"h:1, database 0".into());
        let seen = (error.kind(), error.is_retryable(), error.is_of_the_link());
        assert_eq!(seen, (kind, passes, ends_link), "{said}: {error:?}");
        let line = error.to_string();
        assert!(line.starts_with("h:1, database 0: ") && !line.contains(['\n', '\r']), "{line:?}");
        assert!(line.rsplit_once("; ").is_some_and(|(_, last)| last.contains(cure)), "{line:?} lacks {cure:?}");
        assert!(error.source().is_some_and(|source| source.downcast_ref::<RedisError>().is_some()), "{error:?}");
    }
}

#[test]
fn an_answer_to_a_call_has_its_kind_and_its_cure() {
    use ErrorKind::*;
    let rows = vec![
        (answer("WRONGPASS invalid username-password pair"), Denied, false, true, "password"),
        (answer("NOAUTH Authentication required."), Denied, false, true, "the password"),
        (answer("DENIED Redis is running in protected mode because"), Denied, false, true, "trust"),
        (answer("NOPERM this user has no permissions to run 'x'"), Denied, false, false, "ACL line"),
        (answer("ERR The user executing the script can't run this command"), Denied, false, false, "ACL line"),
        (answer("ERR ACL failure in script: x"), Denied, false, false, "ACL line"),
        (answer("OOM command not allowed when used memory > 'maxmemory'."), OutOfMemory, true, false, "maxmemory"),
        (answer("ERR Error running script: -OOM command not allowed"), OutOfMemory, true, false, "maxmemory"),
        (answer("WRONGTYPE Operation against a key"), ForeignValue, false, false, "remove it"),
        (answer("READONLY You can't write against a read only replica."), Server, false, true, "primary"),
        (answer("ERR Error: -READONLY You can't write against a read only replica."), Server, false, true, "primary"),
        (answer("MOVED 3999 127.0.0.1:6381"), Server, true, true, "the node"),
        (answer("ASK 3999 127.0.0.1:6381"), Server, true, true, "moves to another node"),
        (
            answer("TRYAGAIN Multiple keys request during rehashing of slot"),
            Server,
            true,
            true,
            "moves to another node",
        ),
        (answer("ERR No such master with that name"), Config, false, true, "SENTINEL MASTERS"),
        (answer("CLUSTERDOWN Hash slot not served"), Server, false, true, "slots"),
        (answer("CLUSTERDOWN The cluster is down"), Server, true, true, "cluster"),
        (answer("MASTERDOWN Link with MASTER is down"), Server, true, true, "primary"),
        (answer("LOADING Redis is loading the dataset in memory"), Server, true, true, "loaded"),
        (answer("BUSY Redis is busy running a script."), Server, true, true, "SCRIPT KILL"),
        (answer("NOREPLICAS Not enough good replicas to write."), Server, true, false, "min-replicas"),
        (answer("MISCONF Redis is configured to save RDB snapshots"), Server, true, false, "disk"),
        (answer("ERR DB index is out of range"), Config, false, true, "databases"),
        (answer("ERR SELECT is not allowed in cluster mode"), Config, false, true, "database 0"),
        (answer("ERR unknown command 'EVALSHA', with args beginning with: 'a' "), Server, false, false, "sentinel"),
        (answer("ERR Error running script: script tried accessing undeclared key"), Server, false, false, "declare"),
        (answer("ERR Unknown Redis command called from script"), Server, false, false, "the command"),
        (answer("ERR something else\r\x0b of many lines"), Server, true, false, "log"),
        (io::Error::from(io::ErrorKind::TimedOut).into(), Timeout, true, true, "command_timeout"),
        (io::Error::from(io::ErrorKind::BrokenPipe).into(), Connection, true, true, "connects again"),
        ((Said::RESP3NotSupported, "no HELLO").into(), Server, false, false, "Redis 6"),
    ];
    for (said, kind, ..) in &rows {
        let is_known = !matches!(kind, Timeout | Connection);
        assert_eq!(Error::from_redis("x", said.clone()).is_unapplied(), is_known, "{said}");
    }
    check(|said| Error::from_redis("x", said), rows);
}

#[test]
fn a_connection_that_was_not_made_has_its_kind_and_its_cure_and_changed_nothing() {
    use ErrorKind::*;
    let lookup = "failed to lookup address information: Name or service not known";
    let parsed = parse_redis_value(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err();
    let rows = vec![
        (io::Error::from(io::ErrorKind::ConnectionRefused).into(), Connection, true, true, "start the server"),
        (io::Error::other(lookup).into(), Connection, true, true, "DNS"),
        ((Said::InvalidClientConfig, "No address found for host").into(), Connection, true, true, "DNS"),
        (io::Error::from(io::ErrorKind::ConnectionReset).into(), Connection, true, true, "address"),
        (io::Error::from(io::ErrorKind::TimedOut).into(), Timeout, true, true, "connect_timeout"),
        ((Said::AuthenticationFailed, "Password authentication failed").into(), Denied, false, true, "password"),
        ((Said::InvalidClientConfig, "Cannot create insecure client").into(), Config, false, true, "features"),
        (parsed, Server, false, true, "rediss://"),
        (answer("ERR DB index is out of range"), Config, false, true, "databases"),
        (answer("LOADING Redis is loading the dataset in memory"), Server, true, true, "loaded"),
        (answer("ERR max number of clients reached"), Server, true, false, "log"),
    ];
    for (said, ..) in &rows {
        assert!(Error::connecting("x", said.clone()).is_unapplied(), "{said}");
    }
    check(|said| Error::connecting("x", said), rows);
}

#[cfg(feature = "tls")]
#[test]
fn a_certificate_that_is_not_trusted_does_not_pass() {
    let broken = |error: rustls::Error| RedisError::from(io::Error::new(io::ErrorKind::InvalidData, error));
    let untrusted = || broken(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
    let kind = ErrorKind::Connection;
    let rows = vec![
        (untrusted(), kind, false, true, "trusts"),
        (broken(rustls::Error::DecryptError), kind, false, true, "port for TLS"),
    ];
    check(|said| Error::connecting("x", said), rows);
    // A line that has stood is only broken by it.
    check(|said| Error::from_redis("x", said), vec![(untrusted(), kind, true, true, "connects again")]);
}

#[test]
fn arguments_that_a_server_quotes_are_told_nowhere_and_the_reason_is() {
    let refusals = [
        "ERR unknown command 'AUTH', with args beginning with: 'app' 'hunter2' ",
        "ERR unknown command `AUTH`, with args beginning with: `app`, `hunter2`, ",
    ];
    for refusal in refusals {
        for error in [Error::from_redis("x", answer(refusal)), Error::connecting("x", answer(refusal))] {
            let source = error.source().unwrap();
            let told = format!("{error} {error:?} {source} {source:?}");
            assert!(told.contains("unknown command") && told.contains("AUTH"), "{told}");
            assert!(!told.contains("hunter2") && !told.contains("args"), "{told}");
        }
    }
}

#[test]
fn a_reason_is_taken_over_with_its_cure_and_becomes_the_source() {
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    let reason = Error::connecting("connecting", refused.into());
    let error = Error::no_link("join", Duration::from_secs(1)).because(Some(&reason));
    let said = error.to_string();
    assert!(said.contains("join") && said.contains("connecting failed") && said.contains("start the server"), "{said}");
    assert!(!said.contains("status") && error.source().unwrap().downcast_ref::<Error>().is_some());
    assert_eq!((error.kind(), error.is_unapplied()), (ErrorKind::Timeout, true));
    let alone = Error::no_link("join", Duration::from_secs(1)).because(None);
    assert!(alone.to_string().contains("status") && alone.source().is_none());
}

#[test]
fn what_ends_a_link_may_pass_for_who_goes_on_trying() {
    let replica = || Error::from_redis("x", answer("READONLY You can't write against a read only replica."));
    assert!(!replica().is_retryable() && replica().while_reconnecting().is_retryable());
    let foreign = Error::from_redis("x", answer("WRONGTYPE Operation against a key"));
    assert!(!foreign.while_reconnecting().is_retryable());
}

#[test]
fn text_of_others_is_one_line_and_not_too_long() {
    assert_eq!(one_line(" a\r\n\tb\0c  d "), "a b c d");
    assert_eq!(one_line(&"ü ".repeat(500)).chars().count(), 302);
}
