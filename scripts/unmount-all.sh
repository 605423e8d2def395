#!/usr/bin/env bash
# Unmounts every concordfs of this machine.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/unmount-all.sh [--force] [--under DIR] [--list]
  --force      what does not unmount is cut off: open sessions go to .concord/recovered
  --under DIR  only mounts below DIR
  --list       print the mounts, unmount nothing
U
}

force=no under='' list=no
while [ $# -gt 0 ]; do
    case $1 in
    --force) force=yes ;;
    --under) value_of "$@" && under=$(realpath_of "$2") && shift ;;
    --list) list=yes ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

find_concord || true
mapfile -d '' -t mounts < <(concord_mounts)
left=0
for point in "${mounts[@]}"; do
    case $point/ in
    "${under%/}"/*) ;;
    *) continue ;;
    esac
    # %q: a mount point may hold a newline.
    printf -v shown '%q' "$point"
    if [ $list = yes ]; then
        say "$shown ($(mount_state "$point"))"
    elif unmount_gently "$point"; then
        say "unmounted $shown"
    elif [ $force = yes ] && unmount_by_force "$point"; then
        say "unmounted $shown by force"
    else
        warn "still mounted: $shown (in use, or its daemon does not answer; --force cuts it off)"
        left=1
    fi
done
exit $left
