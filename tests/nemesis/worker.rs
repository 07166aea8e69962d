//! A worker: a process with one connector that is a member, watches, takes locks and keeps values, and says on its
//! standard output all that it does and is told.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use group_redis::{Event, EventSource, GroupConnector, LockGuard, Member, View};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::chance::Chance;
use crate::history::{Line, What, now};
use crate::stall;

pub(crate) const TTL: Duration = Duration::from_secs(2);
pub(crate) const BACKOFF_CAP: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(500);
/// Of the worker that has nothing else.
const QUICK_POLL: Duration = Duration::from_millis(100);
/// How often a guard that has said that it is lost is asked again.
const ASKED_AGAIN: u32 = 3;
pub(crate) const LOCKS: u64 = 3;
/// After how long without progress of the runtime heartbeats stop.
const STALL: Duration = Duration::from_millis(2000);
/// Few enough batches that who dozes falls behind.
const EVENT_BUFFER: usize = 16;

/// How many locks are held for long.
pub(crate) const LONG_LOCKS: u64 = 3;

/// Whether a watcher hears every event as it comes.
#[derive(Clone, Copy, PartialEq)]
enum Awake {
    Always,
    Dozing,
}

/// What the resource answers: whether the token was good, and the two registers.
type Verdict = (bool, u64, u64);

#[derive(Clone)]
struct Worker {
    name: Arc<str>,
    group: GroupConnector,
    requests: Arc<AtomicU64>,
    asked: Arc<Mutex<HashMap<u64, oneshot::Sender<Verdict>>>>,
}

/// What is to be said, for a thread that may wait until it is read: who says it must not.
static SAID: LazyLock<mpsc::Sender<Vec<u8>>> = LazyLock::new(|| {
    let (sender, said) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        for text in said {
            // Who reads it is gone: so should we be.
            if std::io::stdout().lock().write_all(&text).is_err() {
                std::process::exit(0);
            }
        }
    });
    sender
});

fn say(who: &str, what: What) {
    let line = Line { at: now(), who: who.to_owned(), what };
    let mut text = serde_json::to_vec(&line).expect("a line is JSON");
    text.push(b'\n');
    let _ = SAID.send(text);
}

fn members(view: &View) -> BTreeMap<String, u64> {
    view.iter().map(|member| (member.id().to_string(), member.incarnation().get())).collect()
}

fn source(name: &str) -> EventSource {
    match name {
        "tracking" => EventSource::Tracking,
        "poll" => EventSource::Poll,
        "keyevent" => EventSource::Keyevent,
        _ => EventSource::Keyspace,
    }
}

/// `worker URL GROUP NAME SOURCE`
pub(crate) fn run(args: &[String]) {
    let [url, group, name, events] = args else { panic!("worker URL GROUP NAME SOURCE") };
    // However the nemesis ends, no worker is left, also none that is stopped.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let who = name.clone();
    std::panic::set_hook(Box::new(move |panic| say(&who, What::Panicked { message: panic.to_string() })));
    let who = name.clone();
    stall::watch(move |ms| say(&who, What::Stall { ms }));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let poll = if events == "poll" { QUICK_POLL } else { POLL };
        let builder = GroupConnector::builder(url).group(group).ttl(TTL).poll(poll).backoff_cap(BACKOFF_CAP);
        let builder = builder.stall_tolerance(STALL).event_buffer(EVENT_BUFFER);
        let group = builder.event_source(source(events)).connect_lazy().expect("settings that are valid");
        let name: Arc<str> = name.as_str().into();
        let worker = Worker { name, group, requests: Arc::default(), asked: Arc::default() };
        tokio::spawn(worker.clone().watch(Awake::Always));
        tokio::spawn(worker.clone().watch(Awake::Dozing));
        tokio::spawn(worker.clone().follow());
        tokio::spawn(worker.clone().be_a_member());
        tokio::spawn(worker.clone().come_and_go("guest", 1500));
        tokio::spawn(worker.clone().come_and_go("lodger", 5000));
        tokio::spawn(worker.clone().keep_values());
        for hand in ["a", "b"] {
            tokio::spawn(worker.clone().take_locks(hand));
        }
        tokio::spawn(worker.clone().hold_on());
        let listening = tokio::task::spawn_blocking(move || worker.listen());
        listening.await.expect("it only reads");
    });
}

