//! A server that is frozen, and connections on which nothing arrives: noticed soon, over soon, and nothing hangs.

use std::fmt;
use std::time::{Duration, Instant};

use group_redis::testing::{FaultProxy, Flow, Line, Way};
use group_redis::{Error, ErrorKind, GroupConnector, GroupConnectorBuilder, LockGuard, Membership, State};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Fixture, PATIENCE, eventually};

const HEARTBEAT: Duration = Duration::from_millis(800);
/// So long that nothing here ends because of it.
const LEASE: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
const COMMAND_TIMEOUT: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_millis(400);
/// What a machine that is busy with others may add. Less than would let a fault pass that is noticed by accident.
const SLACK: Duration = Duration::from_secs(1);

fn settings(builder: GroupConnectorBuilder) -> GroupConnectorBuilder {
    let builder = builder.ttl(LEASE).heartbeat(HEARTBEAT).backoff_cap(BACKOFF_CAP);
    builder.connect_timeout(CONNECT_TIMEOUT).command_timeout(COMMAND_TIMEOUT)
}

/// A connector behind a proxy, which has a member, so that all of its connections stand.
async fn behind_a_proxy(fixture: &Fixture, part: &str) -> (FaultProxy, GroupConnector, Membership) {
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let builder = GroupConnector::builder(proxy.url()).group(format!("{}-{part}", fixture.group));
    let group = settings(builder).connect().await.unwrap();
    let me = group.join("me").await.unwrap();
    let lines = [Line::Commands, Line::Events, Line::Heartbeat];
    eventually("every line stands", async || lines.iter().all(|line| proxy.open(*line) == 1)).await;
    (proxy, group, me)
}

/// All that the connector said of its state, with the time.
struct Course {
    told: Vec<(Duration, State)>,
    begun: Instant,
}

impl Course {
    fn new(group: &GroupConnector) -> Self {
        Self { told: vec![(Duration::ZERO, group.state().get())], begun: Instant::now() }
    }

    /// Waits until the state is as wanted; answers after how long.
    async fn reaches(&mut self, group: &GroupConnector, what: &str, limit: Duration, wanted: fn(State) -> bool) {
        let (begun, mut state) = (Instant::now(), group.state());
        let waiting = async {
            while !wanted(state.get()) {
                let new = state.changed().await.expect("it is not closed");
                self.told.push((self.begun.elapsed(), new));
            }
        };
        let is_there = timeout(PATIENCE, waiting).await.is_ok();
        let took = begun.elapsed();
        assert!(is_there && took <= limit, "{what}: it took {took:?} of {limit:?}. {self}, {:?}", group.status());
    }

    async fn leaves_connected(&mut self, group: &GroupConnector, what: &str) {
        let what = format!("{what} is noticed");
        self.reaches(group, &what, 2 * HEARTBEAT + SLACK, |state| state != State::Connected).await;
    }

    async fn is_connected(&mut self, group: &GroupConnector, what: &str) {
        let what = format!("{what} is over");
        self.reaches(group, &what, BACKOFF_CAP + SLACK, |state| state == State::Connected).await;
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "History: {:?}", self.told)
    }
}

/// A frozen server is noticed within two heartbeats and is back within one backoff.
#[tokio::test]
async fn frozen_server_is_noticed_within_two_heartbeats() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let group = settings(fixture.builder()).connect().await.unwrap();
    let me = group.join("me").await.unwrap();
    let before = me.incarnation();
    // Who has no lease has only the two connections that are pinged.
    let watcher = settings(fixture.builder()).connect().await.unwrap();
    let (mut course, mut watched) = (Course::new(&group), Course::new(&watcher));
    fixture.redis.freeze().await.unwrap();
    tokio::join!(
        course.leaves_connected(&group, "the frozen server"),
        watched.leaves_connected(&watcher, "the frozen server, by a watcher,"),
    );
    fixture.redis.thaw().await.unwrap();
    tokio::join!(
        course.is_connected(&group, "the frozen server"),
        watched.is_connected(&watcher, "the frozen server, for a watcher,"),
    );
    assert!(watcher.sync().await.unwrap().contains("me"));
    assert_eq!(me.incarnation(), before, "{course}");
    group.close().await.unwrap();
    watcher.close().await.unwrap();
}

