//! The fault-injecting proxy, by a client and a server that only count bytes, and by a connector.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it")]

use std::time::{Duration, Instant};

use group_redis::GroupConnector;
use group_redis::testing::{FaultProxy, Flow, Line, TestRedis, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

/// Both ends of one connection through a proxy.
struct Pair {
    proxy: FaultProxy,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://me:secret@{}/3", listener.local_addr().unwrap());
        let proxy = FaultProxy::start(&url).await.unwrap();
        assert_eq!(proxy.url(), format!("redis://me:secret@127.0.0.1:{}/3", proxy.port()));
        let client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut pair = Self { proxy, listener, client, server };
        pair.says(b"hello").await;
        pair
    }

    /// The client says something, and the server hears it.
    async fn says(&mut self, words: &[u8]) {
        self.client.write_all(words).await.unwrap();
        hears(&mut self.server, words).await;
    }
}

async fn hears(end: &mut TcpStream, words: &[u8]) {
    let mut heard = vec![0; words.len()];
    timeout(LIMIT, end.read_exact(&mut heard)).await.expect("nothing came").unwrap();
    assert_eq!(heard, words);
}

/// Whether nothing comes in the time in which it otherwise surely does.
async fn is_silent(end: &mut TcpStream) -> bool {
    timeout(Duration::from_millis(100), end.read(&mut [0])).await.is_err()
}

#[tokio::test]
async fn a_blackhole_keeps_back_one_way_and_gives_it_up_late_with_the_end_of_the_connection() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Any, Way::ToServer, Flow::new().blackhole());
    pair.client.write_all(b"lost?").await.unwrap();
    pair.client.shutdown().await.unwrap();
    assert!(is_silent(&mut pair.server).await);
    pair.server.write_all(b"the other way").await.unwrap();
    hears(&mut pair.client, b"the other way").await;

    pair.proxy.heal();
    hears(&mut pair.server, b"lost?").await;
    let end = timeout(LIMIT, pair.server.read(&mut [0])).await.expect("the end came with it").unwrap();
    assert_eq!(end, 0);
}

#[tokio::test]
async fn what_is_delayed_comes_later_and_in_order() {
    let mut pair = Pair::new().await;
    let delay = Duration::from_millis(80);
    pair.proxy.set(Line::Any, Way::ToServer, Flow::new().delay(delay).jitter(delay));
    let begun = Instant::now();
    for word in [b"a", b"b", b"c"] {
        pair.client.write_all(word).await.unwrap();
        tokio::task::yield_now().await;
    }
    hears(&mut pair.server, b"abc").await;
    assert!(begun.elapsed() >= delay);
}

#[tokio::test]
async fn what_is_throttled_takes_its_time_and_what_is_chopped_comes_whole() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Any, Way::ToServer, Flow::new().throttle(1000).chop(10));
    let begun = Instant::now();
    pair.says(&[7; 100]).await;
    assert!(begun.elapsed() >= Duration::from_millis(100), "100 bytes at 1000 a second");
}

#[tokio::test]
async fn who_is_not_read_from_cannot_go_on_writing() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Any, Way::ToServer, Flow::new().stop_reading());
    // One read may have been under way.
    let flood = async { while pair.client.write_all(&[0; 1 << 20]).await.is_ok() {} };
    assert!(timeout(Duration::from_millis(500), flood).await.is_err(), "it ended");
    let carried = pair.proxy.carried(Way::ToServer);
    assert!(carried < 1 << 16, "{carried} bytes came through");
}

#[tokio::test]
async fn a_reset_ends_both_ends_and_a_refusal_lets_nobody_in_until_healed() {
    let mut pair = Pair::new().await;
    assert_eq!(pair.proxy.open(Line::Other), 1);
    pair.proxy.refuse();
    pair.proxy.reset(Line::Any);
    for end in [&mut pair.client, &mut pair.server] {
        let error = timeout(LIMIT, end.read(&mut [0])).await.expect("nothing ended").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let address = ("127.0.0.1", pair.proxy.port());
    let deadline = Instant::now() + LIMIT;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "still let in: {:?}", pair.proxy);
    }
    pair.proxy.heal();
    let mut client = loop {
        if let Ok(client) = TcpStream::connect(address).await {
            break client;
        }
        assert!(Instant::now() < deadline, "never let in again: {:?}", pair.proxy);
    };
    let (mut server, _) = pair.listener.accept().await.unwrap();
    client.write_all(b"again").await.unwrap();
    hears(&mut server, b"again").await;
}

#[tokio::test]
async fn the_lines_of_a_connector_are_told_apart() {
    let redis = TestRedis::start().await.unwrap();
    let proxy = FaultProxy::start(redis.url()).await.unwrap();
    let group = GroupConnector::builder(proxy.url()).ttl(Duration::from_secs(2)).connect().await.unwrap();
    group.join("me").await.unwrap();
    let lines = [Line::Commands, Line::Events, Line::Heartbeat];
    let deadline = Instant::now() + LIMIT;
    while lines.iter().any(|line| proxy.open(*line) != 1) {
        assert!(Instant::now() < deadline, "{:?}", lines.map(|line| (line, proxy.open(line))));
        tokio::task::yield_now().await;
    }
    assert_eq!((proxy.open(Line::Any), proxy.open(Line::Other)), (3, 0));

    // Deaf, the connector suspends itself: its pings are not answered.
    proxy.set(Line::Events, Way::ToClient, Flow::new().blackhole());
    let mut state = group.state();
    let suspended = state.wait_for(|state| matches!(state, group_redis::State::Suspended { .. }));
    timeout(LIMIT, suspended).await.expect("never suspended");
    proxy.heal();
    timeout(LIMIT, state.wait_for(|state| state == group_redis::State::Connected)).await.expect("never back");
    group.close().await.unwrap();
}
