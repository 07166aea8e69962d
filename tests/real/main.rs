//! The library on a real Redis server, nothing mocked.

mod bad_days;
mod bad_input;
mod membership;
mod scale;
mod support;
mod worker;
