# Sourced by scripts that need servers for a while: each on a free loopback port, all gone when the script ends.
#
# Before: `server`, the binary; `settings`, lines for those that are started from then on. After: `dir`, with PORT.conf, PORT.log and PORT.pid of each. `start` starts one.

dir=$(mktemp -d "${TMPDIR:-/tmp}/larder-servers.XXXXXX")
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
        printf '%s\n' "${settings:-}" >>"$dir/$port.conf"
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
    echo "no server came up in $try tries; the last one, on port $port, said:" >&2
    cat "$dir/$port.log" >&2
    exit 1
}
