//! What the group is made of, as values: names, members, numbers that only rise.

mod json;
mod member;
mod name;

pub(crate) use json::{from_json, to_json};
pub use member::{FencingToken, Incarnation, LeaveCause, MAX_METADATA, Member, MemberId, Revision};
pub(crate) use member::{MemberDraft, Metadata, SessionId, check_metadata, check_tags};
pub(crate) use name::{MAX_NAME, check_name};