/// A blackhole on any line either way is noticed and is over as soon.
#[tokio::test]
async fn blackhole_on_any_line_is_noticed() {
    let fixture = Fixture::new().await;
    let mut cases = JoinSet::new();
    for line in [Line::Commands, Line::Events, Line::Heartbeat, Line::Any] {
        for way in [Way::ToServer, Way::ToClient] {
            let (proxy, group, me) = behind_a_proxy(&fixture, &format!("{line:?}-{way:?}")).await;
            cases.spawn(async move {
                let what = format!("a blackhole on {line:?} {way:?}");
                let before = me.incarnation();
                let mut course = Course::new(&group);
                proxy.set(line, way, Flow::new().blackhole());
                course.leaves_connected(&group, &what).await;
                proxy.heal();
                course.is_connected(&group, &what).await;
                group.sync().await.unwrap();
                assert_eq!(me.incarnation(), before, "{what}: it has kept its lease. {course}");
                timeout(PATIENCE, group.close()).await.expect("every task has ended").unwrap();
            });
        }
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

/// A leave that could not be said in time is said when it can be.
#[tokio::test]
async fn late_leave_is_sent_when_possible() {
    let fixture = Fixture::new().await;
    let (proxy, group, me) = behind_a_proxy(&fixture, "late").await;
    let builder = GroupConnector::builder(fixture.redis.url()).group(format!("{}-late", fixture.group));
    let watcher = settings(builder).connect().await.unwrap();
    assert!(watcher.members().contains("me"));
    // Its session lives on: heartbeats come through.
    proxy.set(Line::Commands, Way::ToServer, Flow::new().blackhole());
    proxy.set(Line::Events, Way::ToServer, Flow::new().blackhole());
    let late = me.leave().await.unwrap_err();
    assert!(late.kind() == ErrorKind::Timeout && !late.is_unapplied(), "{late:?}");
    assert!(watcher.sync().await.unwrap().contains("me"), "nobody has heard of it");
    proxy.heal();
    let gone = watcher.wait_for(LEASE / 2, |view| !view.contains("me")).await;
    assert!(gone.is_ok(), "{gone:?}, {:?}", group.status());
}

/// Begins everything that can be asked of a connector, all at once; answers what did not end in time.
async fn everything(group: &GroupConnector, members: [Membership; 2]) -> Vec<String> {
    const WAIT: Duration = Duration::from_millis(300);
    let mut asked = JoinSet::new();
    let mut ask = async |what: &'static str, asking: JoinFuture| {
        asked.spawn(async move {
            let begun = Instant::now();
            let result = timeout(PATIENCE, asking).await;
            (what, begun.elapsed(), result)
        });
    };
    macro_rules! ask {
        ($what:literal, |$group:ident| $call:expr) => {{
            let $group = group.clone();
            ask($what, Box::pin(async move { $call.map(drop) })).await;
        }};
    }
    let [stays, goes] = members;
    ask!("join", |g| g.join("another").await);
    ask!("update", |_g| stays.update_text("new").await);
    ask!("leave", |_g| goes.leave().await);
    ask!("leave by name", |g| g.leave("nobody").await);
    ask!("sync", |g| g.sync().await);
    ask!("wait_for", |g| g.wait_for(WAIT, |view| view.contains("nobody")).await);
    ask!("try_acquire", |g| g.lock("a").try_acquire().await);
    ask!("acquire_timeout", |g| g.lock("b").acquire_timeout(WAIT).await);
    ask!("acquire_timeout of a taken lock", |g| g.lock("taken").acquire_timeout(WAIT).await);
    ask!("release", |g| g.locks().release("taken").await);
    ask!("holders", |g| g.lock("a").holders().await);
    ask!("ephemeral set", |g| g.ephemeral().set("path", &1).await);
    ask!("ephemeral get", |g| g.ephemeral().get::<u8>("path").await);
    ask!("ephemeral list", |g| g.ephemeral().list("").await);
    ask!("persistent set", |g| g.persistent().set("path", &1).await);
    ask!("persistent get", |g| g.persistent().get::<u8>("path").await);
    ask!("persistent del", |g| g.persistent().del("other").await);
    ask!("leader", |g| g.elect("role").leader().await);
    // It waits as long as it takes, so it is given up.
    ask!("a campaign that is given up", |g| { Ok::<_, Error>(timeout(WAIT, g.elect("role").campaign()).await) });
    let limit = CONNECT_TIMEOUT + COMMAND_TIMEOUT + SLACK;
    let mut late = Vec::new();
    while let Some(ended) = asked.join_next().await {
        let (what, took, result) = ended.unwrap();
        let kinds = [ErrorKind::Timeout, ErrorKind::Connection];
        let as_it_should = match &result {
            Ok(Ok(())) => true,
            Ok(Err(error)) => kinds.contains(&error.kind()),
            Err(_) => false,
        };
        if took > limit || !as_it_should {
            late.push(format!("{what} took {took:?} of {limit:?}: {result:?}"));
        }
    }
    late
}

type JoinFuture = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

async fn close_ends(group: &GroupConnector, what: &str) {
    let (begun, limit) = (Instant::now(), CONNECT_TIMEOUT + COMMAND_TIMEOUT + SLACK);
    let closed = timeout(PATIENCE, group.close()).await;
    let took = begun.elapsed();
    assert!(closed.is_ok() && took <= limit, "{what}: close took {took:?} of {limit:?}: {closed:?}");
    assert_eq!(group.sync().await.unwrap_err().kind(), ErrorKind::Closed);
}

/// Everything is begun at the moment when nothing arrives any more, and again when that is known.
async fn nothing_hangs(group: &GroupConnector, what: &str, begins: impl AsyncFnOnce()) {
    let mut waves = Vec::new();
    for wave in 0..2 {
        let join = async |name: &str| group.join(format!("{name}-{wave}")).await.unwrap();
        waves.push([join("stays").await, join("goes").await]);
    }
    assert!(group.locks().lock("taken").await.unwrap());
    begins().await;
    for (members, moment) in waves.into_iter().zip(["at once", "once it is known"]) {
        let late = everything(group, members).await;
        assert!(late.is_empty(), "{what}, {moment}, {:?}:\n{}", group.state().get(), late.join("\n"));
        let mut state = group.state();
        let known = state.wait_for(|state| state != State::Connected);
        timeout(PATIENCE, known).await.unwrap_or_else(|_| panic!("{what} was never noticed"));
    }
    close_ends(group, what).await;
}

#[tokio::test]
async fn nothing_hangs_on_a_frozen_server() {
    let fixture = Fixture::new().await;
    if !fixture.redis.is_own() {
        return;
    }
    let group = settings(fixture.builder()).connect().await.unwrap();
    // One more is closed at the very moment when it freezes.
    let other = settings(fixture.builder()).connect().await.unwrap();
    other.join("other").await.unwrap();
    nothing_hangs(&group, "a frozen server", async || {
        fixture.redis.freeze().await.unwrap();
        close_ends(&other, "a server that has just frozen").await;
    })
    .await;
    fixture.redis.thaw().await.unwrap();
    fixture.connect().await.join("after").await.unwrap();
}

#[tokio::test]
async fn nothing_hangs_where_nothing_arrives() {
    let fixture = Fixture::new().await;
    let fixture = &fixture;
    let cases = [&[Way::ToServer][..], &[Way::ToClient], &[Way::ToServer, Way::ToClient]].map(|ways| async move {
        let what = format!("a blackhole {ways:?}");
        let (proxy, group, _me) = behind_a_proxy(fixture, &format!("{ways:?}")).await;
        let begins = async || ways.iter().for_each(|way| proxy.set(Line::Any, *way, Flow::new().blackhole()));
        nothing_hangs(&group, &what, begins).await;
    });
    futures_util::future::join_all(cases).await;
}

/// A holder whose heartbeats' connection only the server sees closed, and a watcher that looks whether it is present.
async fn half_open(fixture: &Fixture, grace: Duration) -> (FaultProxy, GroupConnector, GroupConnector, LockGuard) {
    let proxy = FaultProxy::start(fixture.redis.url()).await.unwrap();
    let watcher = settings(fixture.builder()).connect().await.unwrap();
    let builder = GroupConnector::builder(proxy.url()).group(&fixture.group);
    let group = settings(builder).grace(grace).connect().await.unwrap();
    let guard = group.lock("l").acquire().await.unwrap();
    eventually("it is seen", async || watcher.status().sessions_seen == 1).await;
    proxy.reset_way(Line::Heartbeat, Way::ToServer);
    (proxy, watcher, group, guard)
}

/// A grace longer than a heartbeat forgives a connection that only the server sees closed.
#[tokio::test]
async fn long_grace_forgives_half_closed_connection() {
    let fixture = Fixture::new().await;
    let grace = 3 * HEARTBEAT;
    let (proxy, watcher, group, guard) = half_open(&fixture, grace).await;
    // The next heartbeat is answered with a reset, and comes over a new connection.
    eventually("a new connection", async || proxy.accepted() == 4 && proxy.open(Line::Heartbeat) == 1).await;
    let taken = watcher.lock("l").acquire_timeout(2 * grace).await.unwrap();
    assert!(taken.is_none() && guard.is_held(), "{taken:?}, {:?}", group.status());
    guard.release().await;
}

/// With a grace shorter than a heartbeat, a lock whose connection only the server sees closed is handed on, under a
/// higher token.
#[tokio::test]
async fn short_grace_hands_on_after_half_close() {
    let fixture = Fixture::new().await;
    let (proxy, watcher, _group, guard) = half_open(&fixture, Duration::from_millis(50)).await;
    // However soon the next heartbeat is, it is too late.
    proxy.set(Line::Heartbeat, Way::ToServer, Flow::new().blackhole());
    let taken =
        watcher.lock("l").acquire_timeout(LEASE / 2).await.unwrap().expect("the lock, long before the lease ends");
    assert!(taken.token() > guard.token());
    timeout(PATIENCE, guard.lost()).await.expect("the first holder is told");
}
