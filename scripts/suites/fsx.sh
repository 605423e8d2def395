#!/usr/bin/env bash
# fsx (the crate): one program's random reads, writes, maps, truncations and holes on one file, checked byte by byte.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/fsx.sh [--quick] [--keep] [OPERATIONS]
  OPERATIONS  on one file, and again divided among eight files at a time (default 1000000; 20000 with --quick)
CONCORD_FSX_SEED  the first run's seed (default 1); the eight take the next ones
U
}

suite_options "$@"
suite_begin fsx
cargo_tool fsx 0.3.2
operations=${number:-$([ $quick = yes ] && echo 20000 || echo 1000000)}
seed=${CONCORD_FSX_SEED:-1}
# fsx does some 1,000 a second at the worst.
seconds=$((60 + operations / 300))
cat >"$work/fsx.toml" <<'E2'
flen = 262144
[opsize]
max = 65536
min = 0
align = 1
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 5
punch_hole = 5
sendfile = 5
posix_fadvise = 1
copy_file_range = 5
E2

# one NAME SEED OPERATIONS
one() {
    local code=0 out=$work/fsx.$TREE.$1.out
    mkdir -p "$work/artifacts.$TREE"
    limit "$seconds" "$TOOLS/bin/fsx" -f "$work/fsx.toml" -N "$3" -S "$2" -P "$work/artifacts.$TREE" "$tree/$1.dat" </dev/null >"$out" 2>&1 || code=$?
    if [ $code = 0 ] && grep -q 'All operations completed A-OK' "$out"; then
        passed "$1"
    else
        failed "$1"
        say "  $1 on $TREE, seed $2: exit $code; last lines of its output:" && tail -n 5 "$out"
    fi
}

run() {
    local i pids=()
    one alone "$seed" "$operations"
    for i in 1 2 3 4 5 6 7 8; do
        one "beside-$i" $((seed + i)) $((operations / 8)) &
        pids+=($!)
    done
    wait "${pids[@]}"
}

say "$operations operations on one file, then $((operations / 8)) on each of eight; seeds from $seed"
runs run
suite_end
