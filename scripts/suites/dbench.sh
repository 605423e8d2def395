#!/usr/bin/env bash
# dbench: the file calls that a file server made for an office's clients, each with the result that it must have.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/dbench.sh [--quick] [--keep] [SECONDS]
  SECONDS  for each number of clients on each tree (default 60; 5 with --quick)
U
}

suite_options "$@"
suite_begin dbench
apt_tool dbench=dbench
seconds=${number:-$([ $quick = yes ] && echo 5 || echo 60)}

# one NAME CLIENTS OPTIONS...
one() {
    local name=$1 clients=$2 code=0 out=$work/dbench.$TREE.$1.out
    shift 2
    mkdir "$tree/$name"
    limit $((seconds * 2 + 120)) dbench --directory "$tree/$name" --timelimit "$seconds" "$@" "$clients" </dev/null >"$out" 2>&1 || code=$?
    if [ $code = 0 ] && grep -q '^Throughput' "$out" && ! grep -qiE 'failed|expected|error' "$out"; then
        passed "$name"
        say "  $TREE, $name: $(grep '^Throughput' "$out")"
    else
        failed "$name"
        say "  $name on $TREE: exit $code" && grep -iE 'failed|expected|error' "$out" | head -n 5
    fi
    rm -rf "${tree:?}/$name"
}

run() {
    one clients-1 1
    one clients-4 4
    one clients-4-sync 4 --sync-dir
}

say "dbench $(dbench --version 2>&1 | sed -n 's/.*version \([^ ]*\).*/\1/p'): $seconds s for each"
runs run
suite_end
