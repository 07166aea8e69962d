//! The library on a real Redis server, nothing mocked.

mod bad_input;
mod membership;
mod support;
