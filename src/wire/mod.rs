//! Bytes to types and back, nothing else: no I/O, no clock, no executor.

mod names;
mod notice;
mod record;

pub(crate) use names::{Keys, check_name, decode, encode};
pub(crate) use notice::{Happened, Notice, keyevent, keyspace};
pub(crate) use record::{Draft, Record, parse, record_head, record_tail};
