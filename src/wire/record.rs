//! The member record: what stands in a member's key.
//!
//! A record is one JSON object whose first fields are written in one order, so that a script can compare and
//! renew its head without parsing the rest: `{"v":1,"incarnation":..,"session":"..","nonce":..,"revision":..,
//! "joined":..,` and then the tail, which the client writes: tags and metadata.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{Incarnation, Member, MemberDraft, MemberId, Metadata, Revision, SessionId};

/// What stood in a member's key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Ours(Member),
    /// A record of ours that does not parse, or of a version that this crate does not know.
    Unreadable(String),
    /// Text that another program set.
    Foreign,
}

#[derive(Deserialize)]
struct Parsed<'a> {
    v: u64,
    incarnation: u64,
    session: String,
    revision: u64,
    joined: u64,
    #[serde(default)]
    tags: BTreeSet<String>,
    text: Option<String>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Tail<'a> {
    tags: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

/// How the record of this incarnation begins. A session that knows this prefix owns the member.
pub(crate) fn record_head(incarnation: Incarnation, session: &SessionId) -> String {
    format!("{{\"v\":1,\"incarnation\":{incarnation},\"session\":\"{session}\",")
}

/// The part of the record that the client writes, with the closing brace.
pub(crate) fn record_tail(draft: &MemberDraft) -> Result<String, serde_json::Error> {
    let tail = serde_json::to_string(&Tail {
        tags: &draft.tags,
        text: match &draft.metadata {
            Metadata::Text(text) => Some(text),
            Metadata::None | Metadata::Json(_) => None,
        },
        meta: match &draft.metadata {
            Metadata::Json(json) => Some(json),
            Metadata::None | Metadata::Text(_) => None,
        },
    })?;
    Ok(tail[1..].to_owned())
}

/// Reads the value of a member's key.
pub(crate) fn parse(id: &MemberId, value: &[u8]) -> Record {
    if !value.starts_with(b"{\"v\":") {
        return Record::Foreign;
    }
    match serde_json::from_slice::<Parsed<'_>>(value) {
        Ok(parsed) if parsed.v == 1 => Record::Ours(Member::new(
            id.clone(),
            Incarnation::new(parsed.incarnation),
            Revision::new(parsed.revision),
            SessionId::new(parsed.session),
            parsed.joined,
            MemberDraft {
                tags: parsed.tags,
                metadata: match (parsed.text, parsed.meta) {
                    (_, Some(json)) => Metadata::Json(json.to_owned()),
                    (Some(text), None) => Metadata::Text(text.into()),
                    (None, None) => Metadata::None,
                },
            },
        )),
        Ok(parsed) => Record::Unreadable(format!("version {} of the record is not known here", parsed.v)),
        Err(error) => Record::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(draft: &MemberDraft) -> String {
        let head = record_head(Incarnation::new(7), &SessionId::new("s-1"));
        format!("{head}\"nonce\":3,\"revision\":9,\"joined\":1700,{}", record_tail(draft).unwrap())
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let id = MemberId::known("a");
        for metadata in [
            Metadata::None,
            Metadata::Text("".into()),
            Metadata::Text("\"}\r\n\0ü".into()),
            Metadata::Json(RawValue::from_string("{\"port\": 80}".into()).unwrap()),
        ] {
            let draft = MemberDraft { tags: ["b", "a"].map(str::to_owned).into(), metadata };
            let Record::Ours(member) = parse(&id, written(&draft).as_bytes()) else { panic!("{draft:?}") };
            assert_eq!(member.draft(), draft);
            assert_eq!((member.incarnation().get(), member.revision().get()), (7, 9));
            assert_eq!(member.joined_at_ms(), 1700);
        }
    }

    #[test]
    fn what_is_not_ours_is_said_to_be_so() {
        let id = MemberId::known("a");
        assert_eq!(parse(&id, b""), Record::Foreign);
        assert_eq!(parse(&id, b"\xff\xfe"), Record::Foreign);
        assert_eq!(parse(&id, b"{\"port\":80}"), Record::Foreign);
        assert!(matches!(parse(&id, b"{\"v\":1,"), Record::Unreadable(_)));
        assert!(matches!(
            parse(&id, br#"{"v":2,"incarnation":1,"session":"s","revision":1,"joined":1}"#),
            Record::Unreadable(why) if why.contains("version 2")
        ));
    }
}
