//! The servers, the workers before them, each with proxies of its own, and the resource that they write to.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use group_redis::testing::{FaultProxy, TestRedis};
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::history::{History, Line, What};
use crate::plan;
use crate::servers::Servers;
use crate::topology::Topology;

pub(crate) const GROUP: &str = "nemesis";
pub(crate) const PREFIX: &str = "{nemesis}/";

pub(crate) type Answer<T> = Result<T, redis::RedisError>;

#[derive(Default)]
struct Register {
    highest: u64,
    fenced: u64,
    plain: u64,
}

pub(crate) struct Worker {
    pub(crate) name: String,
    /// Before the one server, or before each sentinel.
    pub(crate) proxies: Vec<FaultProxy>,
    url: String,
    source: &'static str,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    words: mpsc::UnboundedSender<String>,
}

impl Worker {
    /// The one before the one server.
    pub(crate) fn proxy(&self) -> &FaultProxy {
        &self.proxies[0]
    }
}

pub(crate) struct Stage {
    pub(crate) topology: Topology,
    pub(crate) servers: Servers,
    /// Which of them was elected last.
    current: AtomicUsize,
    pub(crate) history: History,
    pub(crate) workers: Vec<Worker>,
    registers: Arc<Mutex<HashMap<String, Register>>>,
    /// To which of the servers.
    admin: tokio::sync::Mutex<Option<(usize, MultiplexedConnection)>>,
    asked: AtomicU64,
    /// Who waits for the views of which request.
    views: Arc<Mutex<(u64, Option<mpsc::UnboundedSender<Line>>)>>,
}

impl Stage {
    pub(crate) async fn new(topology: Topology, count: usize, clocks: PathBuf) -> Self {
        let servers = Servers::start(topology, clocks).await;
        let mut workers = Vec::new();
        for index in 0..count {
            let (proxies, url) = servers.way_in().await;
            let name = format!("w{index}");
            workers.push(Worker { source: plan::source(&name), name, proxies, url, running: Mutex::new(None) });
        }
        let current = match topology {
            Topology::Standalone | Topology::Sentinel => 0,
            Topology::Cluster => servers.cluster().owner(PREFIX).await.expect("an owner of the slot"),
        };
        let stage = Self {
            topology,
            servers,
            current: current.into(),
            history: History::default(),
            workers,
            registers: Arc::default(),
            admin: tokio::sync::Mutex::new(None),
            asked: AtomicU64::new(1),
            views: Arc::default(),
        };
        stage.history.note(What::Topology { topology: topology.to_string() });
        for worker in &stage.workers {
            stage.start(worker);
        }
        stage
    }

