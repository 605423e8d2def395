#!/usr/bin/env bash
# Measures concordfs beside the plain filesystem and bindfs; writes docs/PERFORMANCE.md.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/bench.sh [--quick] [--size MIB] [--rounds N] [--tree DIR] [--work DIR] [--out FILE]
  --quick     under two minutes: small file, few rounds; the report goes to the terminal only unless --out is given
  --size MIB  the big file (default 1024)
  --rounds N  default 7
  --tree DIR  a real tree for git, grep and tar (default: the sources in ~/.cargo/registry; --quick: a generated one)
  --work DIR  where to measure (default a new directory in $TMPDIR); its filesystem is the one that is measured
  --out FILE  default docs/PERFORMANCE.md
Exit codes: 0, 1 when a target is missed, 2 for usage.
U
}

quick=no size=1024 rounds=7 tree='' parent=${TMPDIR:-/tmp} out='' many=200000 tree_files=10000
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes ;;
    --size) value_of "$@" && size=$2 && shift ;;
    --rounds) value_of "$@" && rounds=$2 && shift ;;
    --tree) value_of "$@" && tree=$2 && shift ;;
    --work) value_of "$@" && parent=$2 && shift ;;
    --out) value_of "$@" && out=$2 && shift ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done
options=()
if [ $quick = yes ]; then
    size=64 rounds=3 many=20000 tree_files=1500
    options=(--quick --count 400 --contend-s 2)
fi

need_python
need_fuse
have git || die "git is missing: apt install git"
build_concord
say "Building the loops ..."
limit 900 cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --example bench_loops || die "The loops do not build"

work=$(mktemp -d -p "$parent" concord-bench.XXXXXX)
bindfs=no
cleanup() {
    local code=$?
    trap - EXIT INT TERM HUP
    unmount_by_force "$work/concord" || warn "$work/concord is still mounted; 'scripts/unmount-all.sh --force' takes it off"
    if [ $bindfs = yes ]; then detach "$work/bindfs" || warn "$work/bindfs (bindfs) is still mounted"; fi
    # rm never crosses into a mount that is left.
    rm -rf --one-file-system "$work" || true
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

sides=(native concord)
if have bindfs; then sides+=(bindfs); else warn "bindfs is missing (apt install bindfs): measured without it"; fi

# tree_source: a directory with some 10,000 files.
tree_source() {
    local registry
    if [ -n "$tree" ]; then
        echo "$tree"
        return
    fi
    [ $quick = yes ] || for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
        if [ "$(find "$registry" -type f 2>/dev/null | wc -l)" -ge 5000 ]; then
            echo "$registry"
            return
        fi
    done
    "$PYTHON" "$LIB/make_files.py" "$work/generated" "$tree_files" --sources
    echo "$work/generated"
}

say "Making the files in $work ..."
source=$(tree_source)
for side in "${sides[@]}"; do
    mkdir -p "$work/$side/tree"
    cp -r "$source"/. "$work/$side/tree"
    git -C "$work/$side/tree" init -q
    git -C "$work/$side/tree" add -A
    git -C "$work/$side/tree" -c user.name=bench -c user.email=bench@localhost commit -qm tree
    dd if=/dev/zero of="$work/$side/big.bin" bs=1M count="$size" status=none
    # Into the cache again by the kernel's own read-ahead: how large its pieces are there would else depend on how full memory was when the file was written.
    dd of="$work/$side/big.bin" oflag=nocache conv=notrunc,fdatasync count=0 status=none
    cat "$work/$side/big.bin" >/dev/null
    head -c 4096 /dev/zero >"$work/$side/small.bin"
    head -c 4096 /dev/zero | tee "$work/$side/coordinated.md" >"$work/$side/contended.md"
done
tar -cf "$work/tree.tar" -C "$source" .
"$PYTHON" "$LIB/make_files.py" "$work/concord/many" "$many"
sync -f "$work"

limit 60 "$CONCORD" mount "$work/concord" </dev/null || die "The mount failed; '$CONCORD doctor' says what this machine lacks"
if [ ${#sides[@]} = 3 ]; then
    limit 60 bindfs -o nonempty "$work/bindfs" "$work/bindfs" </dev/null && bindfs=yes
    if [ $bindfs = no ]; then rm -rf "$work/bindfs"; fi
fi

code=0
limit 7200 "$PYTHON" "$LIB/bench.py" --work "$work" --loops "${CARGO_TARGET_DIR:-$REPO/target}/release/examples/bench_loops" \
    --concord "$CONCORD" --out "$work/report.md" --rounds "$rounds" --size-mib "$size" --many "$many" "${options[@]}" </dev/null || code=$?
[ -s "$work/report.md" ] || die "No report: the messages above say why"
if [ $quick = yes ] && [ -z "$out" ]; then
    cat "$work/report.md"
else
    out=${out:-$REPO/docs/PERFORMANCE.md}
    # What was added by hand stays.
    if [ -e "$out" ]; then { echo && sed -n '/^## Where a target is missed/,$p' "$out"; } >>"$work/report.md"; fi
    cp "$work/report.md" "$out"
    say "Written to $out"
fi
exit $code
