#!/usr/bin/env bash
# pjdfstest (the crate): what POSIX says about files' calls and their errno, as root and as other users.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/pjdfstest.sh [--quick] [--keep]
All cases on the backing filesystem, on a mount without rules and on one that coordinates every file. --quick changes nothing: it takes half a minute.
U
}

suite_options "$@"
[ "$(id -u)" = 0 ] || die "pjdfstest changes its user: run it as root"
suite_begin pjdfstest
cargo_tool pjdfstest 0.2.2
cat >"$work/pjdfstest.toml" <<'E2'
# The features that Linux has of those that must be asked for.
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
E2
# For EXDEV: another filesystem, where the machine has one.
second=()
if [ "$(stat -c %d /dev/shm 2>/dev/null)" != "$(stat -c %d "$work")" ] && [ -w /dev/shm ]; then
    other=$(mktemp -d /dev/shm/concord-suite-XXXXXX)
    chmod 755 "$other"
    second=(--secondary-fs "$other")
    trap 'rm -rf "$other"; suite_cleanup' EXIT
fi

run() {
    local out=$work/pjdfstest.$TREE.out place=$tree/t code=0
    # Its path_max cases panic (capacity overflow) when what is left to PATH_MAX is just a multiple of 127: 22 is its own directory.
    while [ $(((4095 - ${#place} - 22) % 127)) -lt 3 ]; do place=${place}t; done
    mkdir "$place"
    cd "$place" || exit 2
    limit 300 "$TOOLS/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$place" "${second[@]}" </dev/null >"$out" 2>&1 || code=$?
    awk '$2 == "ok" { print $1 }' "$out" >>"$work/results/$TREE.passed"
    awk '$2 == "FAILED" { print $1 }' "$out" >>"$work/results/$TREE.failed"
    awk '$2 == "skipped" { print $1 }' "$out" >>"$work/results/$TREE.skipped"
    grep -q '^Summary: ' "$out" || failed "suite::ended_by_itself(exit_$code)"
}

runs run
suite_end
