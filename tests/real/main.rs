//! The library on a real Redis server, nothing mocked.

mod bad_days;
mod bad_input;
mod bad_input_dropped;
mod membership;
mod scale;
mod scripts;
mod support;
mod worker;
