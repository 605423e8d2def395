#!/usr/bin/env bash
# stress-ng's filesystem class with --verify, a stressor at a time. Its exit code does not tell all: its output is searched for "fail:".
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/stress-ng.sh [--quick] [--keep] [SECONDS]
  SECONDS  for each stressor on each tree (default 20; 2 with --quick)
CONCORD_STRESSORS  these stressors instead of the class's
U
}

suite_options "$@"
suite_begin stress-ng
apt_tool stress-ng=stress-ng
seconds=${number:-$([ $quick = yes ] && echo 2 || echo 20)}
# Of the class, but they use no file in the directory that they are given.
elsewhere=' bind-mount binderfs eventfd ioprio procfs '
stressors=${CONCORD_STRESSORS:-$(stress-ng --class 'filesystem?' 2>&1 | sed -n "s/^class 'filesystem' stressors: //p")}
[ -n "$stressors" ] || die "stress-ng does not list its filesystem class"

one() {
    local code=0 out=$work/stress-ng.$TREE.$1.out place=$tree/$1
    mkdir "$place"
    # It ends its work after $seconds; dirdeep then removes what it made, which takes as long again, and more on a loaded machine.
    limit $((seconds * 4 + 60)) stress-ng "--$1" 2 --timeout "$seconds" --verify --temp-path "$place" --oomable </dev/null >"$out" 2>&1 || code=$?
    # 3: no resources; 4: not implemented here.
    if grep -q 'fail:' "$out" || { [ $code != 0 ] && [ $code != 3 ] && [ $code != 4 ]; }; then
        failed "$1"
        say "  $1 on $TREE: exit $code" && grep -E 'fail:|error:' "$out" | head -n 5
    elif [ $code != 0 ] || grep -q 'skipp' "$out"; then
        skipped "$1"
    else
        passed "$1"
    fi
    # What it left is not the next one's.
    rm -rf "$place" || failed "$1::removal"
}

run() {
    local name
    for name in $stressors; do
        case $elsewhere in *" $name "*) continue ;; esac
        one "$name"
    done
}

say "$(stress-ng --version 2>&1 | head -n 1): $seconds s for each stressor"
runs run
suite_end
