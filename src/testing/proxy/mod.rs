//! A proxy between a client and its server that breaks what passes through it.

mod flow;
mod pump;

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use flow::{Flow, Line, Way};

use super::TestRedisError;

/// How long to wait before a port is tried again that another program holds.
const BIND_AGAIN: Duration = Duration::from_millis(5);

/// A TCP proxy before a Redis server, for tests of what a bad network does to you.
///
/// Point a client at [`url`](Self::url), then break the way: each [`Way`] and each [`Line`] of a connector on its own.
/// For one client among several, give it a proxy of its own; a proxy is a port and a task. Dropped, it closes its
/// connections. What is set holds at once, also for bytes that are on their way.
///
/// It needs a tokio runtime to run in. It reads what a connection is from its first bytes, so with `rediss://` every
/// connection is [`Line::Other`], and the server's certificate must be good for 127.0.0.1. A Unix socket
/// (`redis+unix://`) is refused.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use group_redis::GroupConnector;
/// use group_redis::testing::{FaultProxy, Flow, Line, TestRedis, Way};
///
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// let redis = TestRedis::start().await?;
/// let proxy = FaultProxy::start(redis.url()).await?;
/// let group = GroupConnector::builder(proxy.url()).connect().await?;
///
/// proxy.set(Line::Any, Way::ToClient, Flow::new().delay(Duration::from_millis(40)).jitter(Duration::from_millis(20)));
/// proxy.set(Line::Events, Way::ToClient, Flow::new().blackhole());
/// proxy.reset(Line::Heartbeat);
/// proxy.heal();
/// # Ok(())
/// # }
/// ```
pub struct FaultProxy {
    url: String,
    port: u16,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What the tasks of a proxy have in common.
struct Shared {
    upstream: String,
    rules: watch::Sender<Rules>,
    counts: Counts,
    tracker: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: Mutex<HashMap<Line, usize>>,
    carried: [AtomicU64; 2],
}

/// What is to be done to the connections.
#[derive(Clone, Debug, Default)]
struct Rules {
    refuses: bool,
    flows: HashMap<(Line, Way), Flow>,
    /// How many resets of each line there have been.
    resets: HashMap<(Line, Ends), u64>,
}

/// Which ends of a connection are told that it is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ends {
    Both,
    Only(Way),
}

impl Ends {
    const ALL: [Self; 3] = [Self::Both, Self::Only(Way::ToServer), Self::Only(Way::ToClient)];
}

impl Rules {
    /// What is said of this line goes before what is said of any.
    fn flow(&self, line: Line, way: Way) -> Flow {
        self.flows.get(&(line, way)).or_else(|| self.flows.get(&(Line::Any, way))).copied().unwrap_or_default()
    }

    fn resets(&self, line: Line, ends: Ends) -> u64 {
        self.resets.get(&(line, ends)).copied().unwrap_or_default()
    }
}

