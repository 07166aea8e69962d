//! What sentinels say: who the primary is, and when there is another.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join_all, try_join};
use futures_util::stream::FuturesUnordered;
use redis::{AsyncConnectionConfig, Cmd, ConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::servers::addressed;
use super::{Primary, Sentinels, Servers, Topology};
use crate::error::{Error, ErrorKind};
use crate::transport::link::address;

/// What they tell when there is another primary.
const SWITCH: &str = "+switch-master";

/// How many of its messages may wait.
const PUSHES: usize = 64;

/// How long to wait before a sentinel is followed again.
const PAUSE: Duration = Duration::from_secs(1);

/// A primary, by the latest election that one of them knows.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) epoch: u64,
    /// Whether most of them have answered.
    pub(super) is_of_majority: bool,
}

impl Found {
    fn is_same(&self, other: &Self) -> bool {
        (&self.host, self.port, self.epoch) == (&other.host, other.port, other.epoch)
    }
}

/// Whether as many say one thing of the latest election as another.
fn is_divided(answers: &[Found]) -> bool {
    let Some((found, times)) = best(answers) else { return false };
    let others: Vec<_> = answers.iter().filter(|other| !other.is_same(found)).cloned().collect();
    best(&others).is_some_and(|(other, as_often)| other.epoch == found.epoch && as_often == times)
}

/// The answer of the latest election that is given most often, and how often.
fn best(answers: &[Found]) -> Option<(&Found, usize)> {
    let times = |found: &Found| answers.iter().filter(|other| other.is_same(found)).count();
    answers.iter().map(|found| (found, times(found))).max_by_key(|(found, times)| (found.epoch, *times))
}

/// Whether this tells of the master of this name.
fn names(told: &[u8], master: &str) -> bool {
    told.split(|byte| *byte == b' ').next() == Some(master.as_bytes())
}

fn command(name: &str, master: &str) -> Cmd {
    let mut command = redis::cmd("SENTINEL");
    command.arg(name).arg(master);
    command
}

impl Topology {
    /// Asks them all at once, and answers as soon as most of them have answered, or when the time is up. The latest election
    /// counts; of one election, what more of them say.
    pub(super) async fn ask_most(&self, sentinels: &Sentinels) -> Result<Found, Error> {
        self.ask_until(sentinels, |answers| answers.len() * 2 > sentinels.sentinels.len() && !is_divided(answers)).await
    }

    /// The same, but waits until all have answered, or the time is up.
    pub(super) async fn ask_all(&self, sentinels: &Sentinels) -> Result<Found, Error> {
        self.ask_until(sentinels, |_| false).await
    }

    async fn ask_until(
        &self,
        sentinels: &Sentinels,
        is_enough: impl Fn(&[Found]) -> bool + Send,
    ) -> Result<Found, Error> {
        let all = &sentinels.sentinels;
        let mut asked: FuturesUnordered<_> = all.iter().map(|info| self.ask(info, &sentinels.master)).collect();
        let (mut answers, mut failed) = (Vec::new(), None::<Error>);
        let asking = async {
            while let Some(answer) = asked.next().await {
                match answer {
                    Ok(found) => {
                        answers.push(found);
                        if is_enough(&answers) {
                            return;
                        }
                    }
                    // What will not pass by itself is told rather than that another one does not answer.
                    Err(error) if failed.as_ref().is_none_or(Error::is_retryable) => failed = Some(error),
                    Err(_) => {}
                }
            }
        };
        // Whoever has not answered by then is not waited for.
        let _ = timeout(self.limit, asking).await;
        match best(&answers) {
            Some((found, _)) => Ok(Found { is_of_majority: answers.len() * 2 > all.len(), ..found.clone() }),
            None => Err(failed.unwrap_or_else(|| Error::not_connected(self.limit))),
        }
    }

