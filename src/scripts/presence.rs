//! The scripts of presence: who checks it, and what becomes of those who are gone.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};

use super::fields::{due, is_one, items, number, text};
use super::text::{ChannelScript, server_run_script};
use super::{ScriptCall, ScriptContext, ms};
use crate::model::SessionId;
use crate::proto::Reply;

static PROBERS: LazyLock<ChannelScript> = LazyLock::new(|| ChannelScript::new(include_str!("presence_probers.lua")));

/// How many probers a group has, and how many sessions they probe at most.
const PLACES: usize = 2;
const PROBED: usize = 2000;

pub(crate) fn probers(context: &ScriptContext, place: Duration) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = PROBERS.by(context.channels()).key(keys.leases());
    script
        .key(keys.probers())
        .key(keys.asks())
        .arg(keys.prefix())
        .arg(&context.connector)
        .arg(ms(place))
        .arg(PLACES)
        .arg(PROBED);
    ScriptCall::new("asking for a place among the probers", script, probing)
}

fn probing(value: &Value) -> Option<Reply> {
    let (holds, rest) = items(value)?.split_first()?;
    if number(holds)? == 0 {
        let (asks, probers) = rest.split_first()?;
        let prober = |value: &Value| Some(std::str::from_utf8(text(value)?).ok()?.to_owned());
        return Some(Reply::NotProbing {
            asks: number(asks)?,
            probers: probers.iter().map(prober).collect::<Option<_>>()?,
        });
    }
    let session = |value: &Value| Some(SessionId::new(std::str::from_utf8(text(value)?).ok()?));
    Some(Reply::Probing { sessions: rest.iter().map(session).collect::<Option<_>>()? })
}

static MARK: LazyLock<Script> = LazyLock::new(|| server_run_script(include_str!("presence_mark.lua")));

/// Lets any prober judge the session; answers whether its lease has the mark.
pub(crate) fn mark(context: &ScriptContext, session: &SessionId) -> ScriptCall<'static, bool> {
    ScriptCall::new("marking of the lease", MARK.key(context.keys.lease(session.as_str())), is_one)
}

static SHORTEN: LazyLock<ChannelScript> =
    LazyLock::new(|| ChannelScript::server_run(include_str!("presence_shorten.lua")));

pub(crate) fn shorten(
    context: &ScriptContext,
    sessions: &[(SessionId, Option<Duration>)],
) -> ScriptCall<'static, Reply> {
    let keys = &context.keys;
    let mut script = SHORTEN.by(context.channels()).key(keys.leases());
    script.arg(keys.prefix());
    for (session, absent) in sessions {
        script.arg(session.as_str()).arg(absent.map_or_else(String::new, |absent| ms(absent).to_string()));
    }
    ScriptCall::new("shortening of the leases of those who are gone", script, shortened)
}

fn shortened(value: &Value) -> Option<Reply> {
    Some(Reply::Shortened { due: due(items(value)?.first()?)? })
}

#[cfg(test)]
mod tests {
    use super::super::fields::tests::answer;
    use super::*;

    #[test]
    fn answers_about_presence_are_read() {
        let sessions = ["c-1", "d-1"].map(SessionId::new).to_vec();
        assert_eq!(probing(&answer("(1 c-1 d-1)")), Some(Reply::Probing { sessions }));
        assert_eq!(probing(&answer("(1)")), Some(Reply::Probing { sessions: Vec::new() }));
        assert_eq!(probing(&answer("(0 3)")), Some(Reply::NotProbing { asks: 3, probers: Vec::new() }));
        let probers = vec!["c".to_owned(), "d".to_owned()];
        assert_eq!(probing(&answer("(0 3 c d)")), Some(Reply::NotProbing { asks: 3, probers }));
        let due = Some(Duration::from_millis(9));
        assert_eq!(shortened(&answer("(9 1)")), Some(Reply::Shortened { due }));
        assert_eq!(shortened(&answer("(-1 0)")), Some(Reply::Shortened { due: None }));
    }

    #[test]
    fn odd_answers_about_presence_are_none() {
        for odd in ["1", "()", "(x)", "(0)", "(0 x)", "(0 3 7)", "(1 7)"] {
            assert_eq!(probing(&answer(odd)), None, "{odd}");
        }
        for odd in ["1", "()", "(x)", "(-2)"] {
            assert_eq!(shortened(&answer(odd)), None, "{odd}");
        }
    }
}
