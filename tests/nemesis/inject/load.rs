//! Others who use the same server.

use std::time::{Duration, Instant};

use redis::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::WHILE;
use crate::stage::Stage;

/// How many keys a script makes or removes at once: few enough that nobody waits long for it.
const AT_ONCE: u64 = 5000;
/// How many writes a second there are to be at the least, and how many are tried.
const RATE: f64 = 50_000.0;
const TRIED: f64 = 80_000.0;
const BATCH: u32 = 1000;
/// How many batches may be unanswered.
const IN_FLIGHT: u32 = 4;

/// Keys of others with a time to live, so that Redis's own search for what has run out takes for ever.
pub(super) async fn foreign_keys(stage: &Stage, count: u64) -> bool {
    let fill = "for i = ARGV[1], ARGV[1] + 4999 do
          redis.call('SET', 'foreign:' .. i, 'x', 'PX', 60000 + i % 60000)
        end";
    let empty = "local keys = {} for i = ARGV[1], ARGV[1] + 4999 do keys[#keys + 1] = 'foreign:' .. i end
        return redis.call('UNLINK', unpack(keys))";
    let size = async || stage.ask::<u64>(&["DBSIZE"]).await.unwrap_or_default();
    let before = size().await;
    for from in (0..count).step_by(5000) {
        let _ = stage.ask::<Value>(&["EVAL", fill, "0", &from.to_string()]).await;
    }
    sleep(Duration::from_secs(1)).await;
    // The group's own come and go.
    let all_there = size().await + AT_ONCE / 10 >= before + count;
    let mut removed = 0;
    for from in (0..count).step_by(5000) {
        removed += stage.ask::<u64>(&["EVAL", empty, "0", &from.to_string()]).await.unwrap_or_default();
    }
    all_there && removed == count
}

/// Writes of others, several batches of them unanswered all the time. Only what was answered by OK counts.
pub(super) async fn foreign_writes(stage: &Stage) -> bool {
    let set = |index: u32| format!("*3\r\n$3\r\nSET\r\n$11\r\nforeign:{index:03}\r\n$1\r\nx\r\n");
    let batch: String = (0..BATCH).map(set).collect();
    let Ok(connection) = TcpStream::connect(("127.0.0.1", stage.redis().port())).await else { return false };
    let (mut reading, mut writing) = connection.into_split();
    let (begun, free) = (Instant::now(), tokio::sync::Semaphore::new(IN_FLIGHT as usize));
    let write = async {
        for sent in 0_u32.. {
            let Ok(permit) = free.acquire().await else { return };
            permit.forget();
            sleep(Duration::from_secs_f64(f64::from(sent * BATCH) / TRIED).saturating_sub(begun.elapsed())).await;
            if begun.elapsed() > WHILE || writing.write_all(batch.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    let mut written = 0_u64;
    let read = async {
        let (mut buffer, mut rest, mut answers) = (vec![0; 1 << 16], Vec::new(), 0);
        while let Ok(read @ 1..) = reading.read(&mut buffer).await {
            rest.extend_from_slice(&buffer[..read]);
            let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            for answer in rest.drain(..whole).collect::<Vec<_>>().split_inclusive(|byte| *byte == b'\n') {
                written += u64::from(answer == b"+OK\r\n");
                answers += 1;
                if answers % BATCH == 0 {
                    free.add_permits(1);
                }
            }
        }
    };
    let _ = timeout(WHILE * 2, async {
        tokio::select! { () = write => {}, () = read => {} }
    })
    .await;
    let rate = written as f64 / begun.elapsed().as_secs_f64();
    let gone = "for i = 0, 999 do redis.call('DEL', string.format('foreign:%03d', i)) end";
    let _ = stage.ask::<Value>(&["EVAL", gone, "0"]).await;
    eprintln!("foreign writes: {rate:.0} a second");
    rate >= RATE
}
