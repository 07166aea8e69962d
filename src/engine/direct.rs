//! Calls that go straight from the caller's task to the connection, not through the driver.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::validity::{Validity, ValidityWatch};
use crate::clock;
use crate::engine::Caller;
use crate::error::{Error, ErrorKind};
use crate::proto::Request;
use crate::transport::Commands;

/// The first pause before a call is made again, over this link or the next.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The link that stands at this moment, if one does.
pub(crate) type LinkWatch = watch::Receiver<Option<Commands>>;

/// The way to the server for who has no time to lose. A clone is the same way.
#[derive(Clone)]
pub(crate) struct Direct {
    link: LinkWatch,
    validity: ValidityWatch,
    caller: Caller,
    /// How long a call may wait for a link and its answer.
    limit: Duration,
}

impl Direct {
    pub(crate) fn new(link: LinkWatch, validity: ValidityWatch, caller: Caller, limit: Duration) -> Self {
        Self { link, validity, caller, limit }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
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

    /// The links from now on: marked as seen as far as there are any.
    pub(crate) fn links(&self) -> LinkWatch {
        let mut links = self.link.clone();
        links.mark_unchanged();
        links
    }

    /// The connector's session, opened if there is none: no I/O where there is one.
    pub(crate) async fn validity(&self) -> Result<Arc<Validity>, Error> {
        if let Some(validity) = self.present() {
            return Ok(validity);
        }
        self.caller.call(Request::Open).await?;
        self.present().ok_or_else(|| Error::new(ErrorKind::Timeout, "the lease was lost as soon as it was won"))
    }

    /// The present session, as long as it can be relied on.
    pub(crate) fn present(&self) -> Option<Arc<Validity>> {
        self.validity.borrow().clone().filter(|validity| validity.is_held())
    }

    /// Makes a call that is not made twice: where its answer is lost, the caller is to decide.
    pub(crate) async fn once<T, F>(&self, what: &str, call: impl FnOnce(Commands) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let present = self.link.borrow().clone();
        // Where all is well, one call needs no other time limit than its own.
        if let Some(commands) = present {
            return call(commands).await;
        }
        let (limit, mut is_asked) = (self.limit, false);
        let calling = async {
            let commands = self.commands().await?;
            is_asked = true;
            call(commands).await
        };
        timeout(limit, calling).await.unwrap_or_else(|_| {
            let told = |of: &str| format!("{what}: there was no {of} within {limit:?}");
            Err(match is_asked {
                true => Error::uncertain(ErrorKind::Timeout, told("answer")),
                false => Error::new(ErrorKind::Timeout, told("link to the server")),
            })
        })
    }

    /// Makes a call that may be made twice, again where the link fails, for as long as a request may take.
    pub(crate) async fn repeat<T, F>(&self, what: &str, mut call: impl FnMut(Commands) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (begun, present) = (clock::now(), self.link.borrow().clone());
        let mut last = None;
        if let Some(commands) = present {
            match call(commands).await {
                Err(error) if error.is_of_the_link() => last = Some(error),
                answer => return answer,
            }
        }
        let calling = async {
            let mut pause = FIRST_PAUSE;
            loop {
                sleep(pause).await;
                match call(self.commands().await?).await {
                    Err(error) if error.is_of_the_link() => last = Some(error),
                    answer => return answer,
                }
                pause = (pause * 2).min(self.limit / 4);
            }
        };
        match timeout(self.limit.saturating_sub(clock::now().since(begun)), calling).await {
            Ok(answer) => answer,
            Err(_) => Err(last.unwrap_or_else(|| {
                let limit = self.limit;
                Error::uncertain(ErrorKind::Timeout, format!("{what}: no link and no answer within {limit:?}"))
            })),
        }
    }
}