impl Worker {
    fn chance(&self, of: &str) -> Chance {
        Chance::of(&format!("{}{of}{}", self.name, std::process::id()))
    }

    fn say(&self, what: What) {
        say(&self.name, what);
    }

    /// Words of the nemesis, until it is gone.
    fn listen(&self) {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
            match words[0] {
                "verdict" => {
                    let waiting = self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&number(1));
                    if let Some(waiting) = waiting {
                        let _ = waiting.send((number(2) == 1, number(3), number(4)));
                    }
                }
                "view" => self.say(What::View {
                    request: number(1),
                    members: members(&self.group.members()),
                    state: self.group.state().get().to_string(),
                    memory_kb: status("VmRSS:"),
                    tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
                    fds: std::fs::read_dir("/proc/self/fd").map_or(0, |found| found.count() as u64),
                    threads: status("Threads:"),
                }),
                // As a program would that computes where it should not.
                "block" => {
                    let time = Duration::from_millis(number(1));
                    for _ in 0..4 {
                        tokio::runtime::Handle::current().spawn(async move { std::thread::sleep(time) });
                    }
                }
                _ => {}
            }
        }
    }

    async fn watch(self, awake: Awake) {
        let (mut events, mut chance) = (self.group.events(), self.chance("doze"));
        let who = match awake {
            Awake::Always => self.name.to_string(),
            Awake::Dozing => format!("{}.dozing", self.name),
        };
        say(&who, What::Started);
        let id = |member: &Arc<Member>| (member.id().to_string(), member.incarnation().get());
        while let Some(event) = events.next().await {
            if awake == Awake::Dozing && chance.from(0, 20) == 0 {
                sleep(Duration::from_millis(chance.from(0, 2500))).await;
            }
            let what = match event {
                Event::Snapshot(view) => What::Snapshot { members: members(&view) },
                Event::Joined(member) => {
                    let (id, incarnation) = id(&member);
                    What::Joined { id, incarnation }
                }
                Event::Updated { new, .. } => {
                    let (id, incarnation) = id(&new);
                    What::Updated { id, incarnation }
                }
                Event::Left { member, cause } => {
                    let (id, incarnation) = id(&member);
                    What::Left { id, incarnation, cause: cause.to_string() }
                }
                _ => continue,
            };
            say(&who, what);
        }
    }

    async fn follow(self) {
        let mut state = self.group.state();
        while let Some(state) = state.changed().await {
            self.say(What::State { state: state.to_string() });
        }
    }

    async fn be_a_member(self) {
        loop {
            if let Ok(me) = self.group.join(&*self.name).await {
                let mut chance = self.chance("me");
                loop {
                    sleep(Duration::from_millis(chance.from(200, 1500))).await;
                    // Another connector may have taken its name.
                    if let Ok(None) = tokio::time::timeout(QUICK_POLL, me.held()).await {
                        break;
                    }
                    let _ = me.update_text(chance.from(0, 1000).to_string()).await;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn come_and_go(self, who: &str, longest_ms: u64) {
        let mut chance = self.chance(who);
        loop {
            if let Ok(guest) = self.group.join(format!("{}.{who}", self.name)).await {
                sleep(Duration::from_millis(chance.from(50, longest_ms))).await;
                let _ = guest.leave().await;
            }
            sleep(Duration::from_millis(chance.from(50, longest_ms))).await;
        }
    }

    async fn keep_values(self) {
        let mut chance = self.chance("value");
        let (values, path) = (self.group.ephemeral(), format!("of/{}", self.name));
        loop {
            let _ = values.set(&path, &chance.from(0, 1000)).await;
            sleep(Duration::from_millis(chance.from(200, 900))).await;
            if chance.from(0, 4) == 0 {
                let _ = values.del(&path).await;
            }
        }
    }

    async fn take_locks(self, hand: &'static str) {
        let mut chance = self.chance(hand);
        for round in 0.. {
            let lock = format!("lock-{}", chance.from(0, LOCKS));
            let attempt = format!("{}.{}{hand}{round}", self.name, std::process::id());
            self.say(What::Asked { lock: lock.clone(), attempt: attempt.clone() });
            let wanted = self.group.lock(&lock).as_member(&attempt);
            let limit = if chance.from(0, 6) == 0 { chance.from(1, 100) } else { 30_000 };
            let Ok(Some(guard)) = wanted.acquire_timeout(Duration::from_millis(limit)).await else {
                self.say(What::GaveUp { lock, attempt });
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            self.say(What::Granted { lock: lock.clone(), attempt, token: guard.token().get() });
            self.work_under(&lock, &guard, &mut chance).await;
            let token = guard.token().get();
            guard.release().await;
            self.say(What::Released { lock, token });
            sleep(Duration::from_millis(chance.from(1, 60))).await;
        }
    }

    /// Holds a lock for seconds, and says all the time whether it does.
    async fn hold_on(self) {
        let mut chance = self.chance("c");
        for round in 0.. {
            let lock = format!("long-{}", chance.from(0, LONG_LOCKS));
            let attempt = format!("{}.{}c{round}", self.name, std::process::id());
            self.say(What::Asked { lock: lock.clone(), attempt: attempt.clone() });
            let wanted = self.group.lock(&lock).as_member(&attempt);
            if let Ok(Some(guard)) = wanted.acquire_timeout(Duration::from_secs(5)).await {
                let token = guard.token().get();
                self.say(What::Granted { lock: lock.clone(), attempt, token });
                let mut asked_again = 0;
                for _ in 0..chance.from(1, 400) {
                    asked_again += u32::from(self.says(&lock, &guard));
                    if asked_again > ASKED_AGAIN {
                        break;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
                guard.release().await;
                self.say(What::Released { lock, token });
            } else {
                self.say(What::GaveUp { lock, attempt });
            }
            sleep(Duration::from_millis(chance.from(1, 300))).await;
        }
    }

    /// Tells what the guard says; whether it is lost.
    fn says(&self, lock: &str, guard: &LockGuard) -> bool {
        // Whether it is lost is asked first: it cannot be held after that.
        let lost = guard.lost().now_or_never().is_some();
        let (before, token) = (now(), guard.token().get());
        let held = guard.is_held();
        self.say(What::Said { lock: lock.to_owned(), token, before, held, lost });
        lost
    }

    /// Reads two registers and, a little later, writes both: one that looks at the token and one that does not.
    async fn work_under(&self, lock: &str, guard: &LockGuard, chance: &mut Chance) {
        let token = guard.token().get();
        let ask = |what: Box<dyn FnOnce(u64) -> What>| {
            let request = self.requests.fetch_add(1, Ordering::Relaxed);
            let (sender, verdict) = oneshot::channel();
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(request, sender);
            self.say(what(request));
            verdict
        };
        let name = lock.to_owned();
        let loading = ask(Box::new(move |request| What::Load { request, lock: name, token }));
        let Ok((_, fenced, plain)) = loading.await else { return };
        for _ in 0..chance.from(1, 4) {
            self.says(lock, guard);
            sleep(Duration::from_millis(chance.from(1, 12))).await;
        }
        let name = lock.to_owned();
        let storing = ask(Box::new(move |request| What::Store { request, lock: name, token, fenced, plain }));
        let _ = storing.await;
    }
}

/// A number that the system knows of this process.
fn status(of: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix(of));
    found.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
