//! Small questions by a connection of our own, past the client library: what does a client see now?

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::Stage;

/// How an echo came back: after how long, and in how many pieces.
pub(super) struct Echo {
    pub(super) time: Duration,
    pub(super) pieces: usize,
}

/// Sends so many bytes there and back, on a connection that a proxy takes for this line of a connector.
pub(super) async fn echo(port: u16, line: &str, bytes: usize, limit: Duration) -> Option<Echo> {
    let hello = format!("*2\r\n$4\r\nECHO\r\n${}\r\ngroup-redis-{line}\r\n", line.len() + 12);
    let answer_to_hello = line.len() + 12 + 4 + (line.len() + 12).to_string().len() + 1;
    let text = "x".repeat(bytes);
    let sent = format!("*2\r\n$4\r\nECHO\r\n${bytes}\r\n{text}\r\n");
    let awaited = bytes + bytes.to_string().len() + 5;
    let asking = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.set_nodelay(true)?;
        connection.write_all(hello.as_bytes()).await?;
        let mut hello = vec![0; answer_to_hello];
        connection.read_exact(&mut hello).await?;
        let begun = Instant::now();
        connection.write_all(sent.as_bytes()).await?;
        let (mut got, mut pieces, mut buffer) = (0, 0, vec![0; awaited]);
        while got < awaited {
            match connection.read(&mut buffer).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                read => (got, pieces) = (got + read, pieces + 1),
            }
        }
        Ok(Echo { time: begun.elapsed(), pieces })
    };
    timeout(limit, asking).await.ok()?.ok()
}

/// The first line that the server answers to this command on a new connection.
pub(super) async fn first_answer(stage: &Stage, command: &str) -> Option<String> {
    let asking = async {
        let mut connection = TcpStream::connect(("127.0.0.1", stage.redis().port())).await?;
        connection.write_all(format!("{command}\r\n").as_bytes()).await?;
        let mut answer = vec![0; 200];
        let read = connection.read(&mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer[..read]).into_owned())
    };
    timeout(Duration::from_secs(1), asking).await.ok()?.ok()
}

/// A number that the server tells of itself.
pub(super) async fn info(stage: &Stage, section: &str, field: &str) -> Option<u64> {
    let info: String = stage.ask(&["INFO", section]).await.ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line?.trim().parse().ok()
}

/// Whether this becomes so within that time.
pub(super) async fn comes_true(limit: Duration, mut is: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if is().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}
