//! The two ways of one connection, each a queue between who reads and who writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{SetOnce, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::flow::{Flow, Line, Way};
use super::{Rules, Shared};

const CHUNK: usize = 16 << 10;
/// How many chunks may be on their way; a blackhole that has swallowed more stops reading.
const CHUNKS: usize = 1024;

struct Chunk {
    bytes: Vec<u8>,
    came: Instant,
}

/// One way of one connection.
struct Pump {
    shared: Arc<Shared>,
    way: Way,
    line: Arc<SetOnce<Line>>,
    rules: watch::Receiver<Rules>,
}

/// How a way came to its end.
#[derive(PartialEq)]
enum End {
    Closed,
    Broken,
}

/// Counts a connection for as long as it stands.
struct Standing<'a>(&'a Shared, Line);

impl<'a> Standing<'a> {
    fn new(shared: &'a Shared, line: Line) -> Self {
        *shared.counts.open().entry(line).or_default() += 1;
        Self(shared, line)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.0.counts.open().get_mut(&self.1) {
            *open = open.saturating_sub(1);
        }
    }
}

/// Carries one connection, until both ways have ended or it is reset.
pub(super) async fn connection(shared: &Arc<Shared>, mut client: TcpStream, mut server: TcpStream) {
    // Without it what is chopped would be put together again.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let line = Arc::new(SetOnce::new());
    let pump = |way| Pump { shared: shared.clone(), way, line: line.clone(), rules: shared.rules.subscribe() };
    let (mut to_server, mut to_client) = (pump(Way::ToServer), pump(Way::ToClient));
    let is_reset = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let both = async {
            let (up, down) =
                tokio::join!(to_server.run(client_reads, server_writes), to_client.run(server_reads, client_writes));
            up == End::Broken || down == End::Broken
        };
        tokio::select! {
            is_broken = both => is_broken,
            () = reset(shared, &line) => true,
        }
    };
    if is_reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Waits until this line is reset; counts the connection from when its line is known.
async fn reset(shared: &Shared, line: &SetOnce<Line>) {
    let mut rules = shared.rules.subscribe();
    let before = rules.borrow().resets(Line::Any);
    tokio::select! {
        // The sender lives as long as the connection does.
        _ = rules.wait_for(|rules| rules.resets(Line::Any) != before) => return,
        _ = line.wait() => {}
    }
    let line = line.get().copied().unwrap_or(Line::Other);
    let _standing = Standing::new(shared, line);
    let before = rules.borrow().resets(line);
    let _ = rules.wait_for(|rules| rules.resets(line) != before).await;
}

impl Pump {
    fn flow(rules: &Rules, line: &SetOnce<Line>, way: Way) -> Flow {
        rules.flow(line.get().copied().unwrap_or(Line::Any), way)
    }

    /// Reads from one end and writes to the other, until the one has ended.
    async fn run(&mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let (sender, mut chunks) = mpsc::channel(CHUNKS);
        let (line, way, mut rules) = (self.line.clone(), self.way, self.rules.clone());
        let reading = async move {
            loop {
                if rules.wait_for(|rules| !Self::flow(rules, &line, way).stops_reading).await.is_err() {
                    return End::Broken;
                }
                let mut bytes = vec![0; CHUNK];
                let read = match from.read(&mut bytes).await {
                    Ok(0) => return End::Closed,
                    Ok(read) => read,
                    Err(_) => return End::Broken,
                };
                bytes.truncate(read);
                if way == Way::ToServer && !line.initialized() {
                    // A client says what it is with the first that it sends.
                    let _ = line.set(Line::of(&bytes));
                }
                if sender.send(Chunk { bytes, came: Instant::now() }).await.is_err() {
                    return End::Broken;
                }
            }
        };
        let writing = async {
            while let Some(chunk) = chunks.recv().await {
                if self.deliver(chunk, &mut to).await.is_err() {
                    return End::Broken;
                }
            }
            let _ = self.pass().await;
            // Who is gone already needs to be told nothing.
            let _ = to.shutdown().await;
            End::Closed
        };
        tokio::pin!(writing);
        let read = tokio::select! {
            read = reading => read,
            _ = &mut writing => return End::Broken,
        };
        let written = writing.await;
        if read == End::Broken || written == End::Broken { End::Broken } else { End::Closed }
    }

    /// Waits until something may pass, and answers how.
    async fn pass(&mut self) -> Flow {
        let (line, way) = (self.line.clone(), self.way);
        match self.rules.wait_for(|rules| !Self::flow(rules, &line, way).blackhole).await {
            Ok(rules) => Self::flow(&rules, &line, way),
            Err(_) => Flow::default(),
        }
    }

    async fn deliver(&mut self, chunk: Chunk, to: &mut WriteHalf<'_>) -> std::io::Result<()> {
        let flow = self.pass().await;
        sleep_until(chunk.came + flow.delay + flow.jitter.mul_f64(chance())).await;
        let flow = self.pass().await;
        for piece in chunk.bytes.chunks(flow.chop.unwrap_or(CHUNK)) {
            if let Some(rate) = flow.throttle {
                sleep(Duration::from_secs(1).mul_f64(piece.len() as f64 / f64::from(rate))).await;
            }
            to.write_all(piece).await?;
            if flow.chop.is_some() {
                // The reader is to see it before the next comes.
                tokio::task::yield_now().await;
            }
            self.shared.counts.carried[self.way as usize].fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A number from 0 to 1, by chance.
fn chance() -> f64 {
    f64::from(u32::from_le_bytes(Uuid::new_v4().as_bytes()[..4].try_into().unwrap_or_default())) / f64::from(u32::MAX)
}
