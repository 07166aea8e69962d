//! How each fault is brought about, and how it is seen that it had an effect.

use std::io::Write;
use std::time::{Duration, Instant};

use group_redis::testing::{self, Flow, Way};
use redis::Value;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::chance::Chance;
use crate::history::{Line, What};
use crate::stage::{PREFIX, Stage, Worker};
use crate::worker::TTL;

/// Less than what may be missing of a ttl without a lease being lost, and more than a ttl.
const SHORT: Duration = Duration::from_millis(800);
const LONG: Duration = Duration::from_millis(4000);
/// Nearly as long as a heartbeat waits for its answer.
const LATE: Duration = Duration::from_millis(550);
const WHILE: Duration = Duration::from_millis(2500);

/// Brings a fault about, keeps it up for a while, and heals it. Answers whether it had an effect.
pub(crate) async fn inject(stage: &Stage, fault: &str, on: &Worker, chance: &mut Chance) -> bool {
    match fault {
        "stop_short" => stop(stage, on, SHORT).await,
        "stop_long" => stop(stage, on, LONG).await,
        "kill" => {
            stage.kill(on).await;
            sleep(Duration::from_millis(chance.from(500, 3000))).await;
            true
        }
        "busy_runtime" => {
            stage.tell(on, "block 750");
            sleep(Duration::from_millis(1600)).await;
            true
        }
        "blocked_runtime" => {
            let begun = crate::history::now();
            stage.tell(on, "block 4500");
            sleep(Duration::from_millis(9500)).await;
            let left = |line: &Line| matches!(&line.what, What::Left { id, .. } if *id == on.name);
            stage.history.since(begun).iter().any(|line| line.who != on.name && left(line))
        }
        "server_freeze_short" => freeze(stage, SHORT).await,
        "server_freeze_long" => freeze(stage, LONG).await,
        "server_restart_empty" => stage.redis.restart_empty().await.is_ok(),
        "server_restart_with_data" => stage.redis.restart_with_data().await.is_ok(),
        "client_pause" => {
            let paused = stage.ask::<Value>(&["CLIENT", "PAUSE", "800", "ALL"]).await.is_ok();
            let begun = Instant::now();
            let _ = stage.ask::<Value>(&["PING"]).await;
            paused && begun.elapsed() > SHORT / 2
        }
        "debug_sleep" => {
            let begun = Instant::now();
            let _ = stage.ask::<Value>(&["DEBUG", "SLEEP", "0.8"]).await;
            begun.elapsed() > SHORT / 2
        }
        "busy_script" => busy_script(stage).await,
        "readonly" => {
            let _ = stage.ask::<Value>(&["CONFIG", "SET", "replica-read-only", "yes"]).await;
            let demoted = stage.ask::<Value>(&["REPLICAOF", "127.0.0.1", "1"]).await.is_ok();
            sleep(SHORT).await;
            demoted && stage.ask::<Value>(&["REPLICAOF", "NO", "ONE"]).await.is_ok()
        }
        "client_kill_pubsub" => kill_clients(stage, "pubsub").await,
        "client_kill_normal" => kill_clients(stage, "normal").await,
        "output_buffer" => output_buffer(stage).await,
        "idle_timeout" => {
            let set = stage.ask::<Value>(&["CONFIG", "SET", "timeout", "1"]).await.is_ok();
            sleep(WHILE).await;
            set && stage.ask::<Value>(&["CONFIG", "SET", "timeout", "0"]).await.is_ok()
        }
        "maxclients" => maxclients(stage).await,
        "password" => {
            let set = stage.ask::<Value>(&["CONFIG", "SET", "requirepass", "another"]).await.is_ok();
            let killed: u64 = stage.ask(&["CLIENT", "KILL", "SKIPME", "yes"]).await.unwrap_or_default();
            sleep(Duration::from_millis(1200)).await;
            set && killed > 0 && stage.ask::<Value>(&["CONFIG", "SET", "requirepass", ""]).await.is_ok()
        }
        "flush_all" => stage.ask::<Value>(&["FLUSHALL"]).await.is_ok(),
        "flush_db" => stage.ask::<Value>(&["FLUSHDB"]).await.is_ok(),
        "swap_db" => {
            let swapped = stage.ask::<Value>(&["SWAPDB", "0", "1"]).await.is_ok();
            sleep(Duration::from_millis(chance.from(100, 3000))).await;
            swapped && stage.ask::<Value>(&["SWAPDB", "0", "1"]).await.is_ok()
        }
        "script_flush" => stage.ask::<Value>(&["SCRIPT", "FLUSH", "SYNC"]).await.is_ok(),
        "flags_reset" => flags(stage, "").await,
        "flags_foreign" => flags(stage, "Elg").await,
        "flags_partial" => flags(stage, "Kx").await,
        "grants_lost" => {
            let without = stage.ask::<Value>(&["ACL", "SETUSER", "default", "-publish"]).await.is_ok();
            sleep(WHILE).await;
            without && stage.ask::<Value>(&["ACL", "SETUSER", "default", "+publish"]).await.is_ok()
        }
        "out_of_memory" => memory(stage, "noeviction").await,
        "evict_volatile_ttl" => memory(stage, "volatile-ttl").await,
        "evict_allkeys_random" => memory(stage, "allkeys-random").await,
        "key_deleted" | "key_renamed" | "key_overwritten" | "key_of_another_type" => a_key(stage, fault, chance).await,
        "clock_forward" => clock(stage, 60).await,
        "clock_back" => clock(stage, -60).await,
        "foreign_ttl_keys" => foreign_keys(stage, 100_000).await,
        "foreign_ttl_keys_many" => foreign_keys(stage, 1_000_000).await,
        "foreign_writes" => foreign_writes(stage).await,
        other => network(stage, other, on, chance).await,
    }
}

