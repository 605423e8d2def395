#!/usr/bin/env bash
# fsx (the crate): one program's random reads, writes, maps, truncations and holes on one file, checked byte by byte.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/fsx.sh [--quick] [--keep] [OPERATIONS]
  OPERATIONS  on one file, and again divided among eight files at a time (default 1000000; 20000 with --quick)
CONCORD_FSX_SEED  the first run's seed (default 1). A run has 25000 operations at most, and the next run on the file takes the next seed; the
                  eight begin 1000, 2000, ... after it
U
}

suite_options "$@"
suite_begin fsx
cargo_tool fsx 0.3.2
operations=${number:-$([ $quick = yes ] && echo 20000 || echo 1000000)}
seed=${CONCORD_FSX_SEED:-1}
# fsx 0.3.2 never unmaps what it mapped to read. Some 400,000 operations of one process are more maps than the kernel gives it (vm.max_map_count), and
# every version that is mapped somewhere keeps its descriptor in the daemon.
piece=25000
# fsx does some 500 a second on a loaded machine with two cores, and less where it runs beside other suites.
seconds=$((60 + piece / 50))
# min: with 0, fsx asks posix_fallocate(3) for 0 bytes about once in a million operations, which is EINVAL everywhere.
cat >"$work/fsx.toml" <<'E2'
flen = 262144
[opsize]
max = 65536
min = 1
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
    local name=$1 seed=$2 left=$3 code out=$work/fsx.$TREE.$1.out
    mkdir -p "$work/artifacts.$TREE"
    while [ "$left" -gt 0 ]; do
        code=0
        limit "$seconds" "$TOOLS/bin/fsx" -f "$work/fsx.toml" -N $((left < piece ? left : piece)) -S "$seed" -P "$work/artifacts.$TREE" "$tree/$name.dat" \
            </dev/null >"$out" 2>&1 || code=$?
        if [ $code != 0 ] || ! grep -q 'All operations completed A-OK' "$out"; then
            failed "$name"
            say "  $name on $TREE, seed $seed: exit $code; last lines of its output:" && tail -n 5 "$out"
            return
        fi
        left=$((left - piece)) seed=$((seed + 1))
    done
    passed "$name"
}

run() {
    local i pids=()
    one alone "$seed" "$operations"
    for i in 1 2 3 4 5 6 7 8; do
        one "beside-$i" $((seed + i * 1000)) $((operations / 8)) &
        pids+=($!)
    done
    wait "${pids[@]}"
}

say "$operations operations on one file, then $((operations / 8)) on each of eight; seeds from $seed"
runs run
suite_end
