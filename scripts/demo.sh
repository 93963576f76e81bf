#!/usr/bin/env bash
# `make demo`: a manager Redis and three nodes on free loopback ports, then the example `tiered`, or the one that
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
case " ${cargo[*]} " in
*" --release "*) built=release ;;
*) built=debug ;;
esac

. scripts/servers.sh
export LARDER_DEMO_DIR=$dir

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
"${CARGO_TARGET_DIR:-target}/$built/examples/$example" 2>&4
