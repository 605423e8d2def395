#!/usr/bin/env bash
# Many writers and readers on a mount, and a checker that knows every byte ever written.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/soak.sh [--kill-daemon] [--backing] [--kill-writers] [--writers N] [--readers N] [--keep] [SECONDS]
  SECONDS         length of the load (default 30)
  --kill-daemon   SIGKILL the daemon every three seconds, recover, check what is left, mount again
  --backing       mount at a directory beside the tree instead of over it
  --kill-writers  SIGKILL a writer every 0.1 s
  --writers N     default 100
  --readers N     default 20
  --keep          keep the files and the logs
Exit codes: 0, 1 for a broken promise, 2 for usage or a load that could not be run.
U
}

seconds=30 writers=100 readers=20 kill_daemon=no backing=no keep=no options=() where=()
while [ $# -gt 0 ]; do
    case $1 in
    --kill-daemon) kill_daemon=yes ;;
    --backing) backing=yes ;;
    --kill-writers) options+=(--kill-writers) ;;
    --writers) value_of "$@" && writers=$2 && shift ;;
    --readers) value_of "$@" && readers=$2 && shift ;;
    --keep) keep=yes ;;
    -h | --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
    *) seconds=$1 ;;
    esac
    shift
done

need_python
need_fuse
build_concord
work=$(mktemp -d)
mkdir "$work/mnt" "$work/log"
mount=$work/mnt tree=$work/mnt
if [ $backing = yes ]; then
    tree=$work/tree
    mkdir "$tree"
    where=(--backing "$tree")
fi

cleanup() {
    local code=$?
    trap - EXIT INT TERM HUP
    unmount_by_force "$mount" || warn "$mount is still mounted; 'scripts/unmount-all.sh --force' takes it off"
    if [ $keep = yes ] || [ $code = 1 ]; then
        say "Files, .concord and logs are kept in $work"
    elif ! is_mounted "$mount"; then
        rm -rf --one-file-system "$work"
    fi
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

common=(--log "$work/log" --concord "$CONCORD")
load=(--writers "$writers" --readers "$readers")

if [ $kill_daemon = yes ]; then
    rounds=$((seconds / 3))
    [ $rounds -gt 0 ] || rounds=1
    say "$writers writers and $readers readers; the daemon is killed $rounds times ..."
    code=0
    limit $((rounds * 60 + 120)) "$PYTHON" "$LIB/soak.py" crash --dir "$mount" "${common[@]}" "${load[@]}" --rounds $rounds \
        "${where[@]}" "${options[@]}" </dev/null || code=$?
    [ $code = 0 ] && good "After every kill each file was whole, and nothing acknowledged was lost."
    exit $code
fi

limit 60 "$CONCORD" mount "$mount" "${where[@]}" </dev/null || exit 2
say "$writers writers and $readers readers for $seconds s ..."
code=0
limit $((${seconds%.*} + 90)) "$PYTHON" "$LIB/soak.py" load --dir "$mount" "${common[@]}" "${load[@]}" --seconds "$seconds" \
    "${options[@]}" </dev/null || code=$?
[ $code -lt 2 ] || exit 2
limit 300 "$PYTHON" "$LIB/soak.py" check --dir "$mount" "${common[@]}" </dev/null || code=$?
unmount_gently "$mount" || {
    warn "It does not unmount, though nobody has a file open"
    code=1
}
say "The same, unmounted:"
limit 300 "$PYTHON" "$LIB/soak.py" check --dir "$tree" "${common[@]}" </dev/null || code=$?
[ $code = 0 ] && good "Every read was one whole document, and no acknowledged save was lost."
exit $code
