//! Why a lock is not enough, and what a fencing token is for: a holder that is late writes twice, once without a fence
//! and once with it.
//!
//! ```text
//! REDIS_URL=redis://127.0.0.1/ cargo run --example fenced
//! ```

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use group_redis::{Error, ErrorKind, GroupConnector};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let connect = || GroupConnector::from_env().group("fenced-example").connect();
    let (first, second) = (connect().await?, connect().await?);

    let late = first.lock("account").acquire().await?;
    late.fenced().set("balance", &100).await?;
    println!("the first holds the lock under token {}", late.token());

    // A freeze of the first for longer than its ttl would do the same: the lock goes to another.
    second.lock("account").break_lock().await?;
    let guard = second.lock("account").acquire().await?;
    guard.fenced().set("balance", &70).await?;
    println!("the second holds it under token {}, and has written 70", guard.token());

    match late.fenced().set("balance", &90).await {
        Err(error) if error.kind() == ErrorKind::Lost => println!("the first is late, and refused: {error}"),
        other => println!("the first should have been refused: {other:?}"),
    }
    println!("fenced, the balance is {:?}", first.persistent().get::<u32>("balance").await?);

    first.persistent().set("balance", &90).await?;
    println!("unfenced, the first has overwritten it: {:?}", first.persistent().get::<u32>("balance").await?);

    // In one script, compared and written at once.
    let spent: i64 =
        guard.fenced().eval("return redis.call('DECRBY', KEYS[1], ARGV[1])", &["balance"], &["20"]).await?;
    println!("the second takes 20 in a script: {spent}");
    guard.release().await;
    first.persistent().del("balance").await?;
    first.close().await?;
    second.close().await
}
