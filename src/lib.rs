//! Group membership on Redis: join and leave a group, see joins, leaves and crashes as they happen, and read who is
//! there from memory.

mod clock;
mod config;
mod connector;
mod driver;
mod error;
mod events;
mod member;
mod membership;
mod proto;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod view;
mod wire;

pub use config::{EventSource, Heartbeats, Notifications, OnConflict, OnLost};
pub use connector::{GroupConnector, GroupConnectorBuilder, Status};
pub use error::{Error, ErrorKind};
pub use events::{Event, Events, MemberChange, MemberChanges};
pub use member::{Incarnation, LeaveCause, MAX_METADATA, Member, MemberId, Revision};
pub use membership::{Join, Membership};
pub use redis;
pub use state::{State, StateWatch};
pub use view::View;
