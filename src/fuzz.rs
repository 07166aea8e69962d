//! What is fuzzed: whatever comes from outside, from a server or from a configuration. Only in builds of `cargo fuzz`.

use std::time::Duration;

use crate::model::{MemberId, SessionId};
use crate::wire::{
    HoldId, InboxMessage, Keys, LockRecord, News, Notice, ValueRecord, decode, decode_path, encode, encode_path,
    invalidated, keyevent, keyspace, parse, waiting,
};
use crate::{GroupConnector, GroupConnectorBuilder};

/// What stands in Redis: records of members, of locks and of values, and the entries of queues.
pub fn record(data: &[u8]) {
    let _ = parse(&MemberId::known("a"), data);
    let _ = LockRecord::parse(data);
    let _ = waiting(data);
    let _ = HoldId::of_path(&SessionId::new("s-1"), data, 1);
    if let Some(stored) = ValueRecord::parse(data) {
        assert!(data.ends_with(&stored.bytes), "the value is the end of what stands there");
    }
}

/// What is published: names of channels, of keys, and inbox messages.
pub fn channel(data: &[u8]) {
    let _ = InboxMessage::parse(data);
    let _ = News::parse(data);
    let keys = Keys::new(Some("n"), "g");
    let (channel, payload) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let payload = payload.get(1..).unwrap_or_default();
    let canary = keys.canary("c");
    let key = |channel: &[u8]| [keys.members().as_bytes(), b"/", channel].concat();
    for channel in [channel.to_vec(), key(channel), [b"__keyspace@0__:", &key(channel)[..]].concat()] {
        let notices = [
            invalidated(&keys, &canary, &channel),
            keyspace(&keys, &canary, &channel, payload),
            keyevent(&keys, &canary, payload, &channel),
        ];
        for notice in notices.into_iter().flatten() {
            if let Notice::Member(id, _) = notice {
                assert!(channel.ends_with(encode(id.as_str()).as_bytes()), "{id:?} is not who {channel:?} is about");
            }
        }
    }
    // Nothing is named by nothing.
    if let Some(name) = std::str::from_utf8(data).ok().filter(|name| (1..=512).contains(&name.len())) {
        assert_eq!(decode(encode(name).as_bytes()).as_deref(), Some(name));
        assert_eq!(decode_path(encode_path(name).as_bytes()).as_deref(), Some(name));
    }
}

/// What a configuration says: an URL, names, and times.
pub fn settings(data: &[u8]) {
    let (times, text) = data.split_at(data.len().min(24));
    let mut times = times.chunks(8).map(|bytes| {
        let mut number = [0; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        Duration::from_nanos(u64::from_le_bytes(number))
    });
    let mut time = || times.next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let mut words = text.split('\n');
    let mut word = || words.next().unwrap_or_default();
    let url = word();
    let mut builder = GroupConnector::builder(url).group(word());
    let namespace = word();
    if !namespace.is_empty() {
        builder = builder.namespace(namespace);
    }
    refused(builder.ttl(time()).heartbeat(time()).command_timeout(time()), None);
    // Random times are hardly ever valid, and are checked before the URL.
    refused(GroupConnector::builder(url), None);
    // What stands in the place of a password is told by nobody.
    for url in [format!("redis://user:{SECRET}@{url}"), format!("{url}:{SECRET}@127.0.0.1/"), format!("{url}{SECRET}")]
    {
        refused(GroupConnector::builder(url), Some(SECRET));
    }
}

const SECRET: &str = "hunter2-s3cret";

/// There is no runtime, so nothing is ever connected.
fn refused(builder: GroupConnectorBuilder, secret: Option<&str>) {
    let told = format!("{builder:?}");
    let Err(error) = builder.connect_lazy() else { panic!("it connects: {told}") };
    let Some(secret) = secret else { return };
    assert!(!told.contains(secret), "{told}");
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(said) = source {
        let told = format!("{said} {said:?}");
        assert!(!told.contains(secret), "{told}");
        source = said.source();
    }
}