    async fn ask(&self, info: &ConnectionInfo, master: &str) -> Result<Found, Error> {
        let here = address(info.addr());
        let failed = |error| Error::connecting(&format!("asking the sentinel {here} for {master:?}"), error);
        let client = self.opener.client(info.clone())?;
        let settings = self.opener.complete(AsyncConnectionConfig::new(), info);
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await.map_err(failed)?;
        let mut other = connection.clone();
        let (details, address) = (command("MASTER", master), command("GET-MASTER-ADDR-BY-NAME", master));
        // The details name the old address for a while after the epoch of the new one.
        let asked = try_join(details.query_async(&mut connection), address.query_async(&mut other)).await;
        let (details, address): (HashMap<String, String>, Option<(String, u16)>) =
            asked.map_err(|error: RedisError| match error.detail() {
                Some(words) if words.contains("unknown command") => {
                    let message = format!("{here} is a server and no sentinel");
                    Error::new(ErrorKind::Config, message).cured_by("use redis:// for a server")
                }
                _ => failed(error),
            })?;
        let (host, port) = address.ok_or_else(|| Error::unexpected("SENTINEL GET-MASTER-ADDR-BY-NAME"))?;
        let epoch = details.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or_default();
        Ok(Found { host, port, epoch, is_of_majority: false })
    }

    /// Gives the connections up as soon as the sentinels have elected another primary; until [`Topology::stop`].
    pub(in crate::transport) async fn follow_sentinels(&self) {
        let Servers::Sentinels(sentinels) = &self.servers else { return };
        // All of them: one may be cut off from the others together with the primary before, or be frozen.
        let following = join_all(sentinels.sentinels.iter().map(async |info| {
            loop {
                if let Err(error) = self.follow(info, sentinels).await {
                    tracing::debug!(%error, "a sentinel does not tell of failovers");
                }
                sleep(PAUSE).await;
            }
        }));
        self.stop.run_until_cancelled(following).await;
    }

    /// Follows what this sentinel tells, until its connection ends.
    async fn follow(&self, info: &ConnectionInfo, sentinels: &Sentinels) -> Result<(), Error> {
        let failed = |error| Error::connecting("following a sentinel", error);
        let (sender, mut told) = mpsc::channel(PUSHES);
        let settings = AsyncConnectionConfig::new().set_push_sender(move |push| {
            // Where there are too many, what they are about is compared after those that wait.
            let _ = sender.try_send(push);
            Ok::<_, Infallible>(())
        });
        let settings = self.opener.complete(settings, info);
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = self.opener.client(info.clone().set_redis_settings(redis))?;
        let subscribing = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
            connection.subscribe(SWITCH).await?;
            Ok(connection)
        };
        let subscribed = timeout(self.limit, subscribing).await;
        let _connection = subscribed.map_err(|_| Error::not_connected(self.limit))?.map_err(failed)?;
        // What was told before is not told again.
        self.compare(sentinels).await;
        while let Some(PushInfo { kind, data }) = told.recv().await {
            match (kind, data.last()) {
                (PushKind::Disconnection, _) => return Ok(()),
                (PushKind::Message, Some(Value::BulkString(text))) if names(text, &sentinels.master) => {
                    self.compare(sentinels).await;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the connections up, if they go to another server than the primary of the latest election.
    async fn compare(&self, sentinels: &Sentinels) {
        let Ok(found) = self.ask_all(sentinels).await else { return };
        let mut settled = self.settled();
        let elected = addressed(&sentinels.primary, &found.host, found.port);
        let is_other = |primary: &&Primary| primary.info.addr() != elected.addr() && !primary.replaced.is_cancelled();
        if let Some(primary) = settled.primary.as_ref().filter(is_other)
            && found.epoch >= settled.epoch
        {
            tracing::info!(host = found.host, port = found.port, "the sentinels have elected another primary");
            primary.replaced.cancel();
            // Whoever knows of an earlier election only is not believed any more.
            settled.epoch = found.epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(port: u16, epoch: u64) -> Found {
        Found { host: "h".to_owned(), port, epoch, is_of_majority: false }
    }

    #[test]
    fn latest_election_counts_and_then_the_number() {
        for (answers, port, divided) in [
            (&[found(1, 0)][..], 1, false),
            (&[found(1, 0), found(2, 1)], 2, false),
            (&[found(1, 0), found(1, 0), found(2, 1)], 2, false),
            // One that lies, or has been set up anew.
            (&[found(1, 0), found(2, 0)], 2, true),
            (&[found(2, 0), found(1, 0), found(1, 0)], 1, false),
        ] {
            assert_eq!(
                (best(answers).map(|(best, _)| best.port), is_divided(answers)),
                (Some(port), divided),
                "{answers:?}"
            );
        }
    }
}
