//! Key and channel names of a group.
//!
//! Every byte of a user's name outside `[A-Za-z0-9_.~-]` is percent-encoded (RFC 3986, section 2.1, upper-case
//! digits), so that no name can break the hash tag, a pattern or a neighbour. One name has one encoding, and
//! [`decode`] refuses every other spelling: two keys never stand for one member.

use crate::model::MAX_NAME;

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'~' | b'-')
}

/// The one encoding of a name.
pub(crate) fn encode(name: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// The one encoding of a path: a name in which a slash stays one.
pub(crate) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// The path that has this encoding, or `None` where no valid path has.
pub(crate) fn decode_path(encoded: &[u8]) -> Option<String> {
    let part = |part| decode_part(part).filter(|part| !part.contains('/'));
    let parts: Option<Vec<_>> = encoded.split(|byte| *byte == b'/').map(part).collect();
    Some(parts?.join("/")).filter(|path| (1..=MAX_NAME).contains(&path.len()))
}

/// A path as its user knows it, for messages.
pub(crate) fn shown(encoded: &str) -> String {
    decode_path(encoded.as_bytes()).unwrap_or_else(|| encoded.to_owned())
}

/// The name that has this encoding, or `None` where no valid name has.
pub(crate) fn decode(encoded: &[u8]) -> Option<String> {
    decode_part(encoded).filter(|name| (1..=MAX_NAME).contains(&name.len()))
}

fn decode_part(encoded: &[u8]) -> Option<String> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'A'..=b'F' => Some(byte - b'A' + 10),
            _ => None,
        }
    }
    let mut name = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter().copied();
    while let Some(byte) = rest.next() {
        if is_plain(byte) {
            name.push(byte);
        } else if byte == b'%' {
            let byte = digit(rest.next()?)? << 4 | digit(rest.next()?)?;
            if is_plain(byte) {
                return None;
            }
            name.push(byte);
        } else {
            return None;
        }
    }
    String::from_utf8(name).ok()
}

/// The names of one group's keys, all in one hash slot.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(namespace: Option<&str>, group: &str) -> Self {
        let group = encode(group);
        Self {
            prefix: match namespace {
                Some(namespace) => format!("{}/{{{group}}}/", encode(namespace)),
                None => format!("{{{group}}}/"),
            },
        }
    }

    /// What all keys of the group begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn members(&self) -> String {
        format!("{}members", self.prefix)
    }

    pub(crate) fn member(&self, id: &str) -> String {
        format!("{}members/{}", self.prefix, encode(id))
    }

    pub(crate) fn leases(&self) -> String {
        format!("{}leases", self.prefix)
    }

    pub(crate) fn lease(&self, session: &str) -> String {
        format!("{}leases/{session}", self.prefix)
    }

    pub(crate) fn owned(&self, session: &str) -> String {
        format!("{}owned/{session}", self.prefix)
    }

    pub(crate) fn revision(&self) -> String {
        format!("{}revision", self.prefix)
    }

    /// What stands under this path, which is encoded.
    pub(crate) fn at(&self, folder: &str, path: &str) -> String {
        format!("{}{folder}/{path}", self.prefix)
    }

    /// A key that never exists. While a slot moves key by key, both nodes refuse a call that names it, before anything is
    /// done: without it, a script would end half-way, at the first key that has gone.
    pub(crate) fn absent(&self) -> String {
        format!("{}absent", self.prefix)
    }

    pub(crate) fn ephemerals(&self) -> String {
        format!("{}ephemerals", self.prefix)
    }

    pub(crate) fn persistent(&self) -> String {
        format!("{}persistent", self.prefix)
    }

    /// The channel of the inbox messages to this connector.
    pub(crate) fn inbox(&self, connector: &str) -> String {
        format!("{}inbox/{connector}", self.prefix)
    }

    /// The channel on which scripts tell of what they are about to write.
    pub(crate) fn news(&self) -> String {
        format!("{}news", self.prefix)
    }

    /// Subscribed to by the connection that keeps this session's lease.
    pub(crate) fn presence(&self, session: &str) -> String {
        format!("{}presence/{session}", self.prefix)
    }

    pub(crate) fn probers(&self) -> String {
        format!("{}probers", self.prefix)
    }

    pub(crate) fn asks(&self) -> String {
        format!("{}asks", self.prefix)
    }

    pub(crate) fn canary(&self, connector: &str) -> String {
        format!("{}canaries/{connector}", self.prefix)
    }

    /// The pattern of the member keys. No encoded name holds a glob character, so there is nothing to escape.
    pub(crate) fn member_pattern(&self) -> String {
        format!("{}members/*", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_encoding_and_comes_back() {
        for name in ["a", "a:b", "a/b", "*", "?", "[x]", "\\", "{g}", "%", "%41", "\0", "\r\n", "ü", "日本", "a b"] {
            let encoded = encode(name);
            assert!(encoded.bytes().all(|b| is_plain(b) || b == b'%'), "{encoded}");
            assert_eq!(decode(encoded.as_bytes()).as_deref(), Some(name));
        }
        let longest = "*".repeat(MAX_NAME);
        assert_eq!(decode(encode(&longest).as_bytes()).as_deref(), Some(longest.as_str()));
    }

    #[test]
    fn other_spellings_are_nobody() {
        for other in ["", "%41", "%2a", "%", "%2", "%GG", "a b", "a/b", "%FF", "a*"] {
            assert_eq!(decode(other.as_bytes()), None, "{other}");
        }
        assert_eq!(decode("a".repeat(MAX_NAME + 1).as_bytes()), None);
    }

    #[test]
    fn a_path_keeps_its_slashes() {
        for path in ["a", "a/b", "/", "//a/", "a b/%2F/*"] {
            let encoded = encode_path(path);
            assert_eq!(encoded.matches('/').count(), path.matches('/').count());
            assert_eq!(decode_path(encoded.as_bytes()).as_deref(), Some(path));
        }
        for other in ["", "a%2Fb", "%", "a b", "%41/b"] {
            assert_eq!(decode_path(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn keys_of_one_group_never_begin_like_those_of_another() {
        let short = Keys::new(None, "a");
        let long = Keys::new(None, "a-b");
        assert!(!long.member("x").starts_with(short.prefix()));
        assert_eq!(Keys::new(Some("prod"), "g/1").member("x y"), "prod/{g%2F1}/members/x%20y");
    }
}
