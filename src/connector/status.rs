//! The state of a connector, for operators.

use std::time::{Duration, Instant};

use crate::cache::State;
use crate::error::Error;
use crate::settings::EventSource;

/// The state of a connector, for operators. Answered by [`GroupConnector::status`](crate::GroupConnector::status).
///
/// A canary proves that a source delivers messages. [`EventSource::Poll`] has nothing to prove: `last_canary`,
/// `round_trip` and `event_lag` stay `None`, or keep the values of the source that served before, and
/// `notifications_arrive` is false.
///
/// # Examples
/// ```no_run
/// # fn example(group: group_redis::GroupConnector) {
/// let status = group.status();
/// if !status.notifications_arrive {
///     println!("changes are seen by {}: {:?}", status.source, status.source_reason);
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The link state.
    pub state: State,
    /// The source that serves now: the wanted one, or the one that took its place.
    pub source: EventSource,
    /// Since when it serves; `None` before the first source has proven itself.
    pub source_since: Option<Instant>,
    /// Why it is not the wanted source; `None` if it is.
    pub source_reason: Option<String>,
    /// Whether messages announce changes. If not, the connector finds them at the next poll interval.
    pub notifications_arrive: bool,
    /// Whether messages announce the grants of locks. If not, a waiter asks at each poll interval.
    pub grants_arrive: bool,
    /// When a canary last proved the source. The canary is a key of the connector's own, whose events must arrive.
    pub last_canary: Option<Instant>,
    /// How long the server took to answer the write of the canary.
    pub round_trip: Option<Duration>,
    /// How long after the sending of that write its first event came. About a round trip where all is well.
    pub event_lag: Option<Duration>,
    /// How late after an owner's deadline the last sweep was sent.
    pub sweep_lag: Option<Duration>,
    /// How many other sessions this connector sees to be present, if it is one of the probers. The end of such a
    /// process is reported within its grace.
    pub sessions_seen: usize,
    /// How often the link, to ask and to listen, has been made anew. The connection of the heartbeats does not count.
    pub reconnects: u64,
    /// Why there is no link, while there is none, or why the heartbeats failed, until the state is
    /// [`State::Connected`] again. [`ErrorKind::Closed`](crate::ErrorKind::Closed): the runtime that the connector was made
    /// on has ended.
    pub error: Option<Error>,
}
