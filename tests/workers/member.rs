//! A member process: joins a group, says on its standard output what becomes of it, and leaves when told to.
//!
//! Lines out: `joined NAME INCARNATION`, `ready`, `lost NAME CAUSE`, `held NAME INCARNATION`, `left`.
//! Lines in: `leave`. It ends with its standard input, so it never outlives its parent.
//!
//! `TTL_MS` sets the ttl. `CONNECTORS` and `MEMBERS` make it many: so many connectors with so many members each,
//! named `NAME-0`, `NAME-1` and so on.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Duration;

use std::future::IntoFuture;

use group_redis::{Error, GroupConnector, Incarnation, Membership};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(group), Some(name)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: member URL GROUP NAME");
        std::process::exit(2);
    };
    let (connectors, members) = (number("CONNECTORS", 1), number("MEMBERS", 1));
    // Thousands that join at once have to wait for each other.
    let patience = Duration::from_secs(5);
    let ttl = Duration::from_millis(number("TTL_MS", 7500));

    let mut groups = Vec::new();
    for connector in 0..connectors {
        let group = GroupConnector::builder(&url).group(&group).ttl(ttl).command_timeout(patience).connect().await?;
        let joins = (0..members).map(|member| {
            let number = connector * members + member;
            let name = if connectors * members == 1 { name.clone() } else { format!("{name}-{number}") };
            tokio::spawn(group.join(name).metadata(&std::process::id()).into_future())
        });
        for join in joins.collect::<Vec<_>>() {
            let membership = join.await.expect("a join does not panic")?;
            println!("joined {} {}", membership.id(), membership.incarnation().map_or(0, Incarnation::get));
            tokio::spawn(tell(membership));
        }
        groups.push(group);
    }
    println!("ready");

    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "leave" {
            for group in &groups {
                group.close().await?;
            }
            println!("left");
            return Ok(());
        }
    }
    std::process::exit(1)
}

/// Says when the membership is lost, and when it is held again.
async fn tell(membership: Membership) {
    loop {
        println!("lost {} {}", membership.id(), membership.lost().await);
        let Some(incarnation) = membership.held().await else { return };
        println!("held {} {incarnation}", membership.id());
    }
}
