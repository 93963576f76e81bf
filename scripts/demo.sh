#!/usr/bin/env bash
# `make demo`: a manager Redis and three nodes on free loopback ports, then `cargo run --example tiered`, or the one that
# LARDER_DEMO_EXAMPLE names, against them, then everything gone again. Arguments go to cargo (default: --release, since the
# example prints how fast things are).
#
# The example is told:
#   LARDER_DEMO_MANAGER  redis://127.0.0.1:PORT/13
#   DIS_MANAGER_REDIS_HOST, _PORT, _DB, DIS_CACHE_PREFIX  the manager, as the Python SDK has it
#   LARDER_DEMO_NODES    redis://127.0.0.1:PORT/0,... (three)
#   LARDER_DEMO_PIDS     the nodes' process ids, in the same order, with commas
#   LARDER_REDIS_SERVER  the server binary
#   LARDER_DEMO_DIR      PORT.conf of each server: `$LARDER_REDIS_SERVER $LARDER_DEMO_DIR/PORT.conf`
#                        starts a killed one again on its port. Its PORT.pid is there, too, and whatever
#                        process it names at the end is stopped, whoever started it.
set -euo pipefail

cd "$(dirname "$0")/.."
cargo=("${@:---release}")

server=$(scripts/redis-server.sh)
export LARDER_REDIS_SERVER=$server
example=${LARDER_DEMO_EXAMPLE:-tiered}
# A feature more than the default, for memoized functions.
cargo build "${cargo[@]}" --features macros --example "$example"

dir=$(mktemp -d "${TMPDIR:-/tmp}/larder-demo.XXXXXX")
export LARDER_DEMO_DIR=$dir
# Stops what was started here (bash knows which of its own children still run), then what the pid
# files name. Such a file outlives a killed server, and its number may be somebody else's by now: so
# the server on that port is asked who it is.
cleanup() {
    local pid file
    for pid in $(jobs -pr); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    for file in "$dir"/*.pid; do
        [ -e "$file" ] || continue
        pid=$(cat "$file")
        [ "$(process_behind "$(basename "$file" .pid)")" != "$pid" ] || kill -KILL "$pid" || true
    done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The id of the process that answers PING on a port, as it says itself; nothing while nobody does.
process_behind() {
    local line pong=
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'PING\r\nINFO server\r\n' >&3 || return 0
        while IFS= read -r -t 1 line <&3; do
            line=${line%$'\r'}
            case $line in
                +PONG) pong=yes ;;
                process_id:*) [ -z "$pong" ] || echo "${line#process_id:}"; break ;;
            esac
        done
        exec 3<&- 3>&-
    } 2>/dev/null || true
}

# Starts one server on a port that nobody holds and sets `port` and `pid`.
start() {
    local try
    for try in {1..20}; do
        # Below the ports that systems give to outgoing connections, so that a killed node's stays free.
        port=$((10000 + RANDOM % 20000))
        printf 'bind 127.0.0.1\nport %s\ndir %s\npidfile %s\nsave ""\nappendonly no\n' \
            "$port" "$dir" "$dir/$port.pid" >"$dir/$port.conf"
        "$server" "$dir/$port.conf" >"$dir/$port.log" 2>&1 </dev/null &
        pid=$!
        for _ in {1..100}; do
            [ "$(process_behind "$port")" = "$pid" ] && return
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        rm -f "$dir/$port.conf" "$dir/$port.pid"
    done
    echo "demo.sh: no server came up in $try tries; the last one, on port $port, said:" >&2
    cat "$dir/$port.log" >&2
    exit 1
}

start
LARDER_DEMO_MANAGER=redis://127.0.0.1:$port/13
# The same by the names of the Python SDK.
export DIS_MANAGER_REDIS_HOST=127.0.0.1 DIS_MANAGER_REDIS_PORT=$port DIS_MANAGER_REDIS_DB=13
export DIS_CACHE_PREFIX=${DIS_CACHE_PREFIX:-BEI:}
unset DIS_MANAGER_REDIS_PASSWORD DIS_CACHE_DEFAULT_TIMEOUT
LARDER_DEMO_NODES=
LARDER_DEMO_PIDS=
echo "manager  127.0.0.1:$port (process $pid)"
for name in 1 2 3; do
    start
    echo "node $name   127.0.0.1:$port (process $pid)"
    LARDER_DEMO_NODES+=${LARDER_DEMO_NODES:+,}redis://127.0.0.1:$port/0
    LARDER_DEMO_PIDS+=${LARDER_DEMO_PIDS:+,}$pid
done
export LARDER_DEMO_MANAGER LARDER_DEMO_NODES LARDER_DEMO_PIDS
echo
# From here on this shell has nothing to say but "Killed", of servers that were meant to be.
exec 4>&2 2>/dev/null
cargo run --quiet "${cargo[@]}" --features macros --example "$example" 2>&4
