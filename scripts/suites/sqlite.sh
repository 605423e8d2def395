#!/usr/bin/env bash
# SQLite: several processes on one database, in rollback and in WAL mode, some of them killed; on a coordinated database it must
# be refused or right, never wrong.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/sqlite.sh [--quick] [--keep] [SECONDS]
  SECONDS  for each case on each tree (default 30; 3 with --quick)
U
}

suite_options "$@"
suite_begin sqlite
seconds=${number:-$([ $quick = yes ] && echo 3 || echo 30)}
# A coordinated database makes the second process wait this long.
WAIT=1s

# one NAME OPTIONS...
one() {
    local name=$1 code=0 out=$work/sqlite.$TREE.$1.out
    shift
    mkdir "$tree/$name"
    limit $((seconds + 180)) "$PYTHON" "$LIB/sqlite_stress.py" --dir "$tree/$name" --seconds "$seconds" "$@" </dev/null >"$out" 2>&1 || code=$?
    say "  $TREE, $name: $(tail -n 1 "$out")"
    # 3: right, but some were refused, which only a coordinated database may do.
    case $code:$TREE in
    0:* | 3:coordinated) passed "$name" ;;
    *) failed "$name" ;;
    esac
}

run() {
    local mode
    for mode in delete truncate persist wal; do
        one "$mode" --mode $mode
        one "$mode-killed" --mode $mode --kill
    done
    one wal-one-at-a-time --mode wal --reopen --writers 1 --readers 2
    one delete-one-at-a-time --mode delete --reopen --writers 1 --readers 2
}

say "SQLite $("$PYTHON" -c 'import sqlite3; print(sqlite3.sqlite_version)'): $seconds s for each case"
runs run
suite_end
