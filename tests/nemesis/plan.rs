//! The faults, and what each excuses.

/// What a fault may do to those it is on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// For how many ttls heartbeats may not get through.
    pub(crate) silence: f64,
    /// Whether it closes connections, so that the time to connect again counts, and not the ttl.
    pub(crate) cuts: bool,
    /// Whether it takes leases away, or all data, so that nobody can know before.
    pub(crate) breaks: bool,
    /// Whether it changes what the server takes for the time, so that leases last longer or shorter.
    pub(crate) clock: bool,
    /// Whether it is on one worker, and not on all.
    pub(crate) single: bool,
    /// Whether it stops the process of that worker.
    pub(crate) freezes: bool,
    /// Whether it lets another server take over.
    pub(crate) elects: bool,
}

/// Where hints come from, worker by worker.
const SOURCES: [&str; 8] = ["keyspace", "keyspace", "tracking", "keyspace", "poll", "keyspace", "keyevent", "keyspace"];

/// Where hints of this worker come from: `w0`, `w1` and so on.
pub(crate) fn source(worker: &str) -> &'static str {
    let index: usize = worker.trim_start_matches('w').parse().unwrap_or_default();
    SOURCES[index % SOURCES.len()]
}

const fn fault(name: &'static str) -> Fault {
    Fault { name, silence: 0.0, cuts: false, breaks: false, clock: false, single: false, freezes: false, elects: false }
}

impl Fault {
    const fn silent(mut self, ttls: f64) -> Self {
        self.silence = ttls;
        self
    }

    const fn cutting(mut self) -> Self {
        self.cuts = true;
        self
    }

    const fn breaking(mut self) -> Self {
        (self.breaks, self.silence) = (true, 2.0);
        self
    }

    const fn of_one(mut self) -> Self {
        self.single = true;
        self
    }

    const fn freezing(mut self) -> Self {
        (self.freezes, self.single) = (true, true);
        self
    }

    const fn electing(mut self) -> Self {
        self.elects = true;
        self
    }

    pub(crate) fn kills(&self) -> bool {
        ["kill", "kill_half", "late_expiry"].contains(&self.name)
    }

    /// A slow way is no excuse for who hears late: all that goes over it comes in time.
    pub(crate) fn is_prompt(&self) -> bool {
        self.name.starts_with("delay")
    }

    const fn of_time(mut self) -> Self {
        self.clock = true;
        self.breaking()
    }
}

pub(crate) const FAULTS: &[Fault] = &[
    // Processes.
    fault("stop_short").silent(0.4).freezing(),
    fault("stop_long").silent(2.0).freezing(),
    fault("stop_waiter").silent(2.0).freezing(),
    fault("lease_lost_frozen").breaking().freezing(),
    fault("kill").of_one(),
    fault("kill_half"),
    fault("busy_runtime").of_one(),
    fault("blocked_runtime").silent(3.0).of_one(),
    // The server.
    fault("server_freeze_short").silent(0.4),
    fault("server_freeze_long").silent(2.0).cutting(),
    fault("server_restart_empty").cutting().breaking(),
    fault("server_restart_with_data").silent(1.0).cutting(),
    fault("server_restart_stale").cutting().breaking(),
    fault("client_pause").silent(0.4),
    fault("debug_sleep").silent(0.4),
    fault("busy_script").silent(0.4),
    fault("readonly").silent(0.4),
    // Connections.
    fault("client_kill_pubsub"),
    fault("client_kill_normal"),
    fault("output_buffer"),
    fault("idle_timeout").silent(2.0).freezing(),
    fault("maxclients").silent(1.0).cutting(),
    fault("password").silent(1.0).cutting(),
    // Data and settings.
    fault("flush_all").breaking(),
    fault("flush_db").breaking(),
    fault("swap_db").breaking(),
    fault("script_flush"),
    fault("flags_reset"),
    fault("flags_foreign"),
    fault("flags_partial"),
    fault("grants_lost"),
    fault("out_of_memory").silent(0.4),
    fault("evict_volatile_ttl").breaking(),
    fault("evict_allkeys_random").breaking(),
    fault("key_deleted").breaking(),
    fault("key_renamed").breaking(),
    fault("key_overwritten").breaking(),
    fault("key_of_another_type").breaking(),
    // The clock of the server.
    fault("clock_forward").of_time(),
    fault("clock_back").of_time(),
    // Load.
    fault("foreign_ttl_keys"),
    fault("foreign_ttl_keys_many").silent(0.4),
    fault("foreign_writes"),
    // The network.
    fault("delay").of_one(),
    fault("chop").of_one(),
    fault("throttle").of_one(),
    fault("blackhole_short").silent(0.4).of_one(),
    fault("blackhole_long").silent(2.0).of_one(),
    fault("blackhole_to_client").silent(2.0).of_one(),
    fault("blackhole_events").of_one(),
    fault("blackhole_heartbeat").silent(2.0).of_one(),
    fault("blackhole_after_late_answers").silent(2.0).of_one(),
    fault("stop_reading").of_one(),
    fault("reset").of_one(),
    fault("delay_answers").of_one(),
    fault("late_expiry").of_one(),
    fault("late_subscription").silent(0.4).of_one(),
    fault("reset_and_refuse").silent(2.0).cutting().of_one(),
];

/// Another server takes over. Meanwhile no heartbeat gets through.
pub(crate) const FAILOVERS: &[Fault] = &[
    fault("primary_killed").silent(3.0).cutting().electing(),
    fault("primary_killed_lagging").silent(4.0).cutting().electing(),
    fault("primary_frozen").silent(3.0).cutting().electing(),
    fault("failover_clock_behind").silent(1.0).cutting().electing(),
];

pub(crate) const OF_SENTINEL: &[Fault] = &[
    fault("failover").silent(1.0).cutting().electing(),
    fault("primary_back_empty").silent(3.0).cutting().electing(),
    fault("partition").silent(3.0).cutting().electing(),
    fault("quorum_lost"),
    fault("sentinels_gone"),
    fault("sentinels_gone_and_cut"),
    fault("sentinels_out_of_reach").of_one(),
];

/// A slot that moves takes along all that is in it.
pub(crate) const OF_CLUSTER: &[Fault] = &[
    fault("failover_in_step").silent(0.4).electing(),
    fault("failover_forced").silent(1.0).cutting().electing(),
    fault("failover_takeover").silent(1.0).cutting().electing(),
    fault("slot_back_and_forth").silent(0.4),
    fault("all_slots_moved").silent(0.4),
    fault("node_removed").silent(0.4),
];

pub(crate) fn by_name(name: &str) -> Option<&'static Fault> {
    [FAULTS, FAILOVERS, OF_SENTINEL, OF_CLUSTER].into_iter().flatten().find(|fault| fault.name == name)
}
