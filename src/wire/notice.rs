//! Keyspace and keyevent notifications: channel and payload to a key and its event.
//!
//! Source: <https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/>.

use super::names::{Keys, decode, decode_path};
use super::news::News;
use crate::model::MemberId;

/// The event that a notification names. It is a hint: it says where to read, never what to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyEvent {
    Set,
    Deleted,
    Expired,
    Evicted,
    /// A new time to live. Of interest only for members that another program keeps.
    Expire,
    Other,
}

impl KeyEvent {
    fn parse(event: &[u8]) -> Self {
        match event {
            b"set" => Self::Set,
            b"del" => Self::Deleted,
            b"expired" => Self::Expired,
            b"evicted" => Self::Evicted,
            b"expire" => Self::Expire,
            _ => Self::Other,
        }
    }
}

/// One notification that concerns this connector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    Member(MemberId, KeyEvent),
    News(News),
    Canary(KeyEvent),
    /// A value or a lock, by its path with its folder, encoded.
    Path(String, KeyEvent),
    /// A key among the member keys that no name encodes to.
    Stray(String),
    /// The server said that anything may have changed.
    Everything,
}

/// The key of an invalidation message, which names no event.
pub(crate) fn invalidated(keys: &Keys, canary: &str, key: &[u8]) -> Option<Notice> {
    about(keys, canary, key, b"invalidated")
}

/// `__keyspace@<db>__:<key>` with the event as payload.
pub(crate) fn keyspace(keys: &Keys, canary: &str, channel: &[u8], payload: &[u8]) -> Option<Notice> {
    let colon = channel.iter().position(|byte| *byte == b':')?;
    about(keys, canary, &channel[colon + 1..], payload)
}

/// `__keyevent@<db>__:<event>` with the key as payload.
pub(crate) fn keyevent(keys: &Keys, canary: &str, channel: &[u8], payload: &[u8]) -> Option<Notice> {
    let colon = channel.iter().position(|byte| *byte == b':')?;
    about(keys, canary, payload, &channel[colon + 1..])
}

fn about(keys: &Keys, canary: &str, key: &[u8], event: &[u8]) -> Option<Notice> {
    let key_event = KeyEvent::parse(event);
    if key == canary.as_bytes() {
        return Some(Notice::Canary(key_event));
    }
    let path = key.strip_prefix(keys.prefix().as_bytes())?;
    if let Some(encoded) = path.strip_prefix(b"ephemerals/").or_else(|| path.strip_prefix(b"locks/")) {
        // What no path encodes to is neither.
        decode_path(encoded)?;
        return Some(Notice::Path(String::from_utf8(path.to_vec()).ok()?, key_event));
    }
    Some(match decode(path.strip_prefix(b"members/")?) {
        Some(id) => Notice::Member(MemberId::known(&id), key_event),
        None => Notice::Stray(String::from_utf8_lossy(key).into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, key_event: KeyEvent) -> Option<Notice> {
        Some(Notice::Member(MemberId::known(id), key_event))
    }

    #[test]
    fn both_sources_say_the_same() {
        let keys = Keys::new(None, "g");
        for (event, key_event) in [
            ("set", KeyEvent::Set),
            ("del", KeyEvent::Deleted),
            ("expired", KeyEvent::Expired),
            ("evicted", KeyEvent::Evicted),
            ("expire", KeyEvent::Expire),
            ("rename_to", KeyEvent::Other),
        ] {
            let by_space = keyspace(&keys, "c", b"__keyspace@3__:{g}/members/a%3Ab", event.as_bytes());
            let by_event = keyevent(&keys, "c", format!("__keyevent@3__:{event}").as_bytes(), b"{g}/members/a%3Ab");
            assert_eq!(by_space, member("a:b", key_event));
            assert_eq!(by_event, by_space);
        }
    }

    #[test]
    fn other_keys_are_none_of_ours_and_strange_ones_are_named() {
        let keys = Keys::new(None, "g");
        assert_eq!(keyspace(&keys, "c", b"__keyspace@0__:{g2}/members/a", b"set"), None);
        assert_eq!(keyspace(&keys, "c", b"__keyspace@0__:{g}/members", b"zadd"), None);
        assert_eq!(keyspace(&keys, "c", b"nonsense", b"set"), None);
        assert_eq!(
            keyspace(&keys, "c", b"__keyspace@0__:{g}/members/a b", b"set"),
            Some(Notice::Stray("{g}/members/a b".into()))
        );
        assert_eq!(keyspace(&keys, "c", b"__keyspace@0__:c", b"del"), Some(Notice::Canary(KeyEvent::Deleted)));
    }
}