async fn stop(stage: &Stage, on: &Worker, time: Duration) -> bool {
    let stopped = stage.signal(on, Signal::STOP);
    sleep(time).await;
    stage.signal(on, Signal::CONT) && stopped
}

async fn freeze(stage: &Stage, time: Duration) -> bool {
    let frozen = stage.redis.freeze().await.is_ok();
    sleep(time).await;
    stage.redis.thaw().await.is_ok() && frozen
}

async fn busy_script(stage: &Stage) -> bool {
    let script = "local t = redis.call('TIME'); local from = t[1] * 1000 + t[2] / 1000
        repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 - from > 800 return 1";
    let begun = Instant::now();
    let _ = stage.ask::<Value>(&["EVAL", script, "0"]).await;
    begun.elapsed() > SHORT / 2
}

/// Every 50 ms, so that who has just come back is cut off again.
async fn kill_clients(stage: &Stage, kind: &str) -> bool {
    let (begun, mut killed) = (Instant::now(), 0);
    while begun.elapsed() < WHILE {
        killed += stage.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await.unwrap_or_default();
        sleep(Duration::from_millis(50)).await;
    }
    killed > 0
}

/// A flood of foreign events, and a limit that nobody who hears them can keep.
async fn output_buffer(stage: &Stage) -> bool {
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1024 1024 0"];
    let set = stage.ask::<Value>(&limit).await.is_ok();
    let before = subscribers(stage).await;
    let flood = "for i = 1, 3000 do redis.call('PUBLISH', KEYS[1], string.rep('x', 1000)) end";
    let channels: Vec<String> = stage.ask(&["PUBSUB", "CHANNELS", "*inbox*"]).await.unwrap_or_default();
    for channel in &channels {
        let _ = stage.ask::<Value>(&["EVAL", flood, "1", channel]).await;
    }
    sleep(Duration::from_millis(500)).await;
    let after = subscribers(stage).await;
    let ended = before.iter().any(|subscriber| !after.contains(subscriber));
    set && ended
        && stage.ask::<Value>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"]).await.is_ok()
}

