//! Calls that go straight from the caller's task to the connection, not through the driver.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::publish::LinkReport;
use super::validity::{Validity, ValidityWatch};
use crate::clock;
use crate::engine::Caller;
use crate::error::{Error, ErrorKind};
use crate::proto::Request;
use crate::scripts::{ScriptCall, ScriptContext};
use crate::transport::Commands;

/// The first pause before a call is made again, over this link or the next.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The link that stands at this moment, if one does.
pub(crate) type LinkWatch = watch::Receiver<Option<Commands>>;

/// The way to the server for calls that must be quick. A clone is the same way.
#[derive(Clone)]
pub(crate) struct Direct {
    link: LinkWatch,
    validity: ValidityWatch,
    caller: Caller,
    server: Arc<str>,
    scripts: Arc<ScriptContext>,
    report: watch::Receiver<LinkReport>,
    /// How long a call may wait for a link and its answer, where its caller does not say.
    limit: Duration,
}

impl Direct {
    pub(crate) fn new(
        link: LinkWatch,
        validity: ValidityWatch,
        caller: Caller,
        server: Arc<str>,
        scripts: Arc<ScriptContext>,
        report: watch::Receiver<LinkReport>,
        limit: Duration,
    ) -> Self {
        Self { link, validity, caller, server, scripts, report, limit }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The server's address and database.
    pub(crate) fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// What the arguments of the scripts say of this connector.
    pub(crate) fn scripts(&self) -> &ScriptContext {
        &self.scripts
    }

    /// This error of a call that was not done in time, with the reason why there is no link, where there is none.
    pub(crate) fn late(&self, error: Error) -> Error {
        error.because(self.report.borrow().error.as_ref()).at(&self.server)
    }

    /// The connection to ask over, as soon as there is one.
    pub(crate) async fn commands(&self) -> Result<Commands, Error> {
        if let Some(commands) = &*self.link.borrow() {
            return Ok(commands.clone());
        }
        let mut link = self.link.clone();
        let commands = link.wait_for(Option::is_some).await.map_err(|_| Error::closed())?;
        commands.clone().ok_or_else(Error::closed)
    }

    /// The connection to ask over, if there is one.
    pub(crate) fn present_link(&self) -> Option<Commands> {
        self.link.borrow().clone()
    }

    /// Waits until enough replicas have what was written over this link, or the first that comes, where it was none.
    pub(crate) async fn acknowledged(&self, link: Option<Commands>, what: &str) -> Result<(), Error> {
        let commands = match link {
            Some(commands) => commands,
            None => self.commands().await?,
        };
        commands.acknowledged(what).await
    }

    /// The links from now on: marked as seen as far as there are any.
    pub(crate) fn links(&self) -> LinkWatch {
        let mut links = self.link.clone();
        links.mark_unchanged();
        links
    }

    /// The connector's session, opened if there is none: no I/O where there is one.
    pub(crate) async fn validity(&self, limit: Duration) -> Result<Arc<Validity>, Error> {
        if let Some(validity) = self.present() {
            return Ok(validity);
        }
        self.caller.call(Request::Open, limit).await?;
        self.present().ok_or_else(|| {
            let error = Error::new(ErrorKind::Timeout, "the lease was lost as soon as it was won");
            self.late(error.cured_by("try again, or give a longer ttl"))
        })
    }

    /// Whether there will never be a link again.
    pub(crate) fn is_closed(&self) -> bool {
        self.link.has_changed().is_err()
    }

    /// Whether the connector has ended, or does so now: its runtime ends the connections before the driver, or after it.
    async fn ends(&self) -> bool {
        let mut link = self.link.clone();
        let _ = timeout(FIRST_PAUSE, async { while link.changed().await.is_ok() {} }).await;
        self.is_closed()
    }

    /// The present session, as long as it can be relied on.
    pub(crate) fn present(&self) -> Option<Arc<Validity>> {
        self.validity.borrow().clone().filter(|validity| validity.is_held())
    }

    /// Invokes a script, not twice: where its answer is lost, the caller is to decide.
    pub(crate) async fn invoke_once<T>(&self, limit: Duration, call: &ScriptCall<'_, T>) -> Result<T, Error> {
        self.once(call.name(), limit, |commands| commands.invoke(call)).await
    }

    /// Invokes a script that writes, not twice, and waits until enough replicas have what it wrote, where it says so.
    pub(crate) async fn write_once<T>(
        &self,
        limit: Duration,
        call: &ScriptCall<'_, T>,
        has_written: impl Fn(&T) -> bool,
    ) -> Result<T, Error> {
        let writing = async |commands: Commands| {
            let answer = commands.clone().invoke(call).await?;
            if has_written(&answer) {
                commands.acknowledged(call.name()).await?;
            }
            Ok(answer)
        };
        self.once(call.name(), limit, writing).await
    }

    /// Invokes a script that may be invoked twice, again where the link fails, for so long.
    pub(crate) async fn invoke<T>(&self, limit: Duration, call: &ScriptCall<'_, T>) -> Result<T, Error> {
        self.repeat(call.name(), limit, |commands| commands.invoke(call)).await
    }

    /// Makes a call that is not made twice: where its answer is lost, the caller is to decide.
    pub(crate) async fn once<T, F>(
        &self,
        what: &str,
        limit: Duration,
        call: impl FnOnce(Commands) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let present = self.link.borrow().clone();
        let answer = match present {
            // Where all is well, one call needs no other time limit than its own.
            Some(commands) if limit == self.limit => call(commands).await,
            _ => {
                let mut is_asked = false;
                let calling = async {
                    let commands = self.commands().await?.limited(limit);
                    is_asked = true;
                    call(commands).await
                };
                timeout(limit, calling).await.unwrap_or_else(|_| Err(self.unanswered(what, limit, is_asked)))
            }
        };
        match answer {
            Err(error) if error.is_of_the_link() && self.ends().await => Err(Error::closed_unanswered(what)),
            answer => answer.map_err(Error::while_reconnecting),
        }
    }

    /// Makes a call that may be made twice, again where the link fails, for so long.
    pub(crate) async fn repeat<T, F>(
        &self,
        what: &str,
        limit: Duration,
        mut call: impl FnMut(Commands) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (begun, mut present) = (clock::now(), self.link.borrow().clone());
        let (mut last, mut is_asked) = (None, false);
        // Where all is well, one call needs no other time limit than its own.
        if let Some(commands) = present.take_if(|_| limit >= self.limit) {
            match call(commands).await {
                Err(error) if error.is_of_the_link() => {
                    is_asked = !error.is_unapplied();
                    last = Some(error);
                }
                answer => return answer,
            }
        }
        let calling = async {
            let mut pause = if present.is_some() { Duration::ZERO } else { FIRST_PAUSE };
            loop {
                sleep(pause).await;
                let commands = self.commands().await?;
                let was_asked = std::mem::replace(&mut is_asked, true);
                match call(commands).await {
                    Err(error) if error.is_of_the_link() => {
                        is_asked = was_asked || !error.is_unapplied();
                        last = Some(error);
                    }
                    answer => return answer.map_err(|error| if was_asked { error.after_unanswered() } else { error }),
                }
                pause = (pause * 2).min(self.limit / 4).max(FIRST_PAUSE);
            }
        };
        match timeout(limit.saturating_sub(clock::now().since(begun)), calling).await {
            Ok(answer) => answer,
            Err(_) => {
                let error = last.map_or_else(|| self.unanswered(what, limit, is_asked), Error::while_reconnecting);
                Err(if is_asked { error.after_unanswered() } else { error })
            }
        }
    }

    /// What a call ends with that was not answered in time, whether it was sent or not.
    fn unanswered(&self, what: &str, limit: Duration, is_asked: bool) -> Error {
        self.late(if is_asked { Error::no_answer(what, limit) } else { Error::no_link(what, limit) })
    }
}
