#!/usr/bin/env bash
# Python's portalocker and filelock, Node's proper-lockfile, and flock(1) as its man page has it: several processes that count in one JSON file, each time under the lock, lose nothing.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/locks.sh [--quick] [--keep] [TURNS]
  TURNS  of each of 8 processes, in each way, on each tree (default 40; 10 with --quick)
  LOCKERS='REGEX' in the environment: only those of this name
U
}

suite_options "$@"
suite_begin locks
apt_tool node=nodejs npm=npm flock=util-linux
turns=${number:-$([ $quick = yes ] && echo 10 || echo 40)} processes=8
modules=$TOOLS/locks python=$TOOLS/locks/python/bin/python
mkdir -p "$modules"
if [ ! -d "$modules/node_modules/proper-lockfile" ]; then
    say "Installing proper-lockfile (npm) ..."
    limit 300 npm install --prefix "$modules" --silent --no-fund --no-audit proper-lockfile@4.1.2 </dev/null >/dev/null 2>&1 ||
        die "proper-lockfile cannot be installed by npm"
fi
if ! "$python" -c 'import portalocker, filelock' 2>/dev/null; then
    say "Installing portalocker and filelock (pip) ..."
    { "$PYTHON" -m venv "$modules/python" && limit 300 "$python" -m pip install --quiet --disable-pip-version-check portalocker filelock; } </dev/null ||
        die "portalocker and filelock cannot be installed by pip into a virtual environment: apt install python3-venv"
fi

# one NAME COMMAND...: each process runs the command with NAME and the number of turns.
one() {
    local name=$1 process counting=() counted state=passed
    [[ $name =~ ${LOCKERS:-.} ]] || return 0
    shift
    mkdir "$tree/$name"
    cd "$tree/$name" || exit 2
    printf '{"count": 0}' >count.json
    for process in $(seq $processes); do
        limit 900 "$@" "$name" "$turns" </dev/null >"$work/locks.$TREE.$name.$process" 2>&1 &
        counting+=($!)
    done
    for process in "${counting[@]}"; do
        wait "$process" || state=failed
    done
    counted=$(tr -dc 0-9 <count.json)
    [ "$counted" = $((processes * turns)) ] || state=failed
    $state "$name"
    if [ $state = failed ]; then
        say "  $name on $TREE: $counted of $((processes * turns)) were counted"
        tail -qn 1 "$work/locks.$TREE.$name".* | sort | uniq -c | head -n 5
    fi
    cd "$work" || exit 2
    rm -rf "${tree:?}/$name"
}

run() {
    local name
    for name in portalocker-r+ portalocker-a+ portalocker-w-beside portalocker-a-beside-replaced filelock-in-place filelock-replaced filelock-soft flock-of-an-appender; do
        one $name "$python" "$LIB/lockers/count.py"
    done
    for name in proper-lockfile-in-place proper-lockfile-replaced; do
        one $name node "$LIB/lockers/proper_lockfile.mjs" "$modules"
    done
    for name in command subshell subshell-rw subshell-read subshell-append refused patient exec shared-first closed shell-self; do
        one flock-$name sh "$LIB/lockers/flock.sh"
    done
}

say "$(flock --version | sed 's/^flock from //'), node $(node --version), proper-lockfile $(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$modules/node_modules/proper-lockfile/package.json" | head -n 1), $("$python" -m pip list 2>/dev/null | sed -n 's/^\(portalocker\|filelock\) */\1 /p' | paste -sd ,): $processes processes, $turns turns each"
runs run
suite_end