/// The connections that subscribe, by their ids at the server.
async fn subscribers(stage: &Stage) -> Vec<String> {
    let list: String = stage.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.unwrap_or_default();
    list.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

async fn maxclients(stage: &Stage) -> bool {
    let list: String = stage.ask(&["CLIENT", "LIST"]).await.unwrap_or_default();
    let most = (list.lines().count().saturating_sub(2)).max(2).to_string();
    let set = stage.ask::<Value>(&["CONFIG", "SET", "maxclients", &most]).await.is_ok();
    let killed: u64 = stage.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await.unwrap_or_default();
    sleep(Duration::from_millis(1200)).await;
    set && killed > 0 && stage.ask::<Value>(&["CONFIG", "SET", "maxclients", "10000"]).await.is_ok()
}

async fn flags(stage: &Stage, flags: &str) -> bool {
    let set = stage.ask::<Value>(&["CONFIG", "SET", "notify-keyspace-events", flags]).await.is_ok();
    sleep(WHILE).await;
    set
}

/// No more memory than there is used now.
async fn memory(stage: &Stage, policy: &str) -> bool {
    let _ = stage.ask::<Value>(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
    let before = evictions(stage).await;
    let set = stage.ask::<Value>(&["CONFIG", "SET", "maxmemory", "1mb"]).await.is_ok();
    sleep(SHORT).await;
    let refused = stage.ask::<Value>(&["SET", "nemesis:filler", "x"]).await.is_err();
    let evicted = evictions(stage).await > before;
    let _ = stage.ask::<Value>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let _ = stage.ask::<Value>(&["DEL", "nemesis:filler"]).await;
    set && (refused || evicted)
}

async fn evictions(stage: &Stage) -> u64 {
    let info: String = stage.ask(&["INFO", "stats"]).await.unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("evicted_keys:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

/// Something happens to one of the group's own keys.
async fn a_key(stage: &Stage, fault: &str, chance: &mut Chance) -> bool {
    let keys: Vec<String> = stage.ask(&["KEYS", &format!("{PREFIX}*")]).await.unwrap_or_default();
    // The shared indexes are everybody's: what happens to them is another matter than to what is one member's.
    let own = |key: &&String| {
        ["members/", "leases/", "locks/", "ephemerals/", "owned/", "queues/"].iter().any(|kind| key.contains(kind))
    };
    let own: Vec<_> = keys.iter().filter(own).collect();
    if own.is_empty() {
        return false;
    }
    let key = own[usize::try_from(chance.from(0, own.len() as u64)).unwrap_or_default()].as_str();
    let done = match fault {
        "key_deleted" => stage.ask::<u64>(&["DEL", key]).await.is_ok_and(|deleted| deleted == 1),
        "key_renamed" => stage.ask::<Value>(&["RENAME", key, "nemesis:renamed"]).await.is_ok(),
        "key_overwritten" => stage.ask::<Value>(&["SET", key, "something else", "PX", "1500"]).await.is_ok(),
        _ => {
            let made = stage
                .ask::<Value>(&[
                    "EVAL",
                    "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')
                return redis.call('PEXPIRE', KEYS[1], 1500)",
                    "1",
                    key,
                ])
                .await;
            made.is_ok()
        }
    };
    sleep(Duration::from_millis(1600)).await;
    let _ = stage.ask::<Value>(&["DEL", "nemesis:renamed"]).await;
    // It may have gone by itself in the meantime, as what is short-lived does.
    done || fault != "key_of_another_type"
}

async fn server_time(stage: &Stage) -> i64 {
    let time: Vec<i64> = stage.ask(&["TIME"]).await.unwrap_or_default();
    time.first().copied().unwrap_or_default()
}

/// The server's clock by so many seconds, by way of a file that its preloaded shim reads.
async fn clock(stage: &Stage, seconds: i64) -> bool {
    let before = server_time(stage).await;
    // In place: the server has the file in its memory, and a file cut short would end it.
    let set = |seconds: i64| {
        let file = std::fs::OpenOptions::new().write(true).open(&stage.clock);
        file.and_then(|mut file| file.write_all(&(seconds * 1_000_000).to_ne_bytes())).is_ok()
    };
    let stepped = set(seconds);
    let after = server_time(stage).await;
    sleep(WHILE).await;
    set(0) && stepped && (after - before - seconds).abs() < 10
}

/// Keys of others with a time to live, so that Redis's own search for what has run out takes for ever.
async fn foreign_keys(stage: &Stage, count: u64) -> bool {
    let fill = "for i = ARGV[1], ARGV[1] + 4999 do redis.call('SET', 'foreign:' .. i, 'x', 'PX', 4000 + i % 4000) end";
    for from in (0..count).step_by(5000) {
        if stage.ask::<Value>(&["EVAL", fill, "0", &from.to_string()]).await.is_err() {
            return false;
        }
    }
    sleep(Duration::from_secs(1)).await;
    let empty = "local cursor = '0' repeat local found = redis.call('SCAN', cursor, 'MATCH', 'foreign:*', 'COUNT', 5000)
        cursor = found[1] if #found[2] > 0 then redis.call('UNLINK', unpack(found[2])) return 1 end until cursor == '0' return 0";
    let begun = Instant::now();
    while stage.ask::<u64>(&["EVAL", empty, "0"]).await.unwrap_or_default() == 1 && begun.elapsed() < TTL * 20 {}
    true
}

/// As many writes of others as the server takes, for a while.
async fn foreign_writes(stage: &Stage) -> bool {
    let Ok(mut connection) = stage.redis.connection().await else { return false };
    let (begun, mut written) = (Instant::now(), 0_u64);
    while begun.elapsed() < WHILE {
        let mut pipe = redis::pipe();
        for index in 0..500 {
            pipe.cmd("SET").arg(format!("foreign:{index}")).arg(written).ignore();
        }
        if timeout(TTL, pipe.query_async::<()>(&mut connection)).await.is_err() {
            return false;
        }
        written += 500;
    }
    let _ = stage.ask::<Value>(&["EVAL", "for i = 0, 499 do redis.call('DEL', 'foreign:' .. i) end", "0"]).await;
    written > 10_000
}

/// The way between one worker and the server.
async fn network(stage: &Stage, fault: &str, on: &Worker, chance: &mut Chance) -> bool {
    let proxy = &on.proxy;
    let way = if chance.from(0, 2) == 0 { Way::ToServer } else { Way::ToClient };
    let before = (proxy.carried(Way::ToServer), proxy.carried(Way::ToClient), proxy.accepted());
    let mut time = WHILE;
    match fault {
        "delay" => {
            let ms = Duration::from_millis(chance.from(20, 60));
            proxy.set_both(testing::Line::Any, Flow::new().delay(ms).jitter(ms));
        }
        "chop" => {
            proxy.set_both(testing::Line::Any, Flow::new().chop(usize::try_from(chance.from(1, 20)).unwrap_or(1)))
        }
        "throttle" => proxy.set(testing::Line::Any, way, Flow::new().throttle(20_000)),
        "blackhole_short" => {
            proxy.set_both(testing::Line::Any, Flow::new().blackhole());
            time = SHORT;
        }
        "blackhole_long" => {
            proxy.set_both(testing::Line::Any, Flow::new().blackhole());
            time = LONG;
        }
        "blackhole_to_client" => proxy.set(testing::Line::Any, Way::ToClient, Flow::new().blackhole()),
        "blackhole_events" => proxy.set(testing::Line::Events, way, Flow::new().blackhole()),
        "blackhole_heartbeat" => proxy.set(testing::Line::Heartbeat, way, Flow::new().blackhole()),
        // The last heartbeats are answered late: what counts is when they were sent.
        "blackhole_after_late_answers" => {
            proxy.set(testing::Line::Heartbeat, Way::ToClient, Flow::new().delay(LATE));
            sleep(LATE * 4).await;
            proxy.set_both(testing::Line::Any, Flow::new().blackhole());
            time = LONG;
        }
        "stop_reading" => proxy.set(testing::Line::Events, Way::ToClient, Flow::new().stop_reading()),
        "reset" => {
            let begun = Instant::now();
            while begun.elapsed() < WHILE {
                proxy.reset(testing::Line::Any);
                sleep(Duration::from_millis(chance.from(100, 400))).await;
            }
            return proxy.accepted() > before.2 + 3;
        }
        "reset_and_refuse" => {
            proxy.refuse();
            proxy.reset(testing::Line::Any);
        }
        other => panic!("no fault is called {other}"),
    }
    sleep(time).await;
    let is_still_alive = stage.is_running(on);
    proxy.heal();
    is_still_alive
}
