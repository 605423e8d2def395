# Shared by the scripts: messages, time limits, and what /proc says about mounts. Source it; it runs nothing by itself.
# shellcheck shell=bash

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LIB=$REPO/scripts/lib
# Another binary than the one that this tree builds.
CONCORD=${CONCORD:-${CARGO_TARGET_DIR:-$REPO/target}/release/concord}

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
    BOLD='' RED='' GREEN='' PLAIN=''
fi

say() { printf '%s\n' "$*"; }
title() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
good() { printf '%s%s%s\n' "$GREEN" "$*" "$PLAIN"; }
warn() { printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2; }
die() {
    warn "$*"
    exit 1
}
# value_of "$@": ends the script, as wrong usage, unless the option in $1 has its value in $2.
value_of() {
    if [ $# -lt 2 ] || [ -z "$2" ] || [ "${2#--}" != "$2" ]; then
        warn "$1 needs a value"
        usage >&2
        exit 2
    fi
}
have() { command -v "$1" >/dev/null 2>&1; }

# limit SECONDS COMMAND...: ends COMMAND after SECONDS (exit 124), by SIGKILL five seconds later. At a terminal it stays in the
# foreground, so that Ctrl-C reaches it; elsewhere timeout(1) ends the whole process group.
limit() {
    local seconds=$1
    shift
    if [ -t 0 ]; then
        timeout --foreground -k 5 "$seconds" "$@"
    else
        timeout -k 5 "$seconds" "$@"
    fi
}

# concord_table: of every concordfs of this machine, newest first, its device number, mount point and source, each ended by a NUL.
concord_table() {
    local line fields device point source
    local -a found=()
    while IFS= read -r line; do
        fields=${line##* - }
        [ "${fields%% *}" = fuse.concordfs ] || continue
        read -r _ _ device _ point _ <<<"${line%% - *}"
        read -r _ source _ <<<"$fields"
        # proc_pid_mountinfo(5) writes blanks and backslashes as three octal digits. To %b these begin with a 0, or a digit of the name after them counts too.
        printf -v point '%b' "${point//\\/\\0}"
        printf -v source '%b' "${source//\\/\\0}"
        found=("$device" "$point" "$source" "${found[@]}")
    done <"${MOUNTINFO:-/proc/self/mountinfo}"
    [ ${#found[@]} = 0 ] || printf '%s\0' "${found[@]}"
}

# concord_mounts: the mount points of every concordfs of this machine, newest first, each ended by a NUL.
concord_mounts() {
    local point
    while IFS= read -r -d '' _ && IFS= read -r -d '' point && IFS= read -r -d '' _; do
        printf '%s\0' "$point"
    done < <(concord_table)
}

# concord_at DIR: sets DEVICE and SOURCE to the device number and the source of the concordfs at DIR, the newest one; else fails.
concord_at() {
    local point wanted
    wanted=$(realpath_of "$1")
    while IFS= read -r -d '' DEVICE && IFS= read -r -d '' point && IFS= read -r -d '' SOURCE; do
        [ "$point" = "$wanted" ] && return 0
    done < <(concord_table)
    return 1
}

# is_mounted DIR: DIR is the mount point of a concordfs. Asks the kernel's table only, so a dead or stuck mount answers too.
is_mounted() {
    local DEVICE SOURCE
    concord_at "$1"
}

# mount_source DIR: the tree that the concordfs at DIR shows, as the kernel's table says.
mount_source() {
    local DEVICE SOURCE=''
    concord_at "$1" || return 0
    # concordfs(pid4711):/srv/project
    [[ $SOURCE =~ ^concordfs\(pid[0-9]+\):(.*)$ ]] && SOURCE=${BASH_REMATCH[1]}
    printf '%s\n' "$SOURCE"
}

# daemon_of DIR: the pid of the daemon behind the concordfs at DIR, while a process of that number and of this program runs.
daemon_of() {
    local DEVICE SOURCE pid
    concord_at "$1" && [[ $SOURCE =~ ^concordfs\(pid([0-9]+)\): ]] || return 0
    pid=${BASH_REMATCH[1]}
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = concord ] && ! is_in_state ZX "$pid"; then echo "$pid"; fi
}

# has_open PID FILE: the process has FILE open. Of other users' processes only root knows.
has_open() {
    local fd
    for fd in "/proc/$1/fd"/*; do
        [ "$(readlink -- "$fd")" != "$2" ] || return 0
    done
    return 1
}

# is_in_state LETTERS PID: the process is in one of these states of proc_pid_stat(5): stopped by a signal (T, t), ended (Z, X) ...
is_in_state() { grep -q "^State:[[:space:]]*[$1]" "/proc/$2/status" 2>/dev/null; }

# realpath_of DIR: the absolute path without touching DIR itself, which may be a dead mount.
realpath_of() {
    local path=$1 parent
    while [ "${path%/}" != "$path" ] && [ "$path" != / ]; do path=${path%/}; done
    case $path in
    . | .. | */. | */..) (cd "$path" 2>/dev/null && pwd -P) || printf '%s\n' "$path" ;;
    */*)
        parent=$(cd "${path%/*}/" 2>/dev/null && pwd -P) || parent=${path%/*}
        printf '%s/%s\n' "${parent%/}" "${path##*/}"
        ;;
    *) printf '%s/%s\n' "$(pwd -P)" "$path" ;;
    esac
}

