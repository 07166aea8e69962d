//! Who holds which lock and who waits for it, at one instant of the server, again and again.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::history::{Place, Standing, What};
use crate::stage::{PREFIX, Stage};
use crate::worker::{LOCKS, LONG_LOCKS};

const PAUSE: Duration = Duration::from_millis(25);

/// A record that cannot be read is somebody's all the same.
const SAMPLE: &str = "local function lives(session)
      local lease = redis.pcall('GET', KEYS[1] .. 'leases/' .. session)
      return type(lease) == 'table' or lease and lease ~= 'closed' or false
    end
    local locks = {}
    for at, name in ipairs(ARGV) do
      local lock = {lock = name}
      if redis.call('EXISTS', KEYS[1] .. 'locks/' .. name) == 1 then
        local record = redis.pcall('GET', KEYS[1] .. 'locks/' .. name)
        local token, session, member
        if type(record) == 'string' then
          token, session = string.match(record, '^{\"v\":1,\"token\":(%d+),\"session\":\"([^\"]*)\"')
          member = string.match(record, '\"member\":\"([^\"]*)\"')
        end
        lock.token = token or '0'
        lock.holder = {session = session or '', attempt = member or '', alive = session and lives(session) or false}
      end
      local entries = redis.pcall('ZRANGE', KEYS[1] .. 'queues/' .. name, 0, -1)
      for place, entry in ipairs(entries.err and {} or entries) do
        local session, member = string.match(entry, '^(%S+) .- (%S+)$')
        lock.waiters = lock.waiters or {}
        lock.waiters[place] = {session = session, attempt = member, alive = lives(session)}
      end
      locks[at] = lock
    end
    local revision = redis.pcall('GET', KEYS[1] .. 'revision')
    return cjson.encode({revision = type(revision) == 'string' and string.match(revision, '^%d+') or '0', locks = locks})";

/// As the server says it.
#[derive(Deserialize)]
struct Seen {
    revision: String,
    locks: Vec<SeenLock>,
}

#[derive(Deserialize)]
struct SeenLock {
    lock: String,
    #[serde(default)]
    token: String,
    holder: Option<Place>,
    #[serde(default)]
    waiters: Vec<Place>,
}

pub(crate) async fn sample(stage: &Stage) -> Option<(u64, Vec<Standing>)> {
    let names = (0..LOCKS).map(|at| format!("lock-{at}")).chain((0..LONG_LOCKS).map(|at| format!("long-{at}")));
    let names: Vec<String> = names.collect();
    let words = ["EVAL", SAMPLE, "1", PREFIX].into_iter().chain(names.iter().map(String::as_str)).collect::<Vec<_>>();
    let answer = timeout(Duration::from_millis(500), stage.ask::<String>(&words)).await.ok()?.ok()?;
    let seen: Seen = serde_json::from_str(&answer).ok()?;
    let standing = |SeenLock { lock, token, holder, waiters }| {
        let token = token.parse().unwrap_or_default();
        Standing { lock, token, holder, waiters }
    };
    Some((seen.revision.parse().ok()?, seen.locks.into_iter().map(standing).collect()))
}

/// Notes it all the time.
pub(crate) async fn watch(stage: &Stage) {
    loop {
        sleep(PAUSE).await;
        let current = stage.current();
        if let Some((revision, locks)) = sample(stage).await.filter(|_| stage.current() == current) {
            stage.history.note(What::Order { server: stage.redis().port(), revision, locks });
        }
    }
}
