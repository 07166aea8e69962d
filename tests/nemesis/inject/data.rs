//! What happens to what stands in the server.

use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use super::probe::info;
use crate::chance::Chance;
use crate::history::What;
use crate::stage::{PREFIX, Stage};

/// A key of nobody's that shows what has become of a database.
const MARK: &str = "{nemesis}:mark";
/// The group's keys that are one session's. The shared indexes are everybody's: what happens to them is another matter.
const OWN: [&str; 6] = ["members/", "leases/", "locks/", "ephemerals/", "owned/", "queues/"];

/// Whose session a key is of: the worker that is a member by it.
const OWNER: &str = "local path = ARGV[1]
    local session = string.match(path, '^leases/(.*)$') or string.match(path, '^owned/(.*)$')
    if not session then
      local value = redis.pcall('GET', KEYS[1] .. path)
      session = type(value) == 'string' and string.match(value, '\"session\":\"([^\"]*)\"')
    end
    for _, id in ipairs(redis.call('ZRANGE', KEYS[1] .. 'members', 0, -1)) do
      local value = redis.pcall('GET', KEYS[1] .. 'members/' .. id)
      if session and type(value) == 'string' and string.match(value, '\"session\":\"([^\"]*)\"') == session then
        return id
      end
    end
    return false";

async fn mark(stage: &Stage) -> bool {
    stage.ask::<Value>(&["SET", MARK, "here"]).await.is_ok()
}

async fn is_marked(stage: &Stage) -> bool {
    stage.ask::<u64>(&["EXISTS", MARK]).await.is_ok_and(|found| found == 1)
}

pub(super) async fn flush(stage: &Stage, command: &str) -> bool {
    let marked = mark(stage).await;
    let done = stage.ask::<Value>(&[command]).await.is_ok();
    marked && done && !is_marked(stage).await
}

/// Another database in the place of ours for a while. It ends where ours is again.
pub(super) async fn swap(stage: &Stage, chance: &mut Chance) -> bool {
    let marked = mark(stage).await;
    let swapped = stage.ask::<Value>(&["SWAPDB", "0", "1"]).await.is_ok();
    let is_away = !is_marked(stage).await;
    sleep(Duration::from_millis(chance.from(100, 3000))).await;
    for _ in 0..5 {
        if is_marked(stage).await {
            break;
        }
        let _ = stage.ask::<Value>(&["SWAPDB", "0", "1"]).await;
    }
    let _ = stage.ask::<Value>(&["DEL", MARK]).await;
    marked && swapped && is_away
}

pub(super) async fn script_flush(stage: &Stage) -> bool {
    let before = info(stage, "memory", "number_of_cached_scripts").await.unwrap_or_default();
    let done = stage.ask::<Value>(&["SCRIPT", "FLUSH", "SYNC"]).await.is_ok();
    before > 0 && done
}

/// Something happens to one of the group's own keys.
pub(super) async fn a_key(stage: &Stage, fault: &str, chance: &mut Chance) -> bool {
    // What is short-lived may have gone in the meantime: then another.
    for _ in 0..10 {
        let keys: Vec<String> = stage.ask(&["KEYS", &format!("{PREFIX}*")]).await.unwrap_or_default();
        let paths = keys.iter().filter_map(|key| key.strip_prefix(PREFIX));
        let own: Vec<_> = paths.filter(|path| OWN.iter().any(|kind| path.starts_with(kind))).collect();
        if own.is_empty() {
            return false;
        }
        let path = own[usize::try_from(chance.from(0, own.len() as u64)).unwrap_or_default()];
        let owner: Option<String> = stage.ask(&["EVAL", OWNER, "1", PREFIX, path]).await.unwrap_or_default();
        let owner = owner.map(|id| id.split('.').next().unwrap_or_default().to_owned());
        stage.history.note(What::Hit { fault: fault.into(), key: path.into(), owner });
        if hit(stage, fault, &format!("{PREFIX}{path}")).await {
            sleep(Duration::from_millis(1600)).await;
            let _ = stage.ask::<Value>(&["DEL", "{nemesis}:renamed"]).await;
            return true;
        }
    }
    false
}

async fn hit(stage: &Stage, fault: &str, key: &str) -> bool {
    let other = "local there = redis.call('DEL', KEYS[1])
        if there == 1 then redis.call('RPUSH', KEYS[1], 'x') redis.call('PEXPIRE', KEYS[1], 1500) end return there";
    match fault {
        "key_deleted" => stage.ask::<u64>(&["DEL", key]).await.is_ok_and(|deleted| deleted == 1),
        "key_renamed" => stage.ask::<Value>(&["RENAME", key, "{nemesis}:renamed"]).await.is_ok(),
        "key_overwritten" => {
            let set: Option<String> =
                stage.ask(&["SET", key, "something else", "PX", "1500", "XX"]).await.unwrap_or_default();
            set.is_some()
        }
        _ => stage.ask::<u64>(&["EVAL", other, "1", key]).await.is_ok_and(|there| there == 1),
    }
}
