#!/usr/bin/env bash
# fio with verification: what was written by one I/O engine is read back and its checksums compared.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"
. "$LIB/suites.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/fio.sh [--quick] [--keep] [MIB]
  MIB  size of each of a job's two files (default 256; 16 with --quick)
U
}

suite_options "$@"
suite_begin fio
apt_tool fio=fio
size=${number:-$([ $quick = yes ] && echo 16 || echo 256)}

# one NAME OPTIONS...
one() {
    local name=$1 code=0 out=$work/fio.$TREE.$1.out
    shift
    mkdir "$tree/$name"
    limit 900 fio --name="$name" --directory="$tree/$name" --size="${size}M" --numjobs=2 --verify=crc32c --verify_fatal=1 --do_verify=1 \
        --randseed=7 --fallocate=none --group_reporting --verify_state_save=0 "$@" </dev/null >"$out" 2>&1 || code=$?
    if [ $code = 0 ] && ! grep -qE 'verify:|error=|fio: .*error' "$out"; then
        passed "$name"
    elif grep -q 'engine .* not loadable\|Invalid argument.*direct' "$out"; then
        skipped "$name"
    else
        failed "$name"
        say "  $name on $TREE: exit $code" && grep -E 'verify:|error|fio:' "$out" | head -n 5
    fi
    rm -rf "${tree:?}/$name"
}

run() {
    local engine
    for engine in psync mmap libaio; do
        one "$engine-write" --ioengine=$engine --iodepth=8 --rw=write --bs=64k
        one "$engine-randwrite" --ioengine=$engine --iodepth=8 --rw=randwrite --bsrange=4k-64k
        one "$engine-randrw" --ioengine=$engine --iodepth=8 --rw=randrw --bs=4k --verify_backlog=64
    done
    one psync-fsync --ioengine=psync --rw=randwrite --bs=4k --fsync=64 --io_size=4M
    one libaio-direct --ioengine=libaio --direct=1 --iodepth=8 --rw=randwrite --bs=4k
    one psync-append --ioengine=psync --rw=write --bs=4k --file_append=1
}

say "$(fio --version): files of $size MiB"
runs run
suite_end
