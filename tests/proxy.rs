//! The fault-injecting proxy, by a client and a server that only count bytes, and by a connector.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it")]

use std::time::{Duration, Instant};

use group_redis::GroupConnector;
use group_redis::testing::{FaultProxy, Flow, Line, TestRedis, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

const WAYS: [Way; 2] = [Way::ToServer, Way::ToClient];
const LINES: [Line; 4] = [Line::Commands, Line::Events, Line::Heartbeat, Line::Other];

/// A proxy before a server that only accepts.
struct Net {
    proxy: FaultProxy,
    listener: TcpListener,
}

/// Both ends of one connection through a proxy.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Net {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://me:secret@{}/3", listener.local_addr().unwrap());
        let proxy = FaultProxy::start(&url).await.unwrap();
        assert_eq!(proxy.url(), format!("redis://me:secret@127.0.0.1:{}/3", proxy.port()));
        Self { proxy, listener }
    }

    /// A connection that says what it is, as those of a connector do.
    async fn connect(&self, line: Line) -> Pair {
        let client = TcpStream::connect(("127.0.0.1", self.proxy.port())).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        let mut pair = Pair { client, server };
        let hello: &[u8] = match line {
            Line::Commands => b"I am group-redis-commands",
            Line::Events => b"I am group-redis-events",
            Line::Heartbeat => b"I am group-redis-heartbeat",
            _ => b"hello",
        };
        pair.says(Way::ToServer, hello).await;
        // The answer has passed, too, before anything is broken.
        pair.says(Way::ToClient, hello).await;
        pair
    }

    async fn new_pair() -> (Self, Pair) {
        let net = Self::new().await;
        let pair = net.connect(Line::Other).await;
        (net, pair)
    }
}

impl Pair {
    /// Who speaks, and who hears it.
    fn ends(&mut self, way: Way) -> (&mut TcpStream, &mut TcpStream) {
        match way {
            Way::ToServer => (&mut self.client, &mut self.server),
            Way::ToClient => (&mut self.server, &mut self.client),
        }
    }

    async fn writes(&mut self, way: Way, words: &[u8]) {
        self.ends(way).0.write_all(words).await.unwrap();
    }

    async fn hears(&mut self, way: Way, words: &[u8]) {
        let mut heard = vec![0; words.len()];
        let reading = self.ends(way).1.read_exact(&mut heard);
        timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("nothing came {way:?}")).unwrap();
        assert_eq!(heard, words);
    }

    /// One end says something, and the other hears it.
    async fn says(&mut self, way: Way, words: &[u8]) {
        self.writes(way, words).await;
        self.hears(way, words).await;
    }

    /// Whether nothing comes in the time in which it otherwise surely does.
    async fn is_silent(&mut self, way: Way) -> bool {
        timeout(Duration::from_millis(100), self.ends(way).1.read(&mut [0])).await.is_err()
    }

    /// Waits until the end that lies this way is reset.
    async fn is_reset(&mut self, way: Way) {
        let mut heard = [0];
        let reading = self.ends(way).1.read(&mut heard);
        let error = timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("nothing ended {way:?}")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{way:?}");
    }
}

fn other(way: Way) -> Way {
    if way == Way::ToServer { Way::ToClient } else { Way::ToServer }
}

#[tokio::test]
async fn a_blackhole_keeps_back_one_way_and_gives_it_up_late_with_the_end_of_the_connection() {
    for way in WAYS {
        let (net, mut pair) = Net::new_pair().await;
        net.proxy.set(Line::Any, way, Flow::new().blackhole());
        pair.writes(way, b"lost?").await;
        pair.ends(way).0.shutdown().await.unwrap();
        assert!(pair.is_silent(way).await, "{way:?}");
        pair.says(other(way), b"the other way").await;

        net.proxy.heal();
        pair.hears(way, b"lost?").await;
        let end = timeout(LIMIT, pair.ends(way).1.read(&mut [0])).await.expect("the end came with it").unwrap();
        assert_eq!(end, 0);
    }
}

#[tokio::test]
async fn a_blackhole_keeps_back_what_is_under_way() {
    for way in WAYS {
        let (net, mut pair) = Net::new_pair().await;
        let before = net.proxy.carried(way);
        net.proxy.set(Line::Any, way, Flow::new().throttle(500));
        pair.writes(way, &[7; 2000]).await;
        pair.hears(way, &[7; 10]).await;
        net.proxy.set(Line::Any, way, Flow::new().blackhole());
        let mut came = 10;
        while let Ok(read) = timeout(Duration::from_millis(100), pair.ends(way).1.read(&mut [0; 64])).await {
            came += read.unwrap();
        }
        assert!(came < 1000, "{came} bytes came through {way:?}");
        assert_eq!(net.proxy.carried(way) - before, u64::try_from(came).unwrap());
        net.proxy.heal();
        pair.hears(way, &vec![7; 2000 - came]).await;
    }
}

