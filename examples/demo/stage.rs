//! The private server, the watcher, and what it is expected to see.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use group_redis::testing::TestRedis;
use group_redis::{Event, GroupConnector, LeaveCause, State, redis};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Outcome, PATIENCE, ms};

/// One event, and when the watcher had it.
#[derive(Clone)]
struct Told {
    at: Instant,
    wall: SystemTime,
    name: String,
    what: What,
    expected: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Joined(SystemTime),
    Left(LeaveCause),
}

/// When something was seen.
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// Since the server did it, by the server's clock, which is this machine's.
    pub(crate) since_server: Duration,
}

pub(crate) struct Stage {
    redis: TestRedis,
    watcher: GroupConnector,
    group: String,
    began: Instant,
    json: bool,
    told: Arc<Mutex<Vec<Told>>>,
    changed: watch::Receiver<usize>,
}

impl Stage {
    pub(crate) async fn set(json: bool, ttl: Duration) -> Outcome<Self> {
        let began = Instant::now();
        let redis = TestRedis::start().await?;
        let group = format!("demo-{}", std::process::id());
        let watcher = GroupConnector::builder(redis.url()).group(&group).ttl(ttl).connect().await?;
        let told = Arc::new(Mutex::new(Vec::new()));
        let (sender, changed) = watch::channel(0);
        let (mut events, writing) = (watcher.events(), told.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let (name, what) = match event {
                    Event::Joined(member) => (member.id().to_string(), What::Joined(member.joined_at())),
                    Event::Left { member, cause } => (member.id().to_string(), What::Left(cause)),
                    _ => continue,
                };
                let one = Told { at: Instant::now(), wall: SystemTime::now(), name, what, expected: false };
                writing.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                sender.send_modify(|count| *count += 1);
            }
        });
        let stage = Self { redis, watcher, group, began, json, told, changed };
        let server = json!({"act": "server", "redis": stage.version(), "backend": stage.backend()});
        stage.say(&format!("Redis {} ({}) on port {}", stage.version(), stage.backend(), stage.redis.port()), server);
        Ok(stage)
    }

    pub(crate) fn url(&self) -> &str {
        self.redis.url()
    }

    pub(crate) fn watcher(&self) -> &GroupConnector {
        &self.watcher
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn version(&self) -> &str {
        self.redis.version()
    }

    pub(crate) fn backend(&self) -> String {
        self.redis.backend().to_string()
    }

    fn find(&self, name: &str, wanted: impl Fn(What) -> bool) -> Option<Told> {
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = all.iter_mut().find(|told| !told.expected && told.name == name && wanted(told.what))?;
        told.expected = true;
        Some(told.clone())
    }

    /// Waits for one event, and marks it as one that had to come.
    async fn expect(&self, name: &str, wanted: impl Fn(What) -> bool) -> Outcome<Told> {
        let mut changed = self.changed.clone();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                if let Some(told) = self.find(name, &wanted) {
                    return Some(told);
                }
                changed.changed().await.ok()?;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.ok().flatten().ok_or_else(|| format!("what {name} did was not seen within {PATIENCE:?}").into())
    }

    pub(crate) async fn joined(&self, name: &str) -> Outcome<Seen> {
        let told = self.expect(name, |what| matches!(what, What::Joined(_))).await?;
        let What::Joined(joined) = told.what else { return Err("not a join".into()) };
        Ok(Seen { at: told.at, since_server: told.wall.duration_since(joined).unwrap_or_default() })
    }

    pub(crate) async fn left(&self, name: &str, cause: LeaveCause) -> Outcome<Seen> {
        let told = self.expect(name, |what| what == What::Left(cause)).await?;
        Ok(Seen { at: told.at, since_server: Duration::ZERO })
    }

    /// When the lease of a member runs out, as the server has it now, by our clock.
    pub(crate) async fn deadline_of(&self, name: &str) -> Outcome<Instant> {
        let mut connection = self.redis.connection().await?;
        let key = |path: &str| format!("{{{}}}/{path}", self.group);
        let record: String =
            redis::cmd("GET").arg(key(&format!("members/{name}"))).query_async(&mut connection).await?;
        let record: Value = serde_json::from_str(&record)?;
        self.deadline_of_session(record["session"].as_str().ok_or("a record without a session")?).await
    }

    pub(crate) async fn deadline_of_session(&self, session: &str) -> Outcome<Instant> {
        let mut connection = self.redis.connection().await?;
        let lease = format!("{{{}}}/leases/{session}", self.group);
        let left: u64 = redis::cmd("PTTL").arg(lease).query_async(&mut connection).await?;
        Ok(Instant::now() + Duration::from_millis(left))
    }

    /// The server loses its data; the members that live come back by themselves.
    pub(crate) async fn restart(&self, living: &[&str]) -> Outcome<Option<Duration>> {
        self.act("the server restarts empty", "every lease is gone, and every living member joins anew");
        if !self.redis.is_own() {
            self.say("not played: this server is not ours to restart", json!({"act": "restart", "skipped": true}));
            return Ok(None);
        }
        let before = self.watcher.members();
        let stopped = Instant::now();
        self.redis.restart_empty().await?;
        let up = Instant::now();
        let renewed = |name: &&str, view: &group_redis::View| {
            let old = before.get(name).map(|member| member.incarnation());
            view.get(name).is_some_and(|member| Some(member.incarnation()) > old)
        };
        let wanted = |view: &group_redis::View| {
            view.state() == State::Connected
                && view.len() == living.len()
                && living.iter().all(|name| renewed(name, view))
        };
        self.watcher.wait_for(PATIENCE, wanted).await?;
        let converged = up.elapsed();
        // The members that were lost with the data are as expected as those that came.
        for told in self.told.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            told.expected |= told.at >= up && living.contains(&told.name.as_str());
        }
        let down = ms(up - stopped);
        self.say("everybody is back", json!({"act": "restart", "down_ms": down, "converged_ms": ms(converged)}));
        Ok(Some(converged))
    }

    /// Events that nothing had caused.
    pub(crate) fn false_events(&self) -> usize {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|told| !told.expected).count()
    }

    pub(crate) fn act(&self, title: &str, what: &str) {
        if !self.json {
            println!("\n{title}: {what}");
        }
    }

    pub(crate) fn say(&self, line: &str, fields: Value) {
        let at = self.began.elapsed();
        if self.json {
            let mut fields = fields;
            fields["at_ms"] = ms(at);
            println!("{fields}");
            return;
        }
        let figure = ["ms", "handover_ms", "ms_after_kill", "ms_past_deadline", "ms_after_resume", "converged_ms"]
            .iter()
            .find_map(|name| fields.get(*name).map(|value| (name, value)))
            .map(|(name, value)| {
                format!("{value} {}", name.replace("converged_ms", "ms").replace("handover_ms", "ms").replace('_', " "))
            })
            .unwrap_or_default();
        println!("{:>8.3} s  {line:<28} {figure}", at.as_secs_f64());
    }

    pub(crate) fn end(&self, summary: &Value) {
        if self.json {
            println!("{summary}");
        } else {
            println!("\n{}", serde_json::to_string_pretty(summary).unwrap_or_default());
        }
    }
}
