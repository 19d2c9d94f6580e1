# Sourced by the tests of the Hub: starts a test Hub of our own and talks to its control calls.

hub_here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
tmp=$(mktemp -d)
hub_pid=
command -v python3 > /dev/null || { echo "skipped: no python3 for the test Hub"; exit 77; }

fail() { echo "FAILED: $*" >&2; exit 1; }

hub_end() {
    status=$?
    [ -z "$hub_pid" ] || kill "$hub_pid" 2> /dev/null || :
    rm -rf "$tmp"
    exit "$status"
}
trap hub_end EXIT

# hub_start [OPTION...]: sets HF_ENDPOINT and CDN
hub_start() {
    rm -f "$tmp/port"
    python3 "$hub_here/server.py" --state "$tmp/state" --log "$tmp/log" --port-file "$tmp/port" "$@" 2> "$tmp/server.err" &
    hub_pid=$!
    n=0
    while [ ! -f "$tmp/port" ]; do
        n=$((n + 1))
        [ "$n" -lt 200 ] || { cat "$tmp/server.err"; fail "the test Hub does not start"; }
        sleep 0.05
    done
    . "$tmp/port"
    export HF_ENDPOINT
}

# hub_stop: fails if a request broke the protocol's rules
hub_stop() {
    kill "$hub_pid"
    wait "$hub_pid" || { cat "$tmp/server.err"; fail "the test Hub saw violations"; }
    hub_pid=
}

# control NAME [JSON]: a POST, or a GET without JSON; the answer on stdout
control() {
    python3 - "$HF_ENDPOINT/_control/$1" "${2-}" <<'PY'
import sys, urllib.request
data = sys.argv[2].encode() or None
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], data).read().decode())
PY
}

# fault NAME PHASE [COUNT [MORE]]: MORE is further JSON members, as '"at": 5'
fault() { control fault "{\"fault\": \"$1\", \"phase\": \"$2\", \"count\": ${3-1}${4:+, $4}}" > /dev/null; }

# requests PHASE: how many requests of the phase the log has
requests() { grep -c "\"phase\": \"$1\"" "$tmp/log" || :; }

# seed REPO FOLDER [MORE]: one commit with all files of a folder
seed() {
    python3 - "$HF_ENDPOINT/_control/seed" "$1" "$2" "{${3-}}" <<'PY'
import base64, json, os, sys, urllib.request
url, repo, root, more = sys.argv[1:]
files = {}
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        files[os.path.relpath(path, root)] = base64.b64encode(open(path, "rb").read()).decode()
body = json.dumps(dict(json.loads(more), repo=repo, files=files)).encode()
print(json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, body))["oid"])
PY
}