#[tokio::test]
async fn what_is_delayed_comes_later_and_in_order_with_its_end() {
    for way in WAYS {
        let (net, mut pair) = Net::new_pair().await;
        let delay = Duration::from_millis(80);
        net.proxy.set(Line::Any, way, Flow::new().delay(delay).jitter(delay));
        let begun = Instant::now();
        for word in [b"a", b"b", b"c"] {
            pair.writes(way, word).await;
            tokio::task::yield_now().await;
        }
        pair.hears(way, b"abc").await;
        assert!(begun.elapsed() >= delay, "{way:?}");
        let begun = Instant::now();
        pair.says(other(way), b"at once").await;
        pair.ends(way).0.shutdown().await.unwrap();
        assert_eq!(timeout(LIMIT, pair.ends(way).1.read(&mut [0])).await.expect("no end").unwrap(), 0);
        assert!(begun.elapsed() >= delay, "{way:?}");
    }
}

#[tokio::test]
async fn jitter_alone_delays_by_chance() {
    for way in WAYS {
        let (net, mut pair) = Net::new_pair().await;
        net.proxy.set(Line::Any, way, Flow::new().jitter(Duration::from_millis(20)));
        let begun = Instant::now();
        for _ in 0..20 {
            pair.says(way, b"a").await;
        }
        // 200 ms in the mean, give or take 26.
        assert!(begun.elapsed() > Duration::from_millis(50), "{way:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn what_is_chopped_comes_in_pieces_and_whole() {
    for way in WAYS {
        let (net, mut pair) = Net::new_pair().await;
        net.proxy.set(Line::Any, way, Flow::new().chop(10));
        let words: Vec<u8> = (0..200).collect();
        pair.writes(way, &words).await;
        let (mut heard, mut pieces) = (Vec::new(), Vec::new());
        while heard.len() < words.len() {
            let read = pair.ends(way).1.read_buf(&mut heard);
            pieces.push(timeout(LIMIT, read).await.expect("nothing came").unwrap());
        }
        assert_eq!(heard, words);
        // What is read late comes together.
        assert!(pieces.len() > 1, "{way:?}: {pieces:?}");
    }
}

#[tokio::test]
async fn what_is_throttled_flows_evenly_and_takes_its_time() {
    for way in WAYS {
        let (net, mut pair) = Net::new_pair().await;
        net.proxy.set(Line::Any, way, Flow::new().throttle(1000));
        let begun = Instant::now();
        pair.writes(way, &[7; 500]).await;
        pair.hears(way, &[7]).await;
        let first = begun.elapsed();
        pair.hears(way, &[7; 499]).await;
        let whole = begun.elapsed();
        assert!(whole >= Duration::from_millis(500), "{way:?}: 500 bytes at 1000 a second took {whole:?}");
        assert!(first < whole / 2, "{way:?}: {first:?} of {whole:?} before the first");
    }
}

#[tokio::test]
async fn healing_ends_a_long_delay_and_a_slow_flow_at_once() {
    let hour = Duration::from_secs(3600);
    for flow in [Flow::new().delay(hour), Flow::new().jitter(Duration::MAX).delay(hour), Flow::new().throttle(1)] {
        for way in WAYS {
            let (net, mut pair) = Net::new_pair().await;
            net.proxy.set(Line::Any, way, flow);
            pair.writes(way, &[7; 16 << 10]).await;
            assert!(pair.is_silent(way).await, "{way:?} {flow:?}");
            net.proxy.heal();
            pair.hears(way, &[7; 16 << 10]).await;
        }
    }
}

#[tokio::test]
async fn who_is_not_read_from_cannot_go_on_writing() {
    for way in WAYS {
        let (net, mut pair) = Net::new_pair().await;
        net.proxy.set(Line::Any, way, Flow::new().stop_reading());
        // One read may have been under way.
        let flood = async { while pair.ends(way).0.write_all(&[0; 1 << 20]).await.is_ok() {} };
        assert!(timeout(Duration::from_millis(500), flood).await.is_err(), "it ended");
        let carried = net.proxy.carried(way);
        assert!(carried < 1 << 16, "{carried} bytes came through {way:?}");
        pair.says(other(way), b"the other way").await;
    }
}

#[tokio::test]
async fn a_fault_on_one_line_leaves_the_others_alone() {
    for broken in LINES {
        let net = Net::new().await;
        let mut pairs = Vec::new();
        for line in LINES {
            pairs.push((line, net.connect(line).await));
        }
        for way in WAYS {
            net.proxy.set(broken, way, Flow::new().blackhole());
            for (line, pair) in &mut pairs {
                pair.writes(way, b"word").await;
                if *line == broken {
                    assert!(pair.is_silent(way).await, "{broken:?} {way:?}");
                } else {
                    pair.hears(way, b"word").await;
                }
                pair.says(other(way), b"the other way").await;
            }
            net.proxy.heal();
            let (_, pair) = pairs.iter_mut().find(|(line, _)| *line == broken).unwrap();
            pair.hears(way, b"word").await;
        }
        net.proxy.reset(broken);
        for (line, pair) in &mut pairs {
            if *line == broken {
                pair.is_reset(Way::ToServer).await;
                pair.is_reset(Way::ToClient).await;
            } else {
                pair.says(Way::ToServer, b"still here").await;
                pair.says(Way::ToClient, b"still here").await;
            }
        }
        let open = LINES.map(|line| net.proxy.open(line));
        assert_eq!(open, LINES.map(|line| usize::from(line != broken)), "{broken:?}");
    }
}

#[tokio::test]
async fn what_is_set_for_a_line_goes_before_what_is_set_for_any() {
    let net = Net::new().await;
    let (mut events, mut commands) = (net.connect(Line::Events).await, net.connect(Line::Commands).await);
    // Whichever of the two was said last.
    net.proxy.set_both(Line::Events, Flow::new());
    net.proxy.set_both(Line::Any, Flow::new().blackhole());
    for way in WAYS {
        events.says(way, b"open").await;
        commands.writes(way, b"kept back").await;
        assert!(commands.is_silent(way).await);
    }
    net.proxy.heal();
    net.proxy.set_both(Line::Any, Flow::new().blackhole());
    net.proxy.set_both(Line::Commands, Flow::new());
    for way in WAYS {
        commands.hears(way, b"kept back").await;
        events.writes(way, b"kept back").await;
        assert!(events.is_silent(way).await);
    }
}

#[tokio::test]
async fn a_reset_one_way_is_told_to_the_other_end_only_when_it_speaks() {
    for way in WAYS {
        let net = Net::new().await;
        let (mut pair, mut bystander) = (net.connect(Line::Heartbeat).await, net.connect(Line::Events).await);
        net.proxy.reset_way(Line::Heartbeat, way);
        pair.is_reset(way).await;
        assert!(pair.is_silent(other(way)).await, "{way:?}: its connection is half open");
        net.proxy.set(Line::Any, way, Flow::new().blackhole());
        pair.writes(way, b"is anybody there?").await;
        assert!(pair.is_silent(other(way)).await, "{way:?}: nobody has heard it");
        net.proxy.heal();
        pair.is_reset(other(way)).await;
        bystander.says(way, b"still here").await;
        bystander.says(other(way), b"still here").await;

        // And what is half open can be closed by hand.
        let mut pair = net.connect(Line::Commands).await;
        net.proxy.reset_way(Line::Any, way);
        pair.is_reset(way).await;
        net.proxy.reset(Line::Commands);
        pair.is_reset(other(way)).await;
    }
}

#[tokio::test]
async fn a_reset_ends_both_ends_and_a_refusal_lets_nobody_in_until_healed() {
    let (net, mut pair) = Net::new_pair().await;
    assert_eq!(net.proxy.open(Line::Other), 1);
    net.proxy.refuse();
    let address = ("127.0.0.1", net.proxy.port());
    let deadline = Instant::now() + LIMIT;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "still let in: {:?}", net.proxy);
    }
    for way in WAYS {
        pair.says(way, b"what stands, stands").await;
    }
    net.proxy.reset(Line::Any);
    for way in WAYS {
        pair.is_reset(way).await;
    }
    net.proxy.heal();
    let client = loop {
        if let Ok(client) = TcpStream::connect(address).await {
            break client;
        }
        assert!(Instant::now() < deadline, "never let in again: {:?}", net.proxy);
    };
    let server = loop {
        // Who was let in before the refusal held was reset, or closed by us.
        let (mut server, _) = timeout(LIMIT, net.listener.accept()).await.expect("nobody came").unwrap();
        if timeout(Duration::from_millis(200), server.read(&mut [0])).await.is_err() {
            break server;
        }
    };
    Pair { client, server }.says(Way::ToServer, b"again").await;
}

#[tokio::test]
async fn an_url_without_a_host_is_refused() {
    for url in ["redis+unix:///run/redis.sock", "unix:///run/redis.sock", "redis://", "no url"] {
        let error = FaultProxy::start(url).await.expect_err(url);
        assert!(error.to_string().contains("host"), "{url}: {error}");
    }
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
