#!/usr/bin/env bash
# Shows what concordfs does: ten unmodified programs save the same files, first in a plain directory, then under the mount.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/quickstart.sh [--seconds N] [--keep] [DIR]
  DIR          mount over this directory; the programs work in DIR/concord-quickstart (default: a sample project under $TMPDIR)
  --seconds N  length of each half (default 5)
  --keep       leave the mount and the files there
U
}

seconds=5 keep=no directory=''
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) value_of "$@" && seconds=$2 && shift ;;
    --keep) keep=yes ;;
    -h | --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
    *) directory=$1 ;;
    esac
    shift
done

wanted=(python3=python3)
[ "$(id -u)" = 0 ] || wanted+=(fusermount3=fuse3)
install_missing "${wanted[@]}"
need_python
need_fuse
results=$(mktemp -d)
sample=''
if [ -z "$directory" ]; then
    sample=$(mktemp -d)
    mkdir "$sample/project"
    directory=$sample/project
fi
[ -d "$directory" ] || die "$directory is not a directory: name one, or none for a sample project"
is_mounted "$directory" && die "$directory is a concord mount already: run 'scripts/unmount-all.sh' or name another directory"
directory=$(cd "$directory" && pwd -P)
playground=$directory/concord-quickstart
[ ! -e "$playground" ] || die "$playground is there already: remove it, the programs would overwrite it"

mounted_here=no
cleanup() {
    local code=$?
    trap - EXIT INT TERM HUP
    rm -rf "$results"
    if [ "$keep" = yes ] && [ $code = 0 ]; then exit 0; fi
    if [ $mounted_here = yes ] && ! unmount_gently "$directory" 2>/dev/null; then
        unmount_by_force "$directory" || warn "$directory is still mounted; 'scripts/unmount-all.sh --force' takes it off"
    fi
    if ! is_mounted "$directory"; then
        rm -rf --one-file-system "$playground"
        if [ -n "$sample" ]; then rm -rf --one-file-system "$sample"; fi
    fi
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

build_concord

# half NAME: runs the load for $seconds; its result goes to $results/NAME.json.
half() {
    limit $((${seconds%.*} + 90)) "$PYTHON" "$LIB/hammer.py" run "$playground" --seconds "$seconds" --out "$results/$1.json" \
        </dev/null || die "The load could not be run ($1)"
}

say "Ten programs save the same few files for $seconds s: Python, Node (where it is there), shell, sed -i, cp, tee, >>."
say "Readers check every read. An eleventh program is killed in the middle of its saves."
say "  1. in $playground, a plain directory ..."
half plain
rm -rf --one-file-system "$playground"

limit 60 "$CONCORD" mount "$directory" </dev/null || {
    is_mounted "$directory" && mounted_here=yes
    die "The mount failed; '$CONCORD doctor $directory' says what this machine lacks"
}
mounted_here=yes
say "  2. the same, after 'concord mount $directory' ..."
half mounted

title "What happened to the files"
verdict=0
"$PYTHON" "$LIB/hammer.py" table "$results/plain.json" "$results/mounted.json" || verdict=$?

title "concord history concord-quickstart/STATE.md (the newest eight)"
limit 20 "$CONCORD" history "$playground/STATE.md" >"$results/history" || verdict=1
head -n 9 "$results/history"
[ -s "$results/history" ] || warn "No history: every save should have left one version"

say
[ $verdict = 0 ] || die "FAILED: a read under the mount was not one whole save, or there is no history; see the table"
good "Under the mount every read was one whole save of one program, and the killed writers left nothing behind."
if [ "$keep" = yes ]; then
    say "Still mounted. Look around:"
    say "  $CONCORD status $directory"
    say "  $CONCORD diff $playground/STATE.md@1"
    say "  $CONCORD unmount $directory"
fi
