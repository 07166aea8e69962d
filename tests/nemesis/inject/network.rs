//! The way between one worker and the server.

use std::time::{Duration, Instant};

use group_redis::testing::{FaultProxy, Flow, Line, Way};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::probe::{Echo, echo};
use super::{LATE, LONG, SHORT, WHILE};
use crate::chance::Chance;
use crate::stage::{Stage, Worker};

/// How long an answer is awaited that should not come.
const SILENT: Duration = Duration::from_millis(500);
const ANSWERS: Duration = Duration::from_millis(300);
const SUBSCRIPTION: Duration = Duration::from_millis(250);
const RESETS: usize = 4;
const THROTTLE: u32 = 20_000;
/// So much takes longer than this under the throttle.
const MUCH: usize = 6000;
const SLOW: Duration = Duration::from_millis(200);

pub(super) async fn network(_: &Stage, fault: &str, on: &Worker, chance: &mut Chance) -> bool {
    let proxy = on.proxy();
    let way = if chance.from(0, 2) == 0 { Way::ToServer } else { Way::ToClient };
    let hole = Flow::new().blackhole();
    let effective = match fault {
        "delay" => {
            let ms = Duration::from_millis(chance.from(20, 60));
            proxy.set_both(Line::Any, Flow::new().delay(ms).jitter(ms));
            is_seen(proxy, WHILE, 10, |echo| echo.time >= ms * 2).await
        }
        "delay_answers" => {
            proxy.set(Line::Commands, Way::ToClient, Flow::new().delay(ANSWERS));
            let late = echo(proxy.port(), "commands", 10, WHILE).await.is_some_and(|echo| echo.time >= ANSWERS);
            sleep(WHILE).await;
            late
        }
        // Cut off again and again, and back before it is subscribed.
        "late_subscription" => {
            proxy.set(Line::Events, Way::ToServer, Flow::new().delay(SUBSCRIPTION));
            let late = echo(proxy.port(), "events", 10, WHILE).await.is_some_and(|echo| echo.time >= SUBSCRIPTION);
            let before = proxy.accepted();
            for _ in 0..RESETS {
                proxy.reset(Line::Any);
                sleep(Duration::from_millis(chance.from(700, 1200))).await;
            }
            late && proxy.accepted() >= before + RESETS
        }
        "chop" => {
            let most = usize::try_from(chance.from(1, 20)).unwrap_or(1);
            proxy.set_both(Line::Any, Flow::new().chop(most));
            is_seen(proxy, WHILE, 500, |echo| echo.pieces > 2).await
        }
        "throttle" => {
            proxy.set(Line::Any, way, Flow::new().throttle(THROTTLE));
            is_seen(proxy, WHILE, MUCH, |echo| echo.time >= SLOW).await
        }
        "blackhole_short" => {
            proxy.set_both(Line::Any, hole);
            is_silent(proxy, &[Way::ToServer, Way::ToClient], SHORT).await
        }
        "blackhole_long" => {
            proxy.set_both(Line::Any, hole);
            is_silent(proxy, &[Way::ToServer, Way::ToClient], LONG).await
        }
        "blackhole_to_client" => {
            proxy.set(Line::Any, Way::ToClient, hole);
            is_silent(proxy, &[Way::ToClient], WHILE).await
        }
        "blackhole_events" => {
            proxy.set(Line::Events, way, hole);
            is_silent_on(proxy, "events").await
        }
        "blackhole_heartbeat" => {
            proxy.set(Line::Heartbeat, way, hole);
            is_silent_on(proxy, "heartbeat").await
        }
        // The last heartbeats are answered late: what counts is when they were sent.
        "blackhole_after_late_answers" => {
            proxy.set(Line::Heartbeat, Way::ToClient, Flow::new().delay(LATE));
            sleep(LATE * 4).await;
            // The last of the late answers comes through.
            proxy.set_both(Line::Any, hole);
            is_silent(proxy, &[Way::ToServer], LONG).await
        }
        "stop_reading" => {
            proxy.set(Line::Events, Way::ToClient, Flow::new().stop_reading());
            is_silent_on(proxy, "events").await
        }
        "reset" => {
            let (before, begun) = (proxy.accepted(), Instant::now());
            while begun.elapsed() < WHILE {
                proxy.reset(Line::Any);
                sleep(Duration::from_millis(chance.from(100, 400))).await;
            }
            proxy.accepted() > before + 3
        }
        "reset_and_refuse" => {
            proxy.refuse();
            proxy.reset(Line::Any);
            sleep(WHILE / 10).await;
            let before = proxy.accepted();
            let refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.is_err();
            sleep(WHILE).await;
            refused && proxy.accepted() == before && proxy.open(Line::Any) == 0
        }
        other => panic!("no fault is called {other}"),
    };
    proxy.heal();
    effective
}

/// Whether echoes of our own on this way are at some time as they should be; takes that time.
async fn is_seen(proxy: &FaultProxy, time: Duration, bytes: usize, is: impl Fn(Echo) -> bool) -> bool {
    let (begun, mut seen) = (Instant::now(), false);
    while begun.elapsed() < time {
        if !seen && let Some(found) = echo(proxy.port(), "other", bytes, time).await {
            seen = is(found);
        }
        sleep(Duration::from_millis(100)).await;
    }
    seen
}

/// Whether nothing gets through for that time, though much is sent: heartbeats, and an echo of our own.
async fn is_silent(proxy: &FaultProxy, ways: &[Way], time: Duration) -> bool {
    let begun = Instant::now();
    // What was being written when it began.
    sleep(Duration::from_millis(50)).await;
    let carried = || ways.iter().map(|way| proxy.carried(*way)).collect::<Vec<_>>();
    let before = carried();
    let unanswered = echo(proxy.port(), "other", 10, SILENT).await.is_none();
    sleep(time.saturating_sub(begun.elapsed())).await;
    unanswered && carried() == before
}

/// As long as a fault lasts, and whether a line of that name is silent in it.
async fn is_silent_on(proxy: &FaultProxy, line: &str) -> bool {
    let unanswered = echo(proxy.port(), line, 10, SILENT).await.is_none();
    sleep(WHILE.saturating_sub(SILENT)).await;
    unanswered
}
