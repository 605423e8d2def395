#!/usr/bin/env bash
# entr, Node's chokidar and Python's watchdog: whoever reads a file when he is told that it changed must see each save, however it was made.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/watchers.sh [--quick] [--keep] [SAVES]
  SAVES  of each way of saving, by each watcher, on each tree (default 5; 2 with --quick)
U
}

suite_options "$@"
suite_begin watchers
apt_tool entr=entr node=nodejs npm=npm
saves=${number:-$([ $quick = yes ] && echo 2 || echo 5)}
modules=$TOOLS/watchers python=$TOOLS/watchers/python/bin/python
mkdir -p "$modules"
if [ ! -d "$modules/node_modules/chokidar" ]; then
    say "Installing chokidar (npm) ..."
    limit 300 npm install --prefix "$modules" --silent --no-fund --no-audit chokidar@5.0.0 </dev/null >/dev/null 2>&1 || die "chokidar cannot be installed by npm"
fi
if ! "$python" -c 'import watchdog' 2>/dev/null; then
    say "Installing watchdog (pip) ..."
    { "$PYTHON" -m venv "$modules/python" && limit 300 "$python" -m pip install --quiet --disable-pip-version-check watchdog; } </dev/null ||
        die "watchdog cannot be installed by pip into a virtual environment: apt install python3-venv"
fi

# one NAME COMMAND...
one() {
    local name=$1 out=$work/watchers.$TREE.$1.out way seen of
    shift
    mkdir "$tree/$name"
    limit 1200 "$PYTHON" "$LIB/watch_saves.py" "$tree/$name" "$saves" -- "$@" </dev/null >"$out" 2>"$out.errors" || {
        failed "$name::ended_by_itself"
        tail -n 5 "$out.errors"
    }
    while read -r way seen of; do
        if [ "$seen" = "$of" ]; then
            passed "$name::$way"
        else
            failed "$name::$way"
            say "  $name::$way on $TREE: $seen of $of saves were seen"
        fi
    done <"$out"
    rm -rf "${tree:?}/$name"
}

run() {
    echo STATE.md >"$work/names"
    # shellcheck disable=SC2016
    one entr sh -c 'exec entr -n sh -c '\''echo "saw $(tail -n 1 STATE.md)"'\'' <"$0"' "$work/names"
    one chokidar-directory node "$LIB/watchers/chokidar.mjs" "$modules" . STATE.md
    one chokidar-file node "$LIB/watchers/chokidar.mjs" "$modules" STATE.md STATE.md
    one watchdog-directory "$python" "$LIB/watchers/watchdog_events.py" . STATE.md all
    one watchdog-directory-modified "$python" "$LIB/watchers/watchdog_events.py" . STATE.md modified
    one watchdog-file "$python" "$LIB/watchers/watchdog_events.py" STATE.md STATE.md all
}

say "$(entr 2>&1 | sed -n 's/^release: /entr /p'), chokidar $(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$modules/node_modules/chokidar/package.json"), $("$python" -m pip list 2>/dev/null | sed -n 's/^\(watchdog\) */\1 /p'): $saves saves of each way"
runs run
suite_end
