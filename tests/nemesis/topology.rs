//! What the servers are, and which faults there are then.

use crate::plan::{FAILOVERS, FAULTS, Fault, OF_CLUSTER, OF_SENTINEL};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Topology {
    Standalone,
    Sentinel,
    Cluster,
}

impl Topology {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        [Self::Standalone, Self::Sentinel, Self::Cluster].into_iter().find(|topology| topology.to_string() == name)
    }

    /// What can be done to it.
    pub(crate) fn faults(self) -> Vec<&'static Fault> {
        let (own, shared) = match self {
            Self::Standalone => return FAULTS.iter().collect(),
            Self::Sentinel => (OF_SENTINEL, ALSO_OF_SENTINEL),
            Self::Cluster => (OF_CLUSTER, ALSO_OF_CLUSTER),
        };
        let both = FAILOVERS.iter().chain(own);
        both.chain(FAULTS.iter().filter(|fault| ANYWHERE.contains(&fault.name) || shared.contains(&fault.name)))
            .collect()
    }
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        })
    }
}

/// What can be done to one server and also where servers replace each other, too. The others need a proxy before the data, or a
/// server that nobody takes for dead meanwhile.
const ANYWHERE: &[&str] = &[
    "stop_short",
    "stop_long",
    "stop_waiter",
    "lease_lost_frozen",
    "kill",
    "kill_half",
    "busy_runtime",
    "blocked_runtime",
    "server_freeze_short",
    "client_pause",
    "busy_script",
    "client_kill_pubsub",
    "client_kill_normal",
    "output_buffer",
    "idle_timeout",
    "flush_all",
    "flush_db",
    "script_flush",
    "flags_reset",
    "flags_foreign",
    "flags_partial",
    "grants_lost",
    "out_of_memory",
    "evict_volatile_ttl",
    "evict_allkeys_random",
    "key_deleted",
    "key_renamed",
    "key_overwritten",
    "key_of_another_type",
];
const ALSO_OF_SENTINEL: &[&str] = &["swap_db", "foreign_ttl_keys"];
const ALSO_OF_CLUSTER: &[&str] = &["password"];
