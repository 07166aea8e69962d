//! News: what a script tells of the change that it is about to write.

use std::sync::Arc;
use std::time::Duration;

use super::names::decode;
use super::record::{Record, parse};
use crate::model::{Incarnation, LeaveCause, Member, MemberId};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// This record is written next. Of one that joins, how long its lease lives.
    Present { member: Arc<Member>, due: Option<Duration> },
    /// These incarnations are over.
    Gone { cause: LeaveCause, members: Vec<(MemberId, Incarnation)> },
}

impl News {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = word(payload)?;
        match kind {
            b"joined" => {
                let (id, rest) = word(rest)?;
                let (due, record) = word(rest)?;
                present(id, Some(Duration::from_millis(number(due)?)), record)
            }
            b"updated" => {
                let (id, record) = word(rest)?;
                present(id, None, record)
            }
            b"left" => gone(LeaveCause::Left, rest),
            b"expired" => gone(LeaveCause::Expired, rest),
            _ => None,
        }
    }

    /// Whom it is about.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &MemberId> {
        let (present, gone) = match self {
            Self::Present { member, .. } => (Some(member.id()), &[][..]),
            Self::Gone { members, .. } => (None, &members[..]),
        };
        present.into_iter().chain(gone.iter().map(|(id, _)| id))
    }
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..end], &text[end + 1..]))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn present(id: &[u8], due: Option<Duration>, record: &[u8]) -> Option<News> {
    match parse(&MemberId::known(&decode(id)?), record) {
        Record::Ours(member) => Some(News::Present { member: Arc::new(member), due }),
        Record::Unreadable(_) | Record::Foreign => None,
    }
}

fn gone(cause: LeaveCause, pairs: &[u8]) -> Option<News> {
    let words: Vec<_> = pairs.split(|byte| *byte == b' ').collect();
    let pair = |pair: &[&[u8]]| {
        let [id, incarnation] = pair else { return None };
        Some((MemberId::known(&decode(id)?), Incarnation::new(number(incarnation)?)))
    };
    Some(News::Gone { cause, members: words.chunks(2).map(pair).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"v":1,"incarnation":7,"session":"c-1","nonce":1,"revision":9,"joined":5,"tags":["a b"]}"#;

    fn news(text: &str) -> Option<News> {
        News::parse(text.as_bytes())
    }

    #[test]
    fn a_record_comes_with_its_name_and_what_its_lease_has_left() {
        for (text, left) in [("joined m%20x 300", Some(Duration::from_millis(300))), ("updated m%20x", None)] {
            let Some(News::Present { member, due }) = news(&format!("{text} {RECORD}")) else { panic!("{text}") };
            assert_eq!((member.id().as_str(), member.revision().get(), due), ("m x", 9, left));
            assert!(member.has_tag("a b"));
        }
    }

    #[test]
    fn many_may_be_gone_at_once() {
        let member = |id, incarnation| (MemberId::known(id), Incarnation::new(incarnation));
        let members = vec![member("a b", 7), member("c", 8)];
        let all = News::Gone { cause: LeaveCause::Expired, members };
        assert!(all.ids().map(MemberId::as_str).eq(["a b", "c"]));
        assert_eq!(news("expired a%20b 7 c 8"), Some(all));
        let one = News::Gone { cause: LeaveCause::Left, members: vec![member("a", 7)] };
        assert_eq!(news("left a 7"), Some(one));
    }

    #[test]
    fn what_is_not_understood_is_no_news() {
        for odd in
            ["", "left", "left a", "left a x", "left a 7 b", "left a/b 7", "moved a 7", "joined a 3", "joined a x {}"]
        {
            assert_eq!(news(odd), None, "{odd}");
        }
        assert_eq!(news("updated a text of another program"), None);
        assert_eq!(News::parse(b"left \xff 7"), None);
    }
}
