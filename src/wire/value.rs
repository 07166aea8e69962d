//! A value that dies with its session: one head line, a newline, and the bytes as they were given.

use serde::Deserialize;

use crate::model::{Revision, SessionId};

/// What stands in such a value's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueRecord {
    pub(crate) session: SessionId,
    pub(crate) revision: Revision,
    pub(crate) bytes: Vec<u8>,
}

impl ValueRecord {
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            v: u64,
            session: String,
            revision: u64,
        }
        let end = value.iter().position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(&value[..end]).ok()?;
        let bytes = value[end + 1..].to_vec();
        (head.v == 1).then(|| Self {
            session: SessionId::new(head.session),
            revision: Revision::new(head.revision),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_come_back_as_they_were() {
        for bytes in [&b""[..], b"\n", b"{\"v\":1}\n", b"\xff\x00"] {
            let mut value = br#"{"v":1,"session":"c-1","nonce":3,"revision":9,"until":0}"#.to_vec();
            value.push(b'\n');
            value.extend(bytes);
            let stored = ValueRecord::parse(&value).unwrap();
            assert_eq!((stored.revision.get(), stored.session.as_str(), &stored.bytes[..]), (9, "c-1", bytes));
        }
    }

    #[test]
    fn what_is_not_ours_is_none() {
        let other = br#"{"v":2,"session":"c","nonce":3,"revision":9,"until":0}"#;
        for other in [&b""[..], b"text", b"text\n", b"{}\n", &[other, &b"\n"[..]].concat()] {
            assert_eq!(ValueRecord::parse(other), None);
        }
    }
}
