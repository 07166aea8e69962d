//! Writes under a lock, checked by the server in the same script.

use redis::{FromRedisValue, Script, Value};

use super::commands::{Commands, Context};
use super::replies::{number, text};
use crate::error::Error;
use crate::model::Revision;
use crate::scripts;
use crate::wire::HoldId;

/// What a fenced write has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FencedWrite {
    Set(Revision),
    Deleted(bool),
}

impl Commands {
    /// Sets or deletes a persistent value; `None` if this hold does not have the lock any more.
    pub(crate) async fn fence(
        mut self,
        hold_id: &HoldId,
        path: &str,
        value: Option<&[u8]>,
    ) -> Result<Option<FencedWrite>, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let mut script = scripts::LOCK_FENCED_WRITE.key(keys.at("locks", &hold_id.name));
        script
            .key(keys.at("shared", &hold_id.name))
            .key(keys.lease(hold_id.session.as_str()))
            .key(keys.at("persistent", path))
            .key(keys.persistent())
            .key(keys.revision())
            .arg(hold_id.session.as_str())
            .arg(hold_id.nonce)
            .arg(hold_id.mode())
            .arg(path)
            .arg(if value.is_some() { "set" } else { "del" })
            .arg(value.unwrap_or_default());
        self.ask("a fenced write", &script, fenced).await
    }

    /// Runs a script of the user's; `None` if this hold does not have the lock any more.
    pub(crate) async fn fenced<T: FromRedisValue>(
        mut self,
        hold_id: &HoldId,
        script: &str,
        paths: &[String],
        args: &[&str],
    ) -> Result<Option<T>, Error> {
        let context = self.context.clone();
        let keys = &context.keys;
        let script =
            Script::new(&format!("{}return {{'done', (function()\n{script}\nend)()}}", scripts::FENCED_PREFIX));
        let mut invocation = script.key(keys.at("locks", &hold_id.name));
        invocation
            .key(keys.at("shared", &hold_id.name))
            .key(keys.lease(hold_id.session.as_str()))
            .arg(hold_id.session.as_str())
            .arg(hold_id.nonce)
            .arg(hold_id.mode());
        for path in paths {
            invocation.key(keys.at("persistent", path));
        }
        for arg in args {
            invocation.arg(*arg);
        }
        let answer = self.ask("a fenced script", &invocation, |value| Some(value.clone())).await?;
        let Value::Array(mut items) = answer else { return Err(unknown(&context)) };
        match items.first().and_then(text) {
            Some(b"lost") => Ok(None),
            Some(b"done") => {
                let value = if items.len() > 1 { items.swap_remove(1) } else { Value::Nil };
                let read = redis::from_redis_value(value);
                read.map(Some).map_err(|error| Error::unread_answer(error.into()).at(&context.server))
            }
            _ => Err(unknown(&context)),
        }
    }
}

fn unknown(context: &Context) -> Error {
    Error::unexpected("a fenced script").at(&context.server)
}

fn fenced(value: &Value) -> Option<Option<FencedWrite>> {
    let Value::Array(items) = value else { return None };
    Some(match (text(items.first()?)?, &items[1..]) {
        (b"lost", []) => None,
        (b"set", [revision]) => Some(FencedWrite::Set(Revision::new(number(revision)?))),
        (b"deleted", [deleted]) => Some(FencedWrite::Deleted(number(deleted)? == 1)),
        _ => return None,
    })
}
