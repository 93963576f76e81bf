#!/usr/bin/env bash
# `make cluster`: a manager Redis, three nodes and a manager with its page on free loopback ports, and an application that uses
# them, until ctrl-C; then everything is gone again. The token, if TOKEN_FILE names a file with one, is asked for by the page.
#
#   NODES=5 LOAD=0 make cluster    # five nodes, and nobody who uses them
set -euo pipefail

cd "$(dirname "$0")/.."
server=$(scripts/redis-server.sh)
# What is set for another ring is not meant for this one.
unset ${!LARDER_@}
cargo build --features manager --bin larder --example load
target=${CARGO_TARGET_DIR:-target}/debug
larder=$target/larder

. scripts/servers.sh

start
redis=redis://127.0.0.1:$port/13
echo "manager Redis  127.0.0.1:$port (process $pid)"
# Caches: when memory is full, the least used goes.
settings=$'maxmemory 64mb\nmaxmemory-policy allkeys-lfu'
nodes=()
for ((node = 1; node <= ${NODES:-3}; node++)); do
    start
    nodes+=("redis://127.0.0.1:$port/0")
    echo "node $node         127.0.0.1:$port (process $pid)"
done

log=$dir/manager.log
: >"$log"
LARDER_LOG=info "$larder" manager --redis "$redis" --listen 127.0.0.1:0 ${TOKEN_FILE:+--token-file "$TOKEN_FILE"} >"$log" 2>&1 </dev/null &
manager=$!
page=
for _ in {1..100}; do
    page=$(sed -n 's/.*event="started" at=\([0-9.:]*\).*/\1/p' "$log")
    [ -z "$page" ] || break
    kill -0 "$manager" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
[ -n "$page" ] || { echo "the manager does not start:" >&2; cat "$log" >&2; exit 1; }
for node in "${nodes[@]}"; do
    "$larder" node add "$node" --redis "$redis" >/dev/null
done
[ "${LOAD:-1}" = 0 ] || "$target/examples/load" "$redis" >"$dir/load.log" 2>&1 </dev/null &

cat <<END

The page:   http://$page/
The ring:   LARDER_URL=ring://${redis#redis://}
Commands:   $larder node list --redis $redis

A node that is killed (kill -9 PROCESS) is taken off the ring, and comes back when it is there again:
            $server $dir/PORT.conf
Ctrl-C stops all of it.
END
# Until it ends, or is told to. From here on this shell has nothing to say but "Killed", of what was meant to be.
exec 2>/dev/null
wait "$manager"
