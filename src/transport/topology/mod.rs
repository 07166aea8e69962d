//! Who is the primary for this group now, and whether that has changed.
//!
//! All connections of a connector go to one server. When one of them finds that another server is the primary, the
//! others are given up: that is an ordinary reconnect, and a reconcile.

mod cluster;
mod identity;
mod sentinel;
mod servers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use identity::Owner;
pub(super) use identity::{Mode, demoted, mode};

use super::link::address;
use super::opener::Opener;
use crate::error::{Error, ErrorKind};
use crate::scripts::Channels;
use sentinel::Found;
pub(crate) use servers::{Sentinels, Servers};
use servers::{addressed, on_port};

/// How many primaries of replicas are followed in one search.
const HOPS: usize = 3;

pub(super) struct Topology {
    servers: Servers,
    opener: Opener,
    follows_replicas: bool,
    /// How long the sentinels may take to answer.
    limit: Duration,
    settled: Mutex<Settled>,
    /// Ends what follows the sentinels.
    stop: CancellationToken,
}

#[derive(Default)]
struct Settled {
    primary: Option<Primary>,
    run: Option<String>,
    /// By which election of the sentinels.
    epoch: u64,
    /// Nodes of the cluster, which may outlive those that are listed.
    nodes: Vec<(String, u16)>,
}

/// The server that connections go to.
#[derive(Clone)]
pub(super) struct Primary {
    pub(super) info: Arc<ConnectionInfo>,
    /// By what channels messages go there.
    pub(super) channels: Channels,
    /// Cancelled when another server is the primary.
    pub(super) replaced: CancellationToken,
}

/// Servers to be tried in turn.
pub(super) struct Search {
    next: Vec<ConnectionInfo>,
    /// The only run that will do, since no sentinel says that this is the primary still.
    run: Option<String>,
    epoch: u64,
    /// The latest election that was known when the search began.
    known: u64,
    hops: usize,
}

impl Settled {
    /// Whether what a search has found counts still: a later election may have been heard of meanwhile.
    fn accepts(&self, search: &Search) -> bool {
        search.epoch >= self.epoch || self.epoch == search.known
    }
}

impl Topology {
    pub(super) fn new(servers: Servers, opener: Opener, follows_replicas: bool, limit: Duration) -> Self {
        let (settled, stop) = (Mutex::default(), CancellationToken::new());
        Self { servers, opener, follows_replicas, limit, settled, stop }
    }

    /// How to connect to the primary: all but its address.
    pub(super) fn primary(&self) -> &ConnectionInfo {
        self.servers.primary()
    }

    /// Ends what follows the sentinels.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Cancelled by [`Self::stop`].
    pub(super) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Where to look for the primary. With sentinels this asks them all; otherwise it costs nothing.
    pub(super) async fn search(&self) -> Result<Search, Error> {
        match &self.servers {
            Servers::Listed(servers) => {
                let settled = self.settled();
                let learnt = settled.nodes.iter().map(|(host, port)| addressed(self.servers.primary(), host, *port));
                let last = settled.primary.iter().map(|primary| primary.info.as_ref().clone());
                // The one that was the primary before comes first.
                let mut next: Vec<ConnectionInfo> = Vec::new();
                for info in last.chain(servers.iter().cloned()).chain(learnt) {
                    if next.iter().all(|before| before.addr() != info.addr()) {
                        next.push(info);
                    }
                }
                next.reverse();
                Ok(Search { next, run: None, epoch: 0, known: 0, hops: HOPS })
            }
            Servers::Sentinels(sentinels) => self.search_by(sentinels).await,
        }
    }

