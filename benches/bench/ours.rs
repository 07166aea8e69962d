//! What a user writes with this crate.

use std::future::IntoFuture;
use std::time::Duration;

use futures_util::future::try_join_all;
use group_redis::{Event, GroupConnector, GroupConnectorBuilder, Membership};
use tokio::task::JoinSet;

use crate::watch::Tally;
use crate::way::{Outcome, say};

/// For many that are asked for at once, and wait for each other.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Batches of events that no watcher here falls behind by: it is to see each change by itself.
const BUFFER: usize = 20_000;

/// A group that no other process of the run has.
pub(crate) fn own_group() -> String {
    format!("bench-{}", std::process::id())
}

pub(crate) fn builder(url: &str, group: &str) -> GroupConnectorBuilder {
    GroupConnector::builder(url).group(group)
}

pub(crate) async fn watcher(url: &str, group: &str) -> Outcome<GroupConnector> {
    Ok(builder(url, group).event_buffer(BUFFER).connect().await?)
}

/// So many connectors, a few at a time.
pub(crate) async fn connect_many(
    count: usize,
    builder: impl Fn() -> GroupConnectorBuilder,
) -> Outcome<Vec<GroupConnector>> {
    const AT_ONCE: usize = 4;
    let (mut connecting, mut connected) = (JoinSet::new(), Vec::new());
    for _ in 0..count {
        connecting.spawn(builder().connect());
        if connecting.len() == AT_ONCE
            && let Some(group) = connecting.join_next().await
        {
            connected.push(group??);
        }
    }
    while let Some(group) = connecting.join_next().await {
        connected.push(group??);
    }
    Ok(connected)
}

pub(crate) async fn join_all(group: &GroupConnector, names: impl Iterator<Item = String>) -> Outcome<Vec<Membership>> {
    let group = group.timeout(PATIENCE);
    let joins = names.map(|name| tokio::spawn(group.join(name).into_future()));
    let joined = try_join_all(joins.collect::<Vec<_>>()).await?;
    Ok(joined.into_iter().collect::<Result<_, _>>()?)
}

pub(crate) async fn leave_all(members: Vec<Membership>) -> Outcome<()> {
    let leaves = members.into_iter().map(|member| tokio::spawn(member.timeout(PATIENCE).leave()));
    try_join_all(leaves.collect::<Vec<_>>()).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

/// A process that watches the group.
pub(crate) async fn watch(url: &str, group: &str, mut tally: Tally) -> Outcome<()> {
    let group = watcher(url, group).await?;
    let mut events = group.events();
    say("ready")?;
    while let Some(event) = events.next().await {
        match event {
            Event::Joined(_) => tally.count("joined")?,
            Event::Updated { .. } => tally.count("updated")?,
            Event::Left { .. } => tally.count("left")?,
            _ => {}
        }
    }
    Ok(())
}
