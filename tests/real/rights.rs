//! The line of rights in docs/SECURITY-ACL.md: it is enough, and it is the least.

use std::time::Duration;

use group_redis::{Error, ErrorKind, GroupConnector};

use super::support::{Fixture, TTL, eventually};

/// What may be missing: there is another way, or only what is rare needs it.
const DONE_WITHOUT: [&str; 13] = [
    "config|get",
    "config|set",
    "psubscribe",
    "subscribe",
    "publish",
    "pubsub|numsub",
    "client|tracking",
    "ping",
    "mget",
    "hdel",
    "hexists",
    "info",
    "sscan",
];

/// The words of the documented line, for this group.
fn rights(group: &str) -> Vec<String> {
    let page = include_str!("../../docs/SECURITY-ACL.md");
    let from = page.find("ACL SETUSER group-user").expect("the page has the line");
    let line = &page[from..from + page[from..].find("```").expect("it ends")];
    line.split_whitespace().skip(3).map(|word| word.replace("default-group", group)).collect()
}

/// The line, and what the page adds to it so that the `ACL LOG` stays empty, where the server knows that right.
async fn quiet_rights(fixture: &Fixture, group: &str) -> Vec<String> {
    let (mut rights, more) = (rights(group), "+client|setinfo");
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("group-user").arg(more);
    let is_known = command.exec_async(&mut fixture.connection().await).await.is_ok();
    rights.extend(is_known.then(|| more.to_owned()));
    rights
}

async fn grant(fixture: &Fixture, rights: &[String]) {
    let mut connection = fixture.connection().await;
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("group-user").arg("reset").arg(rights);
    command.query_async::<()>(&mut connection).await.expect("a line that Redis takes");
    redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut connection).await.unwrap();
    redis::cmd("ACL").arg("LOG").arg("RESET").query_async::<()>(&mut connection).await.unwrap();
}

async fn refused(fixture: &Fixture) -> Vec<String> {
    let mut connection = fixture.connection().await;
    let log: Vec<std::collections::HashMap<String, redis::Value>> =
        redis::cmd("ACL").arg("LOG").query_async(&mut connection).await.unwrap();
    let text = |value: Option<&redis::Value>| match value {
        Some(redis::Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    log.iter().map(|entry| format!("{} {:?}", text(entry.get("reason")), text(entry.get("object")))).collect()
}

/// Everything that a connector can do, once.
async fn everything(group: &GroupConnector) -> Result<(), Error> {
    let me = group.join("me").metadata(&1).tag("blue").await?;
    me.update(&2).await?;
    me.add_tags(["green"]).await?;
    group.sync().await?;

    let (lock, by_name) = (group.lock("one"), group.locks());
    by_name.lock("one").await?;
    let waiting = tokio::spawn({
        let next = group.lock("one").as_member("next");
        async move { next.acquire_timeout(TTL * 3).await }
    });
    for _ in 0..100 {
        if !lock.waiters().await?.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    by_name.release("one").await?;
    if let Some(guard) = waiting.await.expect("it did not panic")? {
        lock.holders().await?;
        guard.fenced().set("fenced", "value").await?;
        guard.fenced().del("fenced").await?;
        guard.release().await;
    }
    by_name.reentrant_lock("two").await?;
    by_name.release("two").await?;
    if let Some(permit) = group.semaphore("three", 2).try_acquire().await? {
        permit.release().await;
    }

    let ephemeral = group.ephemeral();
    ephemeral.set("path", &1).await?;
    ephemeral.set_for("short", &1, TTL).await?;
    ephemeral.get::<u32>("path").await?;
    ephemeral.get_all("").await?;
    ephemeral.del("path").await?;
    let persistent = group.persistent();
    persistent.set("path", &1).await?;
    persistent.set_many([("a", &1), ("b", &2)]).await?;
    persistent.get::<u32>("path").await?;
    persistent.list("").await?;
    persistent.del("path").await?;

    let leader = group.elect("leader").campaign().await?;
    leader.resign().await;
    me.leave().await?;
    Ok(())
}

/// What an error says, and what it says it was caused by.
fn chain(error: &Error) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |source| source.source());
    sources.fold(error.to_string(), |said, source| format!("{said}: {source}")).to_lowercase()
}

fn builder(fixture: &Fixture, group: &str) -> group_redis::GroupConnectorBuilder {
    let url = fixture.redis.url().replace("redis://", "redis://group-user:secret@");
    let patient = Duration::from_millis(700);
    GroupConnector::builder(url).group(group).ttl(TTL).connect_timeout(patient).command_timeout(patient)
}

/// A name that stands in keys and channels as it is.
fn group(of: &str) -> String {
    format!("rights-{}-{of}", std::process::id())
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_rights_are_enough() {
    let (fixture, name) = (Fixture::new().await, group("all"));
    for rights in [rights(&name), quiet_rights(&fixture, &name).await] {
        grant(&fixture, &rights).await;
        let group = builder(&fixture, &name).connect().await.unwrap();
        everything(&group).await.unwrap();
        eventually(&format!("a canary: {:?}", group.status()), async || group.status().notifications_arrive).await;
        group.close().await.unwrap();
    }
    let refused = refused(&fixture).await;
    assert!(refused.is_empty(), "{refused:?}");
}

/// A user that may not use the keys of the group is told so.
#[tokio::test(flavor = "multi_thread")]
async fn missing_key_rights_are_told() {
    let (fixture, name) = (Fixture::new().await, group("keys"));
    let elsewhere = |right: String| if right.starts_with('~') { "~elsewhere/*".to_owned() } else { right };
    let rights: Vec<_> = rights(&name).into_iter().map(elsewhere).collect();
    grant(&fixture, &rights).await;
    let error = builder(&fixture, &name).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_right_is_named() {
    let fixture = Fixture::new().await;
    let mut wrong = Vec::new();
    let all = rights("any");
    for missing in all.iter().filter_map(|right| right.strip_prefix('+')) {
        let name = group(&missing.replace('|', "-"));
        let left: Vec<String> = rights(&name).into_iter().filter(|right| right.get(1..) != Some(missing)).collect();
        grant(&fixture, &left).await;
        let outcome = match builder(&fixture, &name).connect().await {
            Ok(group) => {
                let outcome = everything(&group).await;
                let closed = group.close().await;
                outcome.and(closed)
            }
            Err(error) => Err(error),
        };
        let logged = refused(&fixture).await;
        let names = |error: &Error| error.to_string().to_lowercase().contains(missing);
        match outcome {
            Err(error) if error.kind() == ErrorKind::Denied && names(&error) => {}
            Err(error) => wrong.push(format!("{missing}: {}; the log: {logged:?}", chain(&error))),
            Ok(()) if DONE_WITHOUT.contains(&missing) => {}
            Ok(()) => wrong.push(format!("{missing}: nothing failed; the log: {logged:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
