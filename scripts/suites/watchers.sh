#!/usr/bin/env bash
# entr, inotifywait, fswatch, Node's chokidar and @parcel/watcher, Python's watchdog and watchfiles: whoever reads a file when he is told that it changed must see each save, however it was made.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/watchers.sh [--quick] [--keep] [SAVES]
  SAVES  of each way of saving, by each watcher, on each tree (default 5; 2 with --quick)
  WATCHERS='REGEX' in the environment: only those of this name
U
}

suite_options "$@"
suite_begin watchers
apt_tool entr=entr node=nodejs npm=npm inotifywait=inotify-tools fswatch=fswatch
saves=${number:-$([ $quick = yes ] && echo 2 || echo 5)}
modules=$TOOLS/watchers python=$TOOLS/watchers/python/bin/python
mkdir -p "$modules"
if [ ! -d "$modules/node_modules/chokidar-3" ] || [ ! -d "$modules/node_modules/@parcel/watcher" ]; then
    say "Installing chokidar and @parcel/watcher (npm) ..."
    limit 300 npm install --prefix "$modules" --silent --no-fund --no-audit chokidar@5.0.0 chokidar-3@npm:chokidar@3.6.0 @parcel/watcher@2.5.1 \
        </dev/null >/dev/null 2>&1 || die "chokidar and @parcel/watcher cannot be installed by npm"
fi
if ! "$python" -c 'import watchdog, watchfiles' 2>/dev/null; then
    say "Installing watchdog and watchfiles (pip) ..."
    { "$PYTHON" -m venv "$modules/python" && limit 300 "$python" -m pip install --quiet --disable-pip-version-check watchdog watchfiles; } </dev/null ||
        die "watchdog and watchfiles cannot be installed by pip into a virtual environment: apt install python3-venv"
fi

# one NAME COMMAND...
one() {
    local name=$1 out=$work/watchers.$TREE.$1.out way seen of
    [[ $name =~ ${WATCHERS:-.} ]] || return 0
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
    one chokidar-directory node "$LIB/watchers/chokidar.mjs" "$modules" chokidar . STATE.md
    one chokidar-file node "$LIB/watchers/chokidar.mjs" "$modules" chokidar STATE.md STATE.md
    one chokidar-3-directory node "$LIB/watchers/chokidar.mjs" "$modules" chokidar-3 . STATE.md
    one parcel-directory node "$LIB/watchers/parcel.mjs" "$modules" STATE.md
    one inotifywait-directory sh "$LIB/watchers/inotifywait.sh" . close_write,moved_to
    one inotifywait-file sh "$LIB/watchers/inotifywait.sh" STATE.md close_write
    one fswatch-directory sh "$LIB/watchers/fswatch.sh" .
    one watchfiles-directory "$python" "$LIB/watchers/watchfiles_changes.py" . STATE.md
    one watchfiles-file "$python" "$LIB/watchers/watchfiles_changes.py" STATE.md STATE.md
    one watchdog-directory "$python" "$LIB/watchers/watchdog_events.py" . STATE.md all
    one watchdog-directory-modified "$python" "$LIB/watchers/watchdog_events.py" . STATE.md modified
    one watchdog-file "$python" "$LIB/watchers/watchdog_events.py" STATE.md STATE.md all
}

npm_version() { printf '%s %s' "$1" "$(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$modules/node_modules/$1/package.json" | head -n 1)"; }
say "$(entr 2>&1 | sed -n 's/^release: /entr /p'), $(inotifywait --help | sed -n '1s/ *$//p'), $(fswatch --version | head -n 1), $(npm_version chokidar), $(npm_version chokidar-3), $(npm_version @parcel/watcher), $("$python" -m pip list 2>/dev/null | sed -n 's/^\(watchdog\|watchfiles\) */\1 /p' | paste -sd ,): $saves saves of each way"
runs run
suite_end
