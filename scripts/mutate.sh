#!/usr/bin/env bash
# `make mutate`: are the promises tested? Each patch in scripts/mutants takes one mechanism out of the crate; the command
# named in it must fail then, and must pass without it.
#
#   scripts/mutate.sh            all of them
#   scripts/mutate.sh NAME...    some
#
# Works on a clone of the last commit in target/mutants, with a target directory that all builds share. What a patch's
# `run:` may be: `[VARIABLE=...] model`, `suite NAME`, `lib NAME`.
set -euo pipefail

cd "$(dirname "$0")/.."
LARDER_REDIS_SERVER=$(scripts/redis-server.sh)
export LARDER_REDIS_SERVER
here=$PWD/target/mutants
export CARGO_TARGET_DIR=$here/target
export RUST_BACKTRACE=0
longest=${LONGEST:-180}

rm -rf "$here/tree"
mkdir -p "$here"
git clone --quiet --shared . "$here/tree"
cd "$here/tree"

names=("$@")
if [ ${#names[@]} = 0 ]; then
    for patch in scripts/mutants/*.patch; do
        names+=("$(basename "$patch" .patch)")
    done
fi

line() { sed -n "s/^$1: //p" "scripts/mutants/$2.patch"; }

# Runs what a patch names; its output is in $here/log.
run() {
    local words target
    read -ra words <<<"$1"
    for target in "${!words[@]}"; do
        case ${words[$target]} in
        model) words[target]="--test model" ;;
        suite) words[target]="--test suite --" ;;
        lib) words[target]="--lib --" ;;
        esac
    done
    local variables=() flags=()
    # shellcheck disable=SC2068 # "--test model" is two words
    for target in ${words[@]}; do
        case $target in
        *=*) variables+=("$target") ;;
        *) flags+=("$target") ;;
        esac
    done
    env "${variables[@]}" timeout "$longest" cargo test --quiet --all-features "${flags[@]}" >"$here/log" 2>&1
}

built() { cargo test --quiet --all-features --no-run --lib --test model --test suite >"$here/log" 2>&1; }

# The first thing that the log says went wrong.
broken() { grep -m1 -E '^VIOLATION|panicked at|^test .*FAILED|^test result: FAILED|^NOT SETTLED' "$here/log" || tail -1 "$here/log"; }

failed=0
declare -A controlled
for name in "${names[@]}"; do
    command=$(line run "$name")
    if [ -z "${controlled[$command]:-}" ]; then
        controlled[$command]=yes
        if run "$command"; then
            echo "control: passed: $command"
        else
            echo "control: FAILED: $command: $(broken)"
            failed=1
        fi
    fi
done

for name in "${names[@]}"; do
    echo "$name: $(line what "$name")"
    if ! git apply "scripts/mutants/$name.patch"; then
        echo "    DOES NOT APPLY"
        failed=1
        continue
    fi
    began=$SECONDS
    if ! built; then
        echo "    DOES NOT COMPILE: $(grep -m1 '^error' "$here/log")"
        failed=1
    elif run "$(line run "$name")"; then
        echo "    SURVIVED: $(line run "$name")"
        failed=1
    else
        echo "    applied, killed in $((SECONDS - began)) s: $(broken)"
    fi
    git checkout --quiet .
done
exit "$failed"
