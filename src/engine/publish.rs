//! Where the driver tells what it sees.

use std::sync::Arc;

use tokio::sync::watch;

use super::validity::Validity;
use crate::cache::{LockTable, State, ViewWriter, WatchedWriter};
use crate::error::Error;
use crate::proto::SourceReport;
use crate::transport::Commands;

/// What an operator may want to know of the link.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkReport {
    /// Why there is no link, as long as there is none.
    pub(crate) error: Option<Error>,
    /// Why the heartbeats fail, until all is well again.
    pub(crate) heartbeat: Option<Error>,
    /// How many links have stood before this one.
    pub(crate) reconnects: u64,
    /// How changes are heard of.
    pub(crate) source: SourceReport,
    /// How many sessions this connector sees to be present.
    pub(crate) seen: usize,
}

/// Where the driver tells what it sees.
pub(crate) struct Publish {
    pub(crate) view: ViewWriter,
    pub(crate) state: watch::Sender<State>,
    pub(crate) link: watch::Sender<LinkReport>,
    /// The connection that stands, for direct calls.
    pub(crate) commands: watch::Sender<Option<Commands>>,
    pub(crate) validity: watch::Sender<Option<Arc<Validity>>>,
    pub(crate) lock_table: Arc<LockTable>,
    pub(crate) watched: WatchedWriter,
}

impl Publish {
    /// Nothing is known or done any more, for this reason, if there is one: whoever asks is told so at once.
    pub(super) fn end(&mut self, reason: Option<Error>) {
        self.commands.send_replace(None);
        self.link.send_modify(|report| {
            (report.source.is_proven, report.source.inbox_works, report.seen) = (false, false, 0);
            report.error = reason.or(report.error.take());
        });
        self.view.state(State::Closed);
        self.state.send_if_modified(|state| std::mem::replace(state, State::Closed) != State::Closed);
    }
}
