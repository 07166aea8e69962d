//! The two ways of one connection, each a queue between a reader and a writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{SetOnce, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::flow::{Flow, Line, Way};
use super::{Ends, Rules, Shared};

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

/// A connection that has not been closed, but has broken.
struct Broken;

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
    let mut resets = Resets::new(shared.rules.subscribe());
    let ends = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let both = async {
            // Where one way has broken, the other has nowhere to go.
            tokio::try_join!(to_server.run(client_reads, server_writes), to_client.run(server_reads, client_writes))
        };
        tokio::select! {
            both = both => if both.is_ok() { return } else { Ends::Both },
            ends = async {
                let known = tokio::select! {
                    ends = resets.next(Line::Any) => return ends,
                    line = line.wait() => *line,
                };
                let _standing = Standing::new(shared, known);
                resets.next(known).await
            } => ends,
        }
    };
    let (told, other) = match ends {
        Ends::Both => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
            return;
        }
        Ends::Only(Way::ToServer) => (server, client),
        Ends::Only(Way::ToClient) => (client, server),
    };
    let _ = told.set_zero_linger();
    drop(told);
    let mut from_other = if ends == Ends::Only(Way::ToServer) { to_server } else { to_client };
    from_other.half_open(other, &mut resets).await;
}

/// What a connection has to know to see that it is reset.
struct Resets {
    rules: watch::Receiver<Rules>,
    seen: Rules,
}

impl Resets {
    fn new(mut rules: watch::Receiver<Rules>) -> Self {
        let seen = rules.borrow_and_update().clone();
        Self { rules, seen }
    }

    /// Waits until any line or this one is reset, since it was last asked.
    async fn next(&mut self, line: Line) -> Ends {
        loop {
            let new = self.rules.borrow_and_update().clone();
            let is_reset = |ends: &Ends| {
                [Line::Any, line].iter().any(|line| new.resets(*line, *ends) != self.seen.resets(*line, *ends))
            };
            let found = Ends::ALL.into_iter().find(is_reset);
            self.seen = new;
            if let Some(ends) = found {
                return ends;
            }
            if self.rules.changed().await.is_err() {
                return Ends::Both;
            }
        }
    }
}

impl Pump {
    fn flow(rules: &Rules, line: &SetOnce<Line>, way: Way) -> Flow {
        rules.flow(line.get().copied().unwrap_or(Line::Any), way)
    }

    /// Reads from one end and writes to the other, until the one has ended.
    async fn run(&mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Broken> {
        let (sender, mut chunks) = mpsc::channel(CHUNKS);
        let (line, way, mut rules) = (self.line.clone(), self.way, self.rules.clone());
        let reading = async move {
            loop {
                if rules.wait_for(|rules| !Self::flow(rules, &line, way).stops_reading).await.is_err() {
                    return Err(Broken);
                }
                let mut bytes = vec![0; CHUNK];
                let read = from.read(&mut bytes).await.map_err(|_| Broken)?;
                bytes.truncate(read);
                if way == Way::ToServer && read > 0 && !line.initialized() {
                    // A client says what it is with the first that it sends.
                    let _ = line.set(Line::of(&bytes));
                }
                // The end takes as long as what comes before it.
                sender.send(Chunk { bytes, came: Instant::now() }).await.map_err(|_| Broken)?;
                if read == 0 {
                    return Ok(());
                }
            }
        };
        let writing = async {
            while let Some(chunk) = chunks.recv().await {
                self.deliver(chunk, &mut to).await.map_err(|_| Broken)?;
            }
            Ok(())
        };
        tokio::pin!(writing);
        let read = tokio::select! {
            read = reading => read,
            _ = &mut writing => return Err(Broken),
        };
        writing.await.and(read)
    }

    /// Waits until something may pass and its time has come, as the rules say by then; answers how it flows.
    async fn pass(&mut self, since: Instant, takes: impl Fn(Flow) -> Duration) -> Flow {
        loop {
            let flow = Self::flow(&self.rules.borrow_and_update(), &self.line, self.way);
            let due = since + takes(flow);
            if !flow.blackhole && due <= Instant::now() {
                return flow;
            }
            tokio::select! {
                changed = self.rules.changed() => if changed.is_err() { return flow },
                () = sleep_until(due), if !flow.blackhole => {}
            }
        }
    }

    async fn deliver(&mut self, chunk: Chunk, to: &mut WriteHalf<'_>) -> std::io::Result<()> {
        let chance = chance();
        let _ = self.pass(chunk.came, |flow| flow.delay + flow.jitter.mul_f64(chance)).await;
        if chunk.bytes.is_empty() {
            // A client that is gone needs to be told nothing.
            let _ = to.shutdown().await;
        }
        let mut rest = &*chunk.bytes;
        while !rest.is_empty() {
            let flow = self.pass(Instant::now(), |flow| flow.pause(rest.len())).await;
            let (piece, later) = rest.split_at(flow.piece(rest.len()));
            rest = later;
            to.write_all(piece).await?;
            self.shared.counts.carried[self.way as usize].fetch_add(piece.len() as u64, Ordering::Relaxed);
            // The reader is to see it before the next comes.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Holds the one end of a connection whose other end is gone. As its host would do, whatever comes is answered with
    /// a reset, where the way lets it through.
    async fn half_open(&mut self, mut end: TcpStream, resets: &mut Resets) {
        let line = self.line.get().copied().unwrap_or(Line::Any);
        let answered = async {
            let _ = end.read(&mut [0]).await;
            let _ = self.pass(Instant::now(), |flow| flow.delay).await;
        };
        tokio::select! {
            () = answered => {}
            _ = resets.next(line) => {}
        }
        let _ = end.set_zero_linger();
    }
}

/// A number from 0 to 1, by chance.
fn chance() -> f64 {
    f64::from(u32::from_le_bytes(Uuid::new_v4().as_bytes()[..4].try_into().unwrap_or_default())) / f64::from(u32::MAX)
}
