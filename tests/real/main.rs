//! The library on a real Redis server, nothing mocked.

mod bad_days;
mod membership;
mod scale;
mod support;
mod worker;