    async fn search_by(&self, sentinels: &Sentinels) -> Result<Search, Error> {
        let known = self.settled().epoch;
        match self.elected(sentinels, known).await {
            Ok(found) => {
                // Some may not have heard of the last election. If most say so when all were asked, they have been set
                // up anew.
                if found.epoch < known && !found.is_of_majority {
                    let message = "the sentinels that answer do not know of the last election";
                    return Err(Error::new(ErrorKind::Connection, message).cured_by("see to the other sentinels"));
                }
                let info = addressed(&sentinels.primary, &found.host, found.port);
                Ok(Search { next: vec![info], run: None, epoch: found.epoch, known, hops: 0 })
            }
            Err(error) => {
                let settled = self.settled();
                match (&settled.primary, &settled.run) {
                    // Nobody elects another without sentinels: the same run of the same server is the primary still.
                    (Some(primary), Some(run)) if error.is_retryable() && !primary.replaced.is_cancelled() => {
                        Ok(Search {
                            next: vec![primary.info.as_ref().clone()],
                            run: Some(run.clone()),
                            epoch: known,
                            known,
                            hops: 0,
                        })
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// The latest election that the sentinels know of. Where those that answer first know less than this connector, the
    /// others are waited for.
    async fn elected(&self, sentinels: &Sentinels, known: u64) -> Result<Found, Error> {
        let found = self.ask_most(sentinels).await?;
        if found.epoch < known { self.ask_all(sentinels).await } else { Ok(found) }
    }

    /// Connections go to this run of this server from now on. Those to another one are given up. One round trip.
    pub(super) async fn settle(
        &self,
        info: ConnectionInfo,
        connection: &mut MultiplexedConnection,
        search: &Search,
        channels: Channels,
    ) -> Result<Primary, Error> {
        let run = identity::run(connection).await;
        if search.run.is_some() && search.run != run {
            let message = "no sentinel answers, and the server that was the primary has been started anew";
            return Err(Error::new(ErrorKind::Connection, message).cured_by("see to the sentinels"));
        }
        let mut settled = self.settled();
        if !settled.accepts(search) {
            let message = "the sentinels have elected another primary meanwhile";
            return Err(Error::new(ErrorKind::Connection, message).cured_by("it is looked for again"));
        }
        settled.epoch = search.epoch;
        let before = std::mem::replace(&mut settled.run, run);
        if let Some(primary) = &settled.primary {
            // A name may have come to stand for another server.
            let is_same_run = before.is_none() || settled.run.is_none() || before == settled.run;
            if primary.info.addr() == info.addr() && is_same_run && !primary.replaced.is_cancelled() {
                return Ok(primary.clone());
            }
            primary.replaced.cancel();
        }
        let primary = Primary { info: Arc::new(info), channels, replaced: CancellationToken::new() };
        settled.primary = Some(primary.clone());
        Ok(primary)
    }

    /// Ends the connections that go to this server, which is no primary, or not the group's.
    fn give_up(&self, info: &ConnectionInfo) {
        let settled = self.settled();
        if let Some(primary) = settled.primary.as_ref().filter(|primary| primary.info.addr() == info.addr()) {
            primary.replaced.cancel();
        }
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Search {
    pub(super) fn left(&self) -> usize {
        self.next.len()
    }

    pub(super) fn next(&mut self) -> Option<ConnectionInfo> {
        self.next.pop()
    }

    /// Whether the server there is a primary. If it is a replica, its primary may come next.
    pub(super) fn judge(&mut self, topology: &Topology, info: &ConnectionInfo, mode: &Mode) -> Result<(), Error> {
        match mode {
            Mode::Primary => Ok(()),
            Mode::Sentinel => Err(Error::sentinel_there()),
            Mode::Node { owner, primaries, .. } => {
                if !primaries.is_empty() {
                    topology.settled().nodes.clone_from(primaries);
                }
                match owner {
                    Owner::ThisNode => Ok(()),
                    Owner::Nobody => Err(Error::slot_unserved()),
                    Owner::Other { host, port } => {
                        let owner = match host {
                            Some(host) => addressed(info, host, *port),
                            None => on_port(info, *port),
                        };
                        topology.give_up(info);
                        let error = Error::slot_elsewhere(&address(owner.addr()));
                        if self.hops > 0 {
                            self.hops -= 1;
                            self.next.push(owner);
                        }
                        Err(error)
                    }
                }
            }
            Mode::Replica { of } => {
                topology.give_up(info);
                if let (Some((host, port)), true) = (of, topology.follows_replicas && self.hops > 0) {
                    self.hops -= 1;
                    self.next.push(addressed(info, host, *port));
                }
                let error = Error::replica_there(of.clone());
                let may_pass = matches!(topology.servers, Servers::Sentinels(_));
                Err(if may_pass { error.while_reconnecting() } else { error })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_a_later_election_overtook_is_refused() {
        let settled = |epoch| Settled { epoch, ..Settled::default() };
        let search = |known, epoch| Search { next: Vec::new(), run: None, epoch, known, hops: 0 };
        assert!(settled(5).accepts(&search(5, 5)) && settled(5).accepts(&search(5, 6)));
        assert!(!settled(6).accepts(&search(5, 5)), "an election was heard of meanwhile");
        assert!(settled(6).accepts(&search(5, 6)), "another connection has found the same");
        assert!(settled(6).accepts(&search(6, 0)), "the sentinels have been set up anew");
    }
}
