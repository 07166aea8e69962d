//! The library on a real Redis server, nothing mocked.

mod membership;
mod support;
