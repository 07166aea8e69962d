//! What this process knows, readable without a round trip: written by the driver alone.

mod events;
mod lock_table;
mod members;
mod names;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod watched;

pub use events::{Event, Events, MemberChange, MemberChanges};
pub(crate) use lock_table::{HoldSignals, LockTable};
pub use members::ViewIter;
pub use state::{State, StateWatch};
pub use view::View;
pub(crate) use view::{ViewReader, ViewWriter, view};
pub(crate) use watched::{Contents, ContentsChanges, WatchedReader, WatchedWriter, watched};
