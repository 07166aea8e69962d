//! A registry of endpoints that nobody has to clean up: what a process has entered dies with it.
//!
//! ```text
//! REDIS_URL=redis://127.0.0.1/ cargo run --example registry -- api-1 10.0.0.7:8080     enters, and watches
//! REDIS_URL=redis://127.0.0.1/ cargo run --example registry                            only watches
//! ```
//!
//! Lines out: `there NAME ADDRESS` for what there is at first, then `set NAME ADDRESS`, `deleted NAME`, `expired NAME`.
//! It ends with its standard input. `TTL_MS` sets the ttl.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Duration;

use group_redis::{DataValue, Error, GroupConnector, State, WatchEvent};
use tokio::io::AsyncReadExt;

const FOLDER: &str = "endpoints/";

fn name(value: &DataValue) -> &str {
    value.path().trim_start_matches(FOLDER)
}

fn shown(value: &DataValue) -> String {
    let address = value.json::<String>().unwrap_or_else(|error| error.to_string());
    format!("{} {address}", name(value))
}

/// Enters the endpoint, and again whenever the lease was lost and with it the entry.
async fn enter(group: GroupConnector, path: String, address: String) -> Result<(), Error> {
    let mut state = group.state();
    loop {
        state.wait_for(|state| state == State::Connected || state == State::Closed).await;
        match group.ephemeral().set(&path, &address).await {
            Ok(_) => {}
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        if state.wait_for(|state| matches!(state, State::Lost | State::Closed)).await == State::Closed {
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let ttl = std::env::var("TTL_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(2000);
    let group = GroupConnector::from_env().group("registry-example").ttl(Duration::from_millis(ttl)).connect().await?;
    if let (Some(name), Some(address)) = (args.next(), args.next()) {
        tokio::spawn(enter(group.clone(), format!("{FOLDER}{name}"), address));
    }

    let mut endpoints = group.ephemeral().watch(FOLDER)?;
    let mut input = tokio::io::stdin();
    let ended = async { while input.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} };
    let watching = async {
        while let Some(event) = endpoints.next().await {
            match event {
                WatchEvent::Snapshot(values) => values.iter().for_each(|value| println!("there {}", shown(value))),
                WatchEvent::Set(value) => println!("set {}", shown(&value)),
                WatchEvent::Deleted(value) => println!("deleted {}", name(&value)),
                WatchEvent::Expired(value) => println!("expired {}", name(&value)),
                _ => {}
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = ended => {}
    }
    group.close().await
}
