#!/usr/bin/env bash
# `make views`: the axum_views example under load, with the cache in front of its views and without. Needs wrk. SECONDS_EACH, CONNECTIONS and
# ROUNDS may be set; the two take turns, and of each the rounds' median counts.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk, or brew install wrk" >&2; exit 1; }
cargo build --quiet --release --features axum --example axum_views
seconds=${SECONDS_EACH:-3} connections=${CONNECTIONS:-64} rounds=${ROUNDS:-5}
out=$(mktemp)
trap 'kill "$pid" 2>/dev/null || true; rm -f "$out"' EXIT

load() { # path: requests a second, and the latency that half and 99 of 100 requests stay below
    wrk -t1 -c"$connections" -d"$seconds"s --latency "$base/$1/works/7" |
        awk '/Requests\/sec/ { rate = $2 } $1 == "50%" { half = $2 } $1 == "99%" { most = $2 } END { print rate, half, most }'
}

median() { sort -n | awk '{ line[NR] = $0 } END { print line[int((NR + 1) / 2)] }'; }

printf 'one work of 500 bytes, %s connections, %s s a round, %s rounds\n' "$connections" "$seconds" "$rounds"
for origin in 0 2 20; do
    ORIGIN_MS=$origin target/release/examples/axum_views >"$out" &
    pid=$!
    until base=$(grep -o 'http://[0-9.:]*' "$out"); do kill -0 "$pid"; sleep 0.1; done
    : >"$out.plain"; : >"$out.cached"
    for _ in $(seq "$rounds"); do
        for path in plain cached; do load "$path" >>"$out.$path"; done
    done
    for path in plain cached; do
        read -r rate half most < <(median <"$out.$path")
        range=$(sort -n "$out.$path" | awk 'NR == 1 { least = $1 } { most = $1 } END { printf "%d..%d", least, most }')
        printf 'origin %2s ms, %-6s %8.0f requests/s (%s), half within %s, 99 of 100 within %s\n' "$origin" "$path" "$rate" "$range" "$half" "$most"
    done
    rm -f "$out.plain" "$out.cached"
    kill "$pid"; wait "$pid" 2>/dev/null || true
done
