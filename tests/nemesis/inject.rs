//! How each fault is brought about and healed, and how it is seen that it had an effect: what was seen counts, not
//! what was ordered.

mod cluster;
mod data;
mod failover;
mod load;
mod network;
mod probe;
mod process;
mod sentinel;
mod server;
mod settings;
mod whole;

use std::time::Duration;

use crate::chance::Chance;
use crate::plan::Fault;
use crate::stage::{Stage, Worker};
use crate::topology::Topology;

/// Less than what may be missing of a ttl without a lease being lost, and more than a ttl.
const SHORT: Duration = Duration::from_millis(800);
const LONG: Duration = Duration::from_millis(4000);
/// Nearly as long as a heartbeat waits for its answer.
const LATE: Duration = Duration::from_millis(550);
const WHILE: Duration = Duration::from_millis(2500);

/// Brings a fault about, keeps it up for a while, and heals it. Answers whether it had an effect.
pub(crate) async fn inject(stage: &Stage, fault: &Fault, on: &Worker, chance: &mut Chance) -> bool {
    let effective = match stage.topology {
        Topology::Standalone => one(stage, fault.name, on, chance).await,
        Topology::Sentinel | Topology::Cluster => several(stage, fault.name, on, chance).await,
    };
    // What happens to one worker costs the servers nothing.
    (fault.single || whole::wait(stage).await) && effective
}

/// Where servers replace each other.
async fn several(stage: &Stage, fault: &str, on: &Worker, chance: &mut Chance) -> bool {
    match fault {
        "primary_killed" => failover::killed(stage).await,
        "primary_killed_lagging" => failover::killed_lagging(stage, chance).await,
        "primary_frozen" => failover::frozen(stage, chance).await,
        "failover_clock_behind" => failover::clock_behind(stage).await,
        "failover" => sentinel::failover(stage).await,
        "primary_back_empty" => sentinel::back_empty(stage).await,
        "partition" => sentinel::partition(stage, chance).await,
        "quorum_lost" => sentinel::quorum_lost(stage).await,
        "sentinels_gone" => sentinel::gone(stage).await,
        "sentinels_gone_and_cut" => sentinel::gone_and_cut(stage).await,
        "sentinels_out_of_reach" => sentinel::out_of_reach(on).await,
        "failover_in_step" => cluster::in_step(stage).await,
        "failover_forced" => cluster::takes_over(stage, "FORCE").await,
        "failover_takeover" => cluster::takes_over(stage, "TAKEOVER").await,
        "slot_back_and_forth" => cluster::back_and_forth(stage, chance).await,
        "all_slots_moved" => cluster::all_moved(stage, chance).await,
        "node_removed" => cluster::node_removed(stage, chance).await,
        shared => one(stage, shared, on, chance).await,
    }
}

async fn one(stage: &Stage, fault: &str, on: &Worker, chance: &mut Chance) -> bool {
    match fault {
        "stop_short" => process::stop(stage, on, SHORT).await,
        "stop_long" => process::stop(stage, on, LONG).await,
        "kill" => process::kill(stage, on, chance).await,
        "kill_half" => process::kill_half(stage, chance).await,
        "stop_waiter" => process::stop_waiter(stage, on).await,
        "lease_lost_frozen" => process::lease_lost_frozen(stage, on).await,
        "late_expiry" => process::late_expiry(stage, on, chance).await,
        "busy_runtime" => process::busy(stage, on).await,
        "blocked_runtime" => process::blocked(stage, on).await,
        "server_freeze_short" => server::freeze(stage, SHORT).await,
        "server_freeze_long" => server::freeze(stage, LONG).await,
        "server_restart_empty" => server::restart_empty(stage).await,
        "server_restart_with_data" => server::restart_with_data(stage).await,
        "server_restart_stale" => server::restart_stale(stage, chance).await,
        "client_pause" => server::pause(stage).await,
        "debug_sleep" => server::sleeping(stage).await,
        "busy_script" => server::busy_script(stage).await,
        "readonly" => server::readonly(stage).await,
        "client_kill_pubsub" => server::kill_clients(stage, "pubsub").await,
        "client_kill_normal" => server::kill_clients(stage, "normal").await,
        "output_buffer" => settings::output_buffer(stage).await,
        "idle_timeout" => settings::idle_timeout(stage, on).await,
        "maxclients" => settings::maxclients(stage).await,
        "password" => settings::password(stage).await,
        "flags_reset" => settings::flags(stage, "").await,
        "flags_foreign" => settings::flags(stage, "Elg").await,
        "flags_partial" => settings::flags(stage, "Kx").await,
        "grants_lost" => settings::grants_lost(stage).await,
        "out_of_memory" => settings::out_of_memory(stage).await,
        "evict_volatile_ttl" => settings::evict(stage, "volatile-ttl").await,
        "evict_allkeys_random" => settings::evict(stage, "allkeys-random").await,
        "flush_all" => data::flush(stage, "FLUSHALL").await,
        "flush_db" => data::flush(stage, "FLUSHDB").await,
        "swap_db" => data::swap(stage, chance).await,
        "script_flush" => data::script_flush(stage).await,
        "key_deleted" | "key_renamed" | "key_overwritten" | "key_of_another_type" => {
            data::a_key(stage, fault, chance).await
        }
        "clock_forward" => server::clock(stage, 60).await,
        "clock_back" => server::clock(stage, -60).await,
        "foreign_ttl_keys" => load::foreign_keys(stage, 100_000).await,
        "foreign_ttl_keys_many" => load::foreign_keys(stage, 1_000_000).await,
        "foreign_writes" => load::foreign_writes(stage).await,
        other => network::network(stage, other, on, chance).await,
    }
}
