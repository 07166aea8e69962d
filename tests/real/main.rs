//! The library on a real Redis server, nothing mocked.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it")]

mod any_names;
mod bad_days;
mod bad_days_processes;
mod bad_input;
mod bad_input_dropped;
mod bad_input_keys;
#[cfg(feature = "tls")]
mod certificates;
mod credentials;
mod data;
mod elections;
mod errors;
mod errors_calls;
mod exclusion;
mod frozen;
mod leftovers;
mod locker;
mod locks;
mod locks_bad_days;
mod locks_guards;
mod locks_modes;
mod locks_together;
mod membership;
mod news;
mod presence;
mod put_right;
mod replication;
mod rights;
mod runtime;
mod safety;
mod scale;
mod scripts;
mod scripts_data;
mod scripts_locks;
mod scripts_presence;
mod secrets;
mod sources;
mod support;
mod suspension;
mod timeouts;
mod topology_cluster;
mod topology_sentinel;
mod topology_standalone;
mod worker;
