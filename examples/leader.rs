//! Candidates for one role: start several, kill the one that leads, and see the next one lead.
//!
//! ```text
//! REDIS_URL=redis://127.0.0.1/ cargo run --example leader -- worker-1
//! ```
//!
//! Lines out: `follows NAME` or `follows nobody`, `leads TERM`, `lost TERM`. It ends with its standard input.
//! `ROLE` is the role (`boss`), `TTL_MS` the ttl.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Duration;

use group_redis::{Error, FencingToken, GroupConnector};
use tokio::io::AsyncReadExt;

/// Says when the work is dropped, for whatever reason.
struct Leading(FencingToken);

impl Drop for Leading {
    fn drop(&mut self) {
        println!("lost {}", self.0);
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).unwrap_or_else(|| format!("candidate-{}", std::process::id()));
    let role = std::env::var("ROLE").unwrap_or_else(|_| "boss".to_owned());
    let ttl = std::env::var("TTL_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(2000);
    let group = GroupConnector::from_env().group("leader-example").ttl(Duration::from_millis(ttl)).connect().await?;

    let mut leaders = group.elect(&role).watch()?;
    tokio::spawn(async move {
        while let Some(leader) = leaders.next().await {
            println!("follows {}", leader.map_or("nobody".to_owned(), |leader| leader.member.to_string()));
        }
    });

    let election = group.elect(&role).as_member(&name);
    let leading = election.run_as_leader(|leader| async move {
        println!("leads {}", leader.token());
        let _leading = Leading(leader.token());
        // The work of a leader. It is dropped here when the lead is lost, and begun anew when it is won again.
        std::future::pending::<()>().await;
    });
    let mut input = tokio::io::stdin();
    let ended = async { while input.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        done = leading => done,
        () = ended => group.close().await,
    }
}