impl FaultProxy {
    /// A proxy on a free port of 127.0.0.1 before the server of this URL, with nothing broken yet.
    ///
    /// # Errors
    /// [`TestRedisError`] if the URL names no host (as that of a Unix socket), or no port is free.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start(url: &str) -> Result<Self, TestRedisError> {
        let no_address = || TestRedisError::refused("reading the server's URL", "it names no host".to_owned());
        let mut own = redis::parse_redis_url(url).ok_or_else(no_address)?;
        let host = own.host_str().filter(|host| !host.is_empty()).ok_or_else(no_address)?.to_owned();
        let upstream = format!("{host}:{}", own.port().unwrap_or(6379));
        let refused = |error| TestRedisError::refused("opening the proxy's port", error);
        let listener = listen(0).map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        own.set_host(Some("127.0.0.1")).map_err(|_| no_address())?;
        own.set_port(Some(port)).map_err(|()| no_address())?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstream,
            rules: watch::Sender::default(),
            counts: Counts::default(),
            tracker: TaskTracker::new(),
            stop: stop.clone(),
        });
        let accepting = accept(shared.clone(), listener, port);
        shared.tracker.spawn(stop.clone().run_until_cancelled_owned(accepting));
        Ok(Self { url: own.to_string(), port, shared, _stop: stop.drop_guard() })
    }

    /// The URL to give to a client: that of the server, by way of the proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The proxy's port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on what goes this way on this line flows so, also on connections that stand.
    ///
    /// What is set for a line goes before what is set for [`Line::Any`].
    pub fn set(&self, line: Line, way: Way, flow: Flow) {
        self.shared.rules.send_modify(|rules| {
            rules.flows.insert((line, way), flow);
        });
    }

    /// As [`set`](Self::set), for both ways.
    pub fn set_both(&self, line: Line, flow: Flow) {
        self.set(line, Way::ToServer, flow);
        self.set(line, Way::ToClient, flow);
    }

    /// Resets the connections of this line: both ends get a TCP `RST`. New ones are let through.
    pub fn reset(&self, line: Line) {
        self.resets(line, Ends::Both);
    }

    /// Resets the connections of this line for the end that lies this way only: it gets a TCP `RST`, and the other end
    /// is told nothing, so its connection is half open. Only when that end sends something is it reset, too, as by the
    /// host that knows of no such connection; a [`blackhole`](Flow::blackhole) the same way keeps even that from it.
    ///
    /// # Examples
    /// ```no_run
    /// # use group_redis::testing::{FaultProxy, Line, Way};
    /// # fn example(proxy: &FaultProxy) {
    /// // The server sees the session's connection closed; the connector learns of it by its next heartbeat.
    /// proxy.reset_way(Line::Heartbeat, Way::ToServer);
    /// # }
    /// ```
    pub fn reset_way(&self, line: Line, way: Way) {
        self.resets(line, Ends::Only(way));
    }

    fn resets(&self, line: Line, ends: Ends) {
        self.shared.rules.send_modify(|rules| *rules.resets.entry((line, ends)).or_default() += 1);
    }

    /// New connections are refused from now on, as if nothing listened; those that stand, stand.
    pub fn refuse(&self) {
        self.shared.rules.send_modify(|rules| rules.refuses = true);
    }

    /// Everything flows again and connections are let in. What a blackhole kept back arrives now, late.
    pub fn heal(&self) {
        self.shared.rules.send_modify(|rules| {
            rules.refuses = false;
            rules.flows.clear();
        });
    }

    /// How many connections have been let in so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many connections of this line stand now.
    #[must_use]
    pub fn open(&self, line: Line) -> usize {
        let open = self.shared.counts.open();
        if line == Line::Any { open.values().sum() } else { open.get(&line).copied().unwrap_or_default() }
    }

    /// How many bytes have been delivered this way so far.
    #[must_use]
    pub fn carried(&self, way: Way) -> u64 {
        self.shared.counts.carried[way as usize].load(Ordering::Relaxed)
    }
}

impl Counts {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<Line, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy")
            .field("port", &self.port)
            .field("upstream", &self.shared.upstream)
            .field("rules", &*self.shared.rules.borrow())
            .finish_non_exhaustive()
    }
}

/// Without a free backlog a connection would be refused for another reason than wanted.
const BACKLOG: u32 = 1024;

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

async fn accept(shared: Arc<Shared>, first: TcpListener, port: u16) {
    let mut listener = Some(first);
    let mut rules = shared.rules.subscribe();
    loop {
        let refuses = rules.borrow_and_update().refuses;
        match (&listener, refuses) {
            (Some(_), true) => listener = None,
            (None, false) => match listen(port) {
                Ok(again) => listener = Some(again),
                Err(_) => sleep(BIND_AGAIN).await,
            },
            (None, true) => {
                if rules.changed().await.is_err() {
                    return;
                }
            }
            (Some(listener), false) => tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((client, _)) = accepted {
                        shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
                        let carrying = carry(shared.clone(), client);
                        shared.tracker.spawn(shared.stop.clone().run_until_cancelled_owned(carrying));
                    }
                }
                changed = rules.changed() => if changed.is_err() { return },
            },
        }
    }
}

/// Carries one connection until it ends.
async fn carry(shared: Arc<Shared>, client: TcpStream) {
    match TcpStream::connect(&shared.upstream).await {
        Ok(server) => pump::connection(&shared, client, server).await,
        // A server that is not there refuses the client too.
        Err(_) => drop(client.set_zero_linger()),
    }
}
