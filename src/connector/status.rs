//! What an operator wants to know of a connector.

use std::time::{Duration, Instant};

use crate::cache::State;
use crate::error::Error;
use crate::settings::EventSource;

/// How a connector stands, for operators. [`GroupConnector::status`](crate::GroupConnector::status) answers it.
///
/// The canary is sent to prove a source of messages. Under [`EventSource::Poll`] there is none to prove: what it measures
/// (`last_canary`, `round_trip`, `event_lag`) stays `None`, or stands still where another source served before, and
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
    /// Where hints come from now: the source that is wanted, or what had to take its place.
    pub source: EventSource,
    /// Since when; `None` before the first source has proven itself.
    pub source_since: Option<Instant>,
    /// Why it is not the one that is wanted; `None` where it is.
    pub source_reason: Option<String>,
    /// Whether changes are told by messages. If not, they are seen at the next poll interval.
    pub notifications_arrive: bool,
    /// Whether grants of locks come by messages. If not, who waits for a lock asks at each poll interval.
    pub grants_arrive: bool,
    /// When a canary last came home: a key of the connector's own, written to prove that its events arrive.
    pub last_canary: Option<Instant>,
    /// How long the server took to answer that write.
    pub round_trip: Option<Duration>,
    /// How long after the sending of that write its first event came. About a round trip where all is well.
    pub event_lag: Option<Duration>,
    /// How late after an owner's deadline the last sweep was sent.
    pub sweep_lag: Option<Duration>,
    /// How many other sessions this connector sees to be present, if it is one of the few that look: a process of which
    /// this is true is seen to end within the grace.
    pub sessions_seen: usize,
    /// How often the main link, to ask and to listen, has broken and been made anew. That of the heartbeats is made anew
    /// by itself and does not count.
    pub reconnects: u64,
    /// Why there is no link, while there is none, or why the heartbeats failed, until the state is
    /// [`State::Connected`] again.
    pub error: Option<Error>,
}
