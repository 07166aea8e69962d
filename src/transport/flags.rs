//! The server's `notify-keyspace-events`: merged, never reduced.

use redis::aio::MultiplexedConnection;

use crate::error::{Error, ErrorKind};
use crate::settings::{Config, EventSource, Notifications};

const SETTING: &str = "notify-keyspace-events";
/// How often to set the flags again where others do so at the same time; the canary tells where that was not enough.
const MOST_WRITERS: usize = 10;

/// The flags that hints cannot do without, by source.
fn needed(source: EventSource) -> &'static str {
    match source {
        EventSource::Keyspace => "K$gx",
        EventSource::Keyevent => "E$gx",
        EventSource::Tracking | EventSource::Poll => "",
    }
}

/// What to add where anything is missing. Evictions are not needed, but name the cause of a leave. `K` is what others
/// of the group need, and they may have read the same flags just now: no connector removes a flag that all write.
fn added(source: EventSource) -> &'static str {
    match source {
        EventSource::Keyspace => "K$gxe",
        EventSource::Keyevent => "KE$gxe",
        EventSource::Tracking | EventSource::Poll => "",
    }
}

/// `A` stands for all the classes of events, of which we want some.
fn has(flags: &str, flag: char) -> bool {
    flags.contains(flag) || (flags.contains('A') && "g$lshzxetd".contains(flag))
}

fn missing(flags: &str, wanted: &str) -> String {
    wanted.chars().filter(|flag| !has(flags, *flag)).collect()
}

/// Sees to it that the server notifies, as far as the policy allows.
///
/// Where `CONFIG` is forbidden nothing is wrong yet: the canary tells whether notifications arrive.
pub(super) async fn ensure(
    connection: &mut MultiplexedConnection,
    config: &Config,
    source: EventSource,
) -> Result<(), Error> {
    let needed = needed(source);
    if config.notifications == Notifications::Never || needed.is_empty() {
        return Ok(());
    }
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg(SETTING);
    let flags = match get.query_async::<Vec<String>>(connection).await {
        Ok(answer) => value(answer),
        Err(error) => {
            let error = Error::from_redis("CONFIG GET notify-keyspace-events", error);
            if error.is_of_the_link() {
                return Err(error);
            }
            tracing::warn!(%error, "the notification flags cannot be read; the canary will tell whether they suffice");
            return Ok(());
        }
    };
    if missing(&flags, needed).is_empty() {
        return Ok(());
    }
    if config.notifications == Notifications::Check {
        return Err(Error::new(
            ErrorKind::Notifications,
            format!(
                "notify-keyspace-events is {flags:?} and lacks {:?}: set it to {:?} on the server, or use \
                 Notifications::Enable",
                missing(&flags, needed),
                format!("{flags}{}", missing(&flags, needed)),
            ),
        ));
    }
    let merged = format!("{flags}{}", missing(&flags, added(source)));
    match set(connection, merged).await {
        Ok(after) => tracing::info!(before = flags, after, "keyspace notifications enabled"),
        Err(error) => {
            let error = Error::from_redis("CONFIG SET notify-keyspace-events", error);
            if error.is_of_the_link() {
                return Err(error);
            }
            tracing::warn!(%error, flags, "keyspace notifications could not be enabled: changes are seen late");
        }
    }
    Ok(())
}

/// Sets these flags, and with them those that another client has added since they were read.
async fn set(connection: &mut MultiplexedConnection, mut flags: String) -> redis::RedisResult<String> {
    for _ in 0..MOST_WRITERS {
        let mut both = redis::pipe();
        both.cmd("CONFIG").arg("GET").arg(SETTING);
        both.cmd("CONFIG").arg("SET").arg(SETTING).arg(&flags).ignore();
        let (before,): (Vec<String>,) = both.query_async(connection).await?;
        let lost = missing(&flags, &value(before));
        if lost.is_empty() {
            break;
        }
        flags.push_str(&lost);
    }
    Ok(flags)
}

fn value(answer: Vec<String>) -> String {
    answer.into_iter().nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_and_never_removed() {
        for (flags, lacks) in [("", "K$gx"), ("KEA", ""), ("K$gx", ""), ("El", "K$gx"), ("KA", ""), ("Kg", "$x")] {
            assert_eq!(missing(flags, needed(EventSource::Keyspace)), lacks, "{flags}");
        }
        assert_eq!(missing("KA", needed(EventSource::Keyevent)), "E");
    }
}
