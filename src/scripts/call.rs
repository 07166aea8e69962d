//! What is sent to the server: a script with its keys and arguments, and how its answer is read. Nothing is sent here.

use std::sync::{Arc, LazyLock};

use redis::{Cmd, RedisError, Script, ScriptInvocation, Value};

use super::text::{ChannelScript, failed};
use super::{Channels, ScriptContext};
use crate::error::Error;

/// Reads an answer; `None` where it is not what the script promises.
type Parser<'a, T> = dyn Fn(&Value) -> Option<T> + Send + Sync + 'a;

/// One call of a script. It may be made several times.
pub(crate) struct ScriptCall<'a, T> {
    name: &'static str,
    invocation: ScriptInvocation<'a>,
    read: Box<Parser<'a, T>>,
}

impl<'a, T: 'a> ScriptCall<'a, T> {
    pub(super) fn new(
        name: &'static str,
        invocation: ScriptInvocation<'a>,
        read: impl Fn(&Value) -> Option<T> + Send + Sync + 'a,
    ) -> Self {
        Self { name, invocation, read: Box::new(read) }
    }

    /// What it is called in errors.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn invocation(&self) -> &ScriptInvocation<'a> {
        &self.invocation
    }

    /// What the server has answered, as a type.
    pub(crate) fn answer(&self, answered: Result<Value, RedisError>) -> Result<T, Error> {
        let value = answered.map_err(|error| failed(self.name, error))?;
        (self.read)(&value).ok_or_else(|| Error::unexpected(self.name))
    }

    /// The same call, with an answer of another type.
    pub(crate) fn map<U: 'a>(self, into: impl Fn(T) -> U + Send + Sync + 'a) -> ScriptCall<'a, U> {
        let read = self.read;
        ScriptCall::new(self.name, self.invocation, move |value| read(value).map(&into))
    }
}

/// A script that takes a key and an argument for each of many requests, and answers each.
pub(crate) struct BatchScript<A> {
    name: &'static str,
    script: LazyLock<ChannelScript>,
    read: fn(&Value) -> Option<A>,
}

/// One of these requests.
pub(crate) struct BatchRequest {
    pub(super) key: String,
    pub(super) argument: String,
}

impl<A> BatchScript<A> {
    pub(super) const fn new(name: &'static str, script: fn() -> ChannelScript, read: fn(&Value) -> Option<A>) -> Self {
        Self { name, script: LazyLock::new(script), read }
    }

    /// What it is called in errors.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn script(&self, channels: Channels) -> &Script {
        self.script.by(channels)
    }

    /// The call for one request.
    pub(crate) fn invocation(&self, context: &ScriptContext, request: &BatchRequest) -> ScriptInvocation<'_> {
        let mut script = self.script.by(context.channels()).key(&request.key);
        script.key(context.keys.absent()).arg(&request.argument);
        script
    }

    /// The call for several, of a script that the server knows.
    pub(crate) fn command(&self, context: &ScriptContext, requests: &[Arc<BatchRequest>]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.by(context.channels()).get_hash()).arg(requests.len() + 1);
        for request in requests {
            command.arg(&request.key);
        }
        command.arg(context.keys.absent());
        for request in requests {
            command.arg(&request.argument);
        }
        command
    }

    /// What so many requests are answered. `None`: it is to be asked by itself.
    pub(crate) fn answers(&self, answered: Result<Value, RedisError>, count: usize) -> Result<Vec<Option<A>>, Error> {
        match answered.map_err(|error| self.failed(error))? {
            Value::Array(answers) if answers.len() == count => Ok(answers.iter().map(self.read).collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// What one request is answered that was made by itself.
    pub(crate) fn answer(&self, answered: Result<Value, RedisError>) -> Result<A, Error> {
        self.answers(answered, 1)?.pop().flatten().ok_or_else(|| self.unexpected())
    }

    /// Translates what redis said of it.
    pub(crate) fn failed(&self, error: RedisError) -> Error {
        failed(self.name, error)
    }

    fn unexpected(&self) -> Error {
        Error::unexpected(self.name)
    }
}