    /// Starts a worker that is not running.
    pub(crate) fn start(&self, worker: &Worker) {
        let mut running = worker.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_mut() {
            let Ok(Some(status)) = running.child.try_wait() else { return };
            let what = What::Died { status: status.to_string() };
            self.history.add(Line { at: crate::history::now(), who: worker.name.clone(), what });
        }
        let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
            .args(["worker", &worker.url, GROUP, &worker.name, worker.source])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a worker");
        let (stdin, stdout) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        let (words, mut said) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            let mut stdin = stdin;
            while let Some(line) = said.recv().await {
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let (history, registers, answers) = (self.history.clone(), self.registers.clone(), words.clone());
        let views = self.views.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(text)) = lines.next_line().await {
                // The last line of one that is killed may be half a line.
                let Ok(line) = serde_json::from_str::<Line>(&text) else { continue };
                let verdict = judge(&registers, &history, &line.what);
                if let What::View { request, .. } = line.what {
                    let views = views.lock().unwrap_or_else(PoisonError::into_inner);
                    if let (true, Some(views)) = (views.0 == request, &views.1) {
                        let _ = views.send(line.clone());
                    }
                }
                history.add(line);
                if let Some(verdict) = verdict {
                    let _ = answers.send(verdict);
                }
            }
        });
        *running = Some(Running { child, words });
    }

    /// Ends a worker by SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(&self, worker: &Worker) {
        let running = worker.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut running) = running {
            let line = Line { at: crate::history::now(), who: worker.name.clone(), what: What::Killed };
            self.history.add(line);
            let _ = running.child.kill().await;
        }
    }

    pub(crate) fn signal(&self, worker: &Worker, signal: Signal) -> bool {
        let running = worker.running.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = running.as_ref().and_then(|running| running.child.id()).and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    pub(crate) fn pid(&self, worker: &Worker) -> Option<u32> {
        let running = worker.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().and_then(|running| running.child.id())
    }

    /// Whether its process stands still.
    pub(crate) fn is_stopped(&self, worker: &Worker) -> bool {
        let pid = self.pid(worker).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    }

    pub(crate) fn tell(&self, worker: &Worker, words: &str) {
        let running = worker.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_ref() {
            let _ = running.words.send(format!("{words}\n"));
        }
    }

    pub(crate) fn is_running(&self, worker: &Worker) -> bool {
        worker.running.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Which of the servers the group is at.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// It is at this one now.
    pub(crate) fn follow(&self, node: usize) {
        self.current.store(node, Ordering::Relaxed);
    }

    /// The server that the group is at.
    pub(crate) fn redis(&self) -> &TestRedis {
        &self.servers.nodes()[self.current()]
    }

    /// A connection to it of the nemesis's own, past all proxies.
    pub(crate) async fn connection(&self) -> Answer<MultiplexedConnection> {
        self.servers.connection(self.current()).await
    }

    /// A command of the nemesis's own.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Answer<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.query(&command).await
    }

    pub(crate) async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Answer<T> {
        let mut admin = self.admin.lock().await;
        let current = self.current();
        if let Some((_, connection)) = admin.as_mut().filter(|(node, _)| *node == current) {
            match timeout(Duration::from_secs(10), command.query_async(connection)).await {
                Ok(Err(error)) if error.is_connection_dropped() || error.is_io_error() => {}
                Ok(answer) => return answer,
                Err(_) => {}
            }
        }
        let mut connection = self.servers.connection(current).await?;
        let answer = command.query_async(&mut connection).await;
        *admin = Some((current, connection));
        answer
    }

    /// What each worker that runs knows now; who does not answer is missing.
    pub(crate) async fn views(&self) -> BTreeMap<String, (BTreeMap<String, u64>, String)> {
        let request = self.asked.fetch_add(1, Ordering::Relaxed);
        let (sender, mut answers) = mpsc::unbounded_channel();
        *self.views.lock().unwrap_or_else(PoisonError::into_inner) = (request, Some(sender));
        for worker in &self.workers {
            self.tell(worker, &format!("view {request}"));
        }
        let mut views = BTreeMap::new();
        let all = async {
            while views.len() < self.workers.iter().filter(|worker| self.is_running(worker)).count() {
                let Some(line) = answers.recv().await else { return };
                if let What::View { members, state, .. } = line.what {
                    views.insert(line.who, (members, state));
                }
            }
        };
        let _ = timeout(Duration::from_millis(500), all).await;
        views
    }

    /// How far the server's order of incarnations and tokens has come.
    pub(crate) async fn stamp(&self) -> Option<u64> {
        let script = "local t = redis.call('TIME')
            return {tostring(t[1]), tostring(t[2]), redis.call('GET', KEYS[1]) or '0'}";
        let words = ["EVAL", script, "1", "{nemesis}/revision"];
        for _ in 0..10 {
            let asked = self.ask::<(u64, u64, String)>(&words);
            if let Ok(Ok((seconds, us, revision))) = timeout(Duration::from_millis(500), asked).await {
                let revision = revision.split('/').next().and_then(|revision| revision.parse::<u64>().ok());
                let revision = revision.unwrap_or_default();
                return Some(revision.max(seconds * 1_000_000 + us));
            }
            sleep(Duration::from_millis(50)).await;
        }
        None
    }

    /// Does what a fault needs to be over, until it is done.
    pub(crate) async fn heal(&self, words: &[&str]) -> bool {
        for _ in 0..50 {
            if self.ask::<redis::Value>(words).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(200)).await;
        }
        false
    }
}

/// What the resource says to a request: two registers a lock, one of which looks at the token.
fn judge(registers: &Mutex<HashMap<String, Register>>, history: &History, what: &What) -> Option<String> {
    let mut registers = registers.lock().unwrap_or_else(PoisonError::into_inner);
    let (request, lock, token) = match what {
        What::Load { request, lock, token } | What::Store { request, lock, token, .. } => (request, lock, *token),
        _ => return None,
    };
    let register = registers.entry(lock.clone()).or_default();
    let accepted = token >= register.highest;
    register.highest = register.highest.max(token);
    let mut stored = false;
    if let What::Store { fenced, plain, .. } = what {
        stored = true;
        register.plain = plain + 1;
        if accepted {
            register.fenced = fenced + 1;
        }
    }
    history.note(What::Judged { lock: lock.clone(), token, stored, accepted });
    Some(format!("verdict {request} {} {} {}\n", u8::from(accepted), register.fenced, register.plain))
}
