//! Bytes to types and back, nothing else: no I/O, no clock, no executor.

mod lease;
mod lock;
mod names;
mod news;
mod notice;
mod record;
mod value;

pub(crate) use lease::holder;
pub(crate) use lock::{Grant, HoldId, InboxMessage, ListedHold, LockRecord, QueueEntry, waiting};
pub(crate) use names::{Keys, decode, decode_path, encode, encode_path, shown};
pub(crate) use news::News;
pub(crate) use notice::{KeyEvent, Notice, invalidated, keyevent, keyspace};
pub(crate) use record::{Record, parse, record_head, record_tail};
pub(crate) use value::ValueRecord;