# mount_state DIR: "none", "alive", "dead" (the daemon is gone: ENOTCONN) or "stuck" (stopped, or no answer within ten seconds).
mount_state() {
    local answer daemon code=0
    is_mounted "$1" || {
        echo none
        return
    }
    daemon=$(daemon_of "$1")
    # Who asks a stopped one would only wait.
    if [ -n "$daemon" ] && is_in_state Tt "$daemon"; then
        echo stuck
        return
    fi
    # Of a mount that is closed to who asks the first says that all is well.
    answer=$(LC_ALL=C timeout -k 1 10 sh -c 'stat -f -- "$1" && stat -- "$1"' sh "$1" 2>&1 >/dev/null) || code=$?
    case $code:$answer in
    0:*) echo alive ;;
    *"not connected"* | *"onnection aborted"*) echo dead ;;
    # A user's mount is closed to everybody else, dead or alive.
    *"ermission denied"*) [ -n "$daemon" ] && echo alive || echo dead ;;
    *) echo stuck ;;
    esac
}

# abort_connection DIR: ends every request that waits on the mount at DIR, through fusectl (Documentation/filesystems/fuse).
# The only thing that frees processes whose request a stuck daemon has taken.
abort_connection() {
    local DEVICE SOURCE abort
    concord_at "$1" || return 0
    abort=/sys/fs/fuse/connections/${DEVICE#*:}/abort
    [ ! -w "$abort" ] || echo 1 >"$abort"
}

# detach DIR: takes the mount out of the tree at once, whoever still uses it.
detach() {
    umount -l -- "$1" 2>/dev/null || fusermount3 -u -z -- "$1" 2>/dev/null || fusermount -u -z -- "$1" 2>/dev/null
}

# unmount_gently DIR: waits for open sessions. 0 when nothing is mounted there any more.
unmount_gently() {
    local state
    state=$(mount_state "$1")
    if [ "$state" = dead ]; then
        detach "$1"
    elif [ -x "$CONCORD" ]; then
        limit 60 "$CONCORD" unmount "$1"
    # umount(8) would wait for a daemon that does not answer.
    elif [ "$state" = alive ]; then
        limit 60 umount -- "$1" || limit 60 fusermount3 -u -- "$1"
    fi
    ! is_mounted "$1"
}

# unmount_by_force DIR: open sessions go to .concord/recovered; a daemon that does not answer is cut off, and ended: it serves nobody any more and has the store.
unmount_by_force() {
    local daemon tree
    is_mounted "$1" || return 0
    daemon=$(daemon_of "$1") tree=$(mount_source "$1")
    [ -x "$CONCORD" ] && limit 60 "$CONCORD" unmount "$1" --force
    is_mounted "$1" || return 0
    abort_connection "$1"
    detach "$1"
    is_mounted "$1" && return 1
    [ -z "$daemon" ] || end_daemon "$daemon" "$tree"
}

# end_daemon PID TREE: ends the daemon that has lost its mount of TREE. By itself it has some seconds for that, unless a signal has stopped it.
end_daemon() {
    local tries
    for tries in $(seq 100); do
        has_open "$1" "$2" || return 0
        if [ "$tries" = 50 ] || is_in_state Tt "$1"; then
            kill -KILL "$1" || return 1
        fi
        sleep 0.1
    done
    return 1
}

# find_concord: where the tree has no binary, the one on the PATH.
find_concord() {
    [ -x "$CONCORD" ] || CONCORD=$(command -v concord)
}

# build_concord: the release binary, unless CONCORD names one that is there.
build_concord() {
    if [ "$CONCORD" != "${CARGO_TARGET_DIR:-$REPO/target}/release/concord" ]; then
        [ -x "$CONCORD" ] || die "CONCORD=$CONCORD cannot be run: name a concord binary, or unset it to build one"
        return
    fi
    have cargo || [ ! -r "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
    have cargo || die "cargo is missing: install Rust 1.95 or later from https://rustup.rs and run this again"
    say "Building (cargo build --release) ..."
    limit 1200 cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" || die "The build failed; the messages above say why"
}

# need_fuse: ends the script with one clear message when this machine cannot mount.
need_fuse() {
    local lacks=()
    if [ ! -e /dev/fuse ] && [ "$(id -u)" = 0 ]; then
        modprobe fuse 2>/dev/null || true
    fi
    if [ ! -e /dev/fuse ]; then
        lacks+=("/dev/fuse is missing: load it with 'modprobe fuse'; in a container start with --device /dev/fuse --cap-add SYS_ADMIN")
    elif [ "$(id -u)" = 0 ] && ! (exec 3<>/dev/fuse) 2>/dev/null; then
        # For others fusermount3, which is setuid, opens it.
        lacks+=("/dev/fuse cannot be opened, though it is there: a container must allow the device, --device /dev/fuse")
    fi
    if [ "$(id -u)" != 0 ] && ! have fusermount3; then
        lacks+=("fusermount3 is missing, which users other than root mount with: apt install fuse3")
    fi
    [ ${#lacks[@]} = 0 ] && return
    warn "This machine cannot mount a FUSE filesystem:"
    printf '  - %s\n' "${lacks[@]}" >&2
    say "'$CONCORD doctor' lists everything that this machine gives and lacks." >&2
    exit 1
}

# need_python: most helpers are Python 3 without packages.
need_python() {
    PYTHON=${PYTHON:-$(command -v python3)} || die "python3 is missing: apt install python3"
}

# not_run WHAT WHY: says that something optional could not be done.
not_run() { warn "$1: $2"; }

# can_link: a C compiler is there and the C library to link with, which cargo needs. The one comes without the other.
can_link() { have cc && [ -e "$(cc -print-file-name=crti.o)" ]; }

# install_missing COMMAND=PACKAGE...: these and what cargo links with; apt where it can; a package that cannot be had is reported, no failure by itself.
install_missing() {
    local pair as_root=() packages=()
    can_link || packages+=(gcc libc6-dev)
    for pair in "$@"; do have "${pair%%=*}" || packages+=("${pair#*=}"); done
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! have apt-get; then
        not_run "installing ${packages[*]}" "no apt-get here"
        return 0
    fi
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || {
            not_run "installing ${packages[*]}" "not root, no sudo without a password"
            return 0
        }
        as_root=(sudo -n)
    fi
    export DEBIAN_FRONTEND=noninteractive
    limit 120 "${as_root[@]}" apt-get update -qq </dev/null || true
    # One by one: a name that this release does not have must not keep the others out.
    for pair in "${packages[@]}"; do
        limit 180 "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$pair" </dev/null >/dev/null 2>&1 ||
            not_run "installing $pair" "apt-get could not"
    done
}
