//! What comes out: one queue for everything, so that its order is a fact, and when to be called again.

use std::collections::VecDeque;

use super::io::{Change, Command, Output, Owner, Tag};
use super::timers::Timers;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    tags: u64,
    pub(crate) timers: Timers,
}

impl Outbox {
    pub(crate) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(crate) fn command(&mut self, owner: Owner, command: Command) -> Tag {
        self.tags += 1;
        let tag = Tag { owner, number: self.tags };
        self.queue.push_back(Output::Command(tag, command));
        tag
    }

    pub(crate) fn changes(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.queue.push_back(Output::Changes(changes));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }
}
