//! What the server has, and whether everybody knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use group_redis::testing;
use tokio::time::sleep;

use crate::history::{Line, What, now};
use crate::stage::{Answer, PREFIX, Stage};
use crate::topology::Topology;

/// How long a group may take to come to rest. It is promised in less; the machine may be busy, and after a server has
/// been frozen a client may be in the middle of a long pause.
const REST: Duration = Duration::from_secs(8);

/// How long a quiet window lasts at the least: changes that are heard of late need time to be late.
const LEAST_QUIET: Duration = Duration::from_millis(2500);

/// How often everybody is asked once a window has come to rest.
const VIEWS: u32 = 10;

/// The members whose sessions live, with their incarnations.
const LIVE: &str = "local live = {}
    local found = redis.call('ZRANGE', KEYS[1] .. 'members', 0, -1, 'WITHSCORES')
    for i = 1, #found, 2 do
      local record = redis.call('GET', KEYS[1] .. 'members/' .. found[i])
      local session = record and string.match(record, '\"session\":\"([^\"]*)\"')
      local lease = session and redis.call('GET', KEYS[1] .. 'leases/' .. session)
      if lease and lease ~= 'closed' then
        live[#live + 1] = found[i]
        live[#live + 1] = string.format('%.0f', tonumber(found[i + 1]))
      end
    end
    return live";

/// Keys of sessions that are no more.
const ORPHANS: &str = "local orphans = {}
    local function lives(session)
      local lease = session and redis.call('GET', ARGV[1] .. 'leases/' .. session)
      return lease and lease ~= 'closed'
    end
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
      local path = string.sub(key, #ARGV[1] + 1)
      local kind, rest = string.match(path, '^(%l+)/(.*)$')
      local ok = true
      local is = redis.call('TYPE', key).ok
      if is == 'string' and (kind == 'members' or kind == 'locks' or kind == 'ephemerals') then
        ok = lives(string.match(redis.call('GET', key), '\"session\":\"([^\"]*)\"'))
      elseif kind == 'owned' then
        ok = lives(rest)
      elseif kind == 'queues' and is == 'zset' then
        for _, entry in ipairs(redis.call('ZRANGE', key, 0, -1)) do
          ok = ok and lives(string.match(entry, '^(%S+)'))
        end
      elseif kind == 'shared' and is == 'hash' then
        for _, field in ipairs(redis.call('HKEYS', key)) do
          ok = ok and lives(string.match(field, '^(%S+)'))
        end
      elseif path == 'members' or path == 'ephemerals' then
        for _, entry in ipairs(redis.call('ZRANGE', key, 0, -1)) do
          if redis.call('EXISTS', key .. '/' .. entry) == 0 then
            orphans[#orphans + 1] = path .. ' ' .. entry
          end
        end
      end
      if not ok then
        orphans[#orphans + 1] = path
      end
    end
    return orphans";

async fn live(stage: &Stage) -> Answer<BTreeMap<String, u64>> {
    let pairs: Vec<(String, u64)> = stage.ask(&["EVAL", LIVE, "1", PREFIX]).await?;
    Ok(pairs.into_iter().collect())
}

/// Waits until every worker knows what the server has, and notes how long that took, or that it did not come to be.
pub(crate) async fn compare(stage: &Stage) {
    let begun = Instant::now();
    let mut last = (BTreeMap::new(), BTreeMap::new());
    let mut good = 0;
    let since = now();
    while begun.elapsed() < REST + stalled(stage, since) {
        // Guests come and go all the time: what is the same before and after the views is the truth of that time.
        let (before, views, after) = (live(stage).await, stage.views().await, live(stage).await);
        if let (Ok(before), Ok(after)) = (before, after) {
            let steady = |all: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
                all.iter()
                    .filter(|(id, at)| !id.contains('.') && before.get(*id) == Some(at))
                    .map(|(id, at)| (id.clone(), *at))
                    .collect()
            };
            let truth = steady(&after);
            let all: BTreeMap<String, BTreeMap<String, u64>> = views
                .iter()
                .map(|(who, (members, _))| {
                    let own = members.iter().filter(|(id, _)| !id.contains('.'));
                    (who.clone(), own.map(|(id, at)| (id.clone(), *at)).collect())
                })
                .collect();
            let running = stage.workers.iter().filter(|worker| stage.is_running(worker)).count();
            let everybody = views.len() == running && truth.len() == running && before.len() >= truth.len();
            let connected = views.values().all(|(_, state)| state == "connected");
            if everybody && connected && all.values().all(|view| *view == truth) {
                good += 1;
                if good == 3 {
                    let after_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    stage.history.note(What::Converged { after_ms });
                    rest(stage).await;
                    return sleep(LEAST_QUIET.saturating_sub(begun.elapsed())).await;
                }
            } else {
                good = 0;
            }
            last = (truth, all);
        }
        sleep(Duration::from_millis(50)).await;
    }
    stage.history.note(What::NotConverged { truth: last.0, views: last.1 });
}

/// Asks for views a few times more, for what is judged by the least that is seen in a window, and counts connections.
async fn sample_views(stage: &Stage) {
    let mut least: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..VIEWS {
        stage.views().await;
        for worker in &stage.workers {
            let lines = [testing::Line::Commands, testing::Line::Events, testing::Line::Heartbeat];
            let open = |line: &testing::Line| worker.proxies.iter().map(|proxy| proxy.open(*line)).sum::<usize>();
            let most = lines.iter().map(open).max().unwrap_or_default();
            // One more stands while a heartbeat changes lines or a source is tried.
            let of = least.entry(&worker.name).or_insert(most);
            *of = most.min(*of);
        }
        sleep(Duration::from_millis(100)).await;
    }
    for (worker, open) in least {
        stage.history.note(What::Connections { open: open as u64, most: 1, of: format!("on one line of {worker}") });
    }
}

/// What must be so in a group that has come to rest.
async fn rest(stage: &Stage) {
    let (mut orphans, mut samples): (BTreeSet<String>, u32) = Default::default();
    for _ in 0..40 {
        let found = stage.ask::<Vec<String>>(&["EVAL", ORPHANS, "0", PREFIX]).await;
        if let Ok(found) = found {
            // What is being cleaned away may be seen once.
            let found: BTreeSet<String> = found.into_iter().collect();
            orphans = if samples == 0 { found } else { orphans.intersection(&found).cloned().collect() };
            samples += 1;
            if orphans.is_empty() {
                break;
            }
        } else if samples == 0 {
            orphans = BTreeSet::from([format!("(nobody could look: {found:?})")]);
        }
        sleep(Duration::from_millis(100)).await;
    }
    stage.history.note(What::Orphans { keys: orphans.into_iter().collect() });
    sample_views(stage).await;
    let list: String = stage.ask(&["CLIENT", "LIST"]).await.unwrap_or_default();
    let open = list.lines().filter(|line| !line.is_empty()).count() as u64;
    // Three a worker, one more while a heartbeat changes lines or a source is tried, and our own; of the other servers,
    // and of the sentinels, two each.
    let most = stage.workers.len() as u64 * 5 + 4 + if stage.topology == Topology::Standalone { 0 } else { 10 };
    stage.history.note(What::Connections { open, most, of: "at the server".into() });
    if stage.topology != Topology::Standalone {
        sample_others(stage).await;
    }
}

/// Nobody stays connected to a server that another has replaced.
async fn sample_others(stage: &Stage) {
    let mut least: BTreeMap<usize, (u64, String)> = BTreeMap::new();
    for _ in 0..VIEWS {
        for node in (0..stage.servers.nodes().len()).filter(|node| *node != stage.current()) {
            let list: String = stage.servers.ask(node, &["CLIENT", "LIST"]).await.unwrap_or_default();
            let open = list.lines().filter(|line| stage.servers.is_client(line)).count() as u64;
            let of = least.entry(node).or_insert((open, String::new()));
            if open <= of.0 {
                *of = (open, list);
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    for (node, (open, list)) in least {
        // Our own: one asks here, one watches.
        if open > 2 {
            eprintln!("at the server {node}, which is replaced:\n{list}");
        }
        stage.history.note(What::Connections { open, most: 2, of: format!("at the server {node}, which is replaced") });
    }
}

/// By how much the machine has kept the nemesis or any worker waiting since then.
fn stalled(stage: &Stage, since: u64) -> Duration {
    let stall = |line: Line| if let What::Stall { ms } = line.what { ms } else { 0 };
    Duration::from_millis(stage.history.since(since).into_iter().map(stall).max().unwrap_or_default())
}
