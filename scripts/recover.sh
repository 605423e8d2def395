#!/usr/bin/env bash
# After a crash of the daemon: clears the dead mount, recovers, mounts again, and prints what was found and kept.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/recover.sh [--force] [--no-mount] [--backing DIR2] DIR [-- MOUNT OPTIONS]
  --force         also when the mount still answers: its open sessions go to .concord/recovered
  --no-mount      leave DIR unmounted
  --backing DIR2  the real files are in DIR2 (default: what a dead mount says of itself)
  MOUNT OPTIONS   passed to 'concord mount'
U
}

force=no mount=yes backing='' directory=''
while [ $# -gt 0 ]; do
    case $1 in
    --force) force=yes ;;
    --no-mount) mount=no ;;
    --backing) value_of "$@" && backing=$2 && shift ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    -*) usage >&2 && exit 2 ;;
    *)
        [ -z "$directory" ] || { usage >&2 && exit 2; }
        directory=$1
        ;;
    esac
    shift
done
[ -n "$directory" ] || { usage >&2 && exit 2; }
find_concord || die "No concord binary: run 'cargo build --release' first"
if [ -z "$backing" ]; then
    backing=$(mount_source "$directory")
    # A mount over the project itself, or a source that is only a name, has no other tree.
    if [ "$backing" = "$(realpath_of "$directory")" ] || [[ $backing != /* ]]; then backing=''; fi
fi
tree=${backing:-$directory}

state=$(mount_state "$directory")
case $state in
none) say "$directory: not mounted" ;;
alive)
    [ $force = yes ] || {
        say "$directory: the mount answers; nothing to recover. --force takes it down all the same."
        limit 20 "$CONCORD" status "$directory"
        exit 0
    }
    ;;
dead) say "$directory: dead mount (its daemon is gone); clearing it" ;;
stuck)
    [ $force = yes ] || die "$directory: the daemon does not answer within 10 s but may be alive; --force cuts it off"
    ;;
esac
if [ "$state" != none ]; then
    unmount_gently "$directory" || unmount_by_force "$directory" || die "$directory: cannot be unmounted; try as root"
fi
[ -d "$tree" ] || die "$tree is not a directory"

limit 300 "$CONCORD" recover "$tree" || die "'concord recover $tree' failed; nothing was mounted, and no content is deleted on failure"

kept=$tree/.concord/recovered
if [ -d "$kept" ] && [ -n "$(ls -A "$kept" 2>/dev/null)" ]; then
    title "Kept in $kept (staged, never published)"
    ls -lA --time-style=long-iso "$kept" | tail -n +2 | tail -n 40
fi

[ $mount = yes ] || exit 0
limit 60 "$CONCORD" mount "$directory" ${backing:+--backing "$backing"} "$@" </dev/null ||
    die "Recovered, but the mount failed; '$CONCORD doctor $directory' says what this machine lacks"
good "$directory is mounted again."
