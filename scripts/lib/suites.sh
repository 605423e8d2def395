# Shared by scripts/suites/*: the three trees that a suite runs on, its tools, and the judgement. Source it after common.sh.
# shellcheck shell=bash

# Tools are kept from run to run here, never in the repository.
TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/concordfs-suites
# plain: the backing filesystem. ordinary: a mount without rules. coordinated: a mount with a rule for every file.
TREES=(plain ordinary coordinated)

# suite_begin NAME: checks the machine, builds, makes the working directory $work and cleans it up at the end.
suite_begin() {
    SUITE=$1 quick=${quick:-no} unexplained=0 tree=''
    need_fuse
    need_python
    build_concord
    mkdir -p "$TOOLS" || die "$TOOLS cannot be made: set XDG_CACHE_HOME to a directory that you can write"
    work=$(mktemp -d "${TMPDIR:-/tmp}/concord-suite-XXXXXX") || exit 2
    # Tests that change their user must reach the trees.
    chmod 755 "$work"
    mkdir "$work/results"
    trap suite_cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    title "== $SUITE"
}

suite_cleanup() {
    local code=$? name
    trap - EXIT INT TERM HUP
    cd /
    for name in ordinary coordinated; do
        unmount_by_force "$(tree_path $name)" || warn "$(tree_path $name) is still mounted; 'scripts/unmount-all.sh --force' takes it off"
    done
    if [ "$code" = 0 ] && [ "${keep:-no}" = no ] && ! grep -q " $work/" /proc/self/mountinfo; then
        rm -rf --one-file-system "$work"
    else
        say "Output and trees are kept in $work"
    fi
    exit "$code"
}

# suite_end: the script's exit code.
suite_end() {
    if [ "$unexplained" = 0 ]; then
        good "$SUITE: no unexplained difference"
        exit 0
    fi
    warn "$SUITE: $unexplained unexplained differences"
    exit 1
}

# tree_path NAME: paths of one length, because some tests depend on it.
tree_path() {
    case $1 in
    plain) printf '%s/tree-plain' "$work" ;;
    ordinary) printf '%s/tree-ordin' "$work" ;;
    coordinated) printf '%s/tree-coord' "$work" ;;
    esac
}

# tree_up NAME: makes the tree, mounts over it where that is meant, and sets $tree.
tree_up() {
    tree=$(tree_path "$1")
    mkdir -p "$tree" && chmod 755 "$tree"
    printf 'builtin = false\n' >"$work/$1.toml"
    case $1 in
    plain) return ;;
    coordinated) printf '[[rule]]\npaths = ["**"]\nwait = "%s"\n' "${WAIT:-5s}" >>"$work/$1.toml" ;;
    esac
    limit 60 "$CONCORD" mount --config "$work/$1.toml" "$tree" </dev/null >/dev/null || die "The $1 tree cannot be mounted"
}

# tree_down NAME: unmounts it in an orderly way. What the daemon must never do is a failure of the run: die, panic, hang, or leave
# a shadow that nobody owns.
tree_down() {
    local failed=$work/results/$1.failed state
    cd "$work" || exit 2
    [ "$1" != plain ] || return 0
    state=$(mount_state "$tree")
    [ "$state" = alive ] || echo "daemon::$state" >>"$failed"
    # A program that a test left running ends by itself, or not at all.
    for _ in $(seq 30); do
        limit 60 "$CONCORD" unmount "$tree" </dev/null >"$work/unmount.out" 2>&1 && break
        sleep 0.5
    done
    if is_mounted "$tree"; then
        cat "$work/unmount.out" >&2
        echo "daemon::unmount" >>"$failed"
        unmount_by_force "$tree"
    fi
    grep -qi panicked "$tree/.concord/log" && echo "daemon::panic" >>"$failed"
    [ "$(ls -A "$tree/.concord/shadows")" = journal ] || echo "daemon::shadow_left" >>"$failed"
}

# runs FUNCTION: calls it on each tree; it works in $tree and notes names by `passed`, `failed` and `skipped`.
runs() {
    local name began
    for name in "${TREES[@]}"; do
        TREE=$name began=$SECONDS
        touch "$work/results/$name".{passed,failed,skipped}
        tree_up "$name"
        "$1"
        tree_down "$name"
        judge "$name" $((SECONDS - began))
    done
}

passed() { echo "$1" >>"$work/results/$TREE.passed"; }
failed() { echo "$1" >>"$work/results/$TREE.failed"; }
skipped() { echo "$1" >>"$work/results/$TREE.skipped"; }

# excluded TREE TEST: prints the reason that exclusions/SUITE.txt gives. A line is: tree, test, reason.
excluded() {
    awk -v tree="$1" -v test="$2" '
        !/^#/ && $1 == tree && $2 == test { sub(/^[^ ]+ +[^ ]+ +/, ""); print; exit }' "$REPO/scripts/suites/exclusions/$SUITE.txt"
}

# judge TREE SECONDS: one line of counts, then every failure with its explanation. What fails, or is skipped, on the backing
# filesystem as well is no difference; that is known by the run on the plain tree alone.
judge() {
    local results=$work/results test reason kind here
    local count_excluded=0 count_backing=0 new=() lines=()
    here=$(sort -u "$results/$1.failed" | grep -c .)
    for kind in failed skipped; do
        while IFS= read -r test; do
            reason=$(excluded "$1" "$test")
            if [ "$1" = plain ]; then
                [ $kind = failed ] && count_backing=$((count_backing + 1)) && lines+=("  $test: fails here, so it says nothing about the mounts")
            elif grep -qxF -- "$test" "$results/plain.$kind"; then
                [ $kind = skipped ] || count_backing=$((count_backing + 1))
            elif [ -n "$reason" ]; then
                count_excluded=$((count_excluded + 1)) && lines+=("  $test ($kind): excluded: $reason")
            else
                new+=("  $test ($kind): UNEXPLAINED")
            fi
        done < <(sort -u "$results/$1.$kind")
    done
    [ "$(sort -u "$results/$1.passed" | grep -c .)" != 0 ] || new+=("  nothing passed: UNEXPLAINED")
    printf '%-10s %-12s %5d passed, %d failed (%d on the backing filesystem too), %d skipped; %d excluded, %d unexplained; %d s\n' "$SUITE" "$1" \
        "$(sort -u "$results/$1.passed" | grep -c .)" "$here" "$count_backing" "$(sort -u "$results/$1.skipped" | grep -c .)" \
        "$count_excluded" ${#new[@]} "$2"
    printf '%s\n' "${lines[@]}" "${new[@]}" | grep . || true
    while read -r _ test _; do
        sort -u "$results/$1.passed" | grep -qxF -- "$test" && say "  $test: excluded, but it passes"
    done < <(grep "^$1 " "$REPO/scripts/suites/exclusions/$SUITE.txt")
    unexplained=$((unexplained + ${#new[@]}))
}

# cargo_tool NAME VERSION: the crate's program in $TOOLS/bin, built where it is missing.
cargo_tool() {
    have cargo || [ ! -r "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
    "$TOOLS/bin/$1" --version 2>/dev/null | grep -qF "$2" && return
    say "Building $1 $2 (cargo install) ..."
    limit 900 cargo install --quiet --locked --root "$TOOLS" --version "$2" "$1" </dev/null || die "$1 $2 cannot be built by cargo install"
}

# apt_tool COMMAND=PACKAGE...: installed by apt, or the suite ends.
apt_tool() {
    local pair
    install_missing "$@"
    for pair in "$@"; do have "${pair%%=*}" || die "${pair%%=*} is missing: apt install ${pair#*=}"; done
}

# Options that all suites share: --quick, --keep, and one number.
suite_options() {
    quick=no keep=no number=''
    while [ $# -gt 0 ]; do
        case $1 in
        --quick) quick=yes ;;
        --keep) keep=yes ;;
        -h | --help) usage && exit 0 ;;
        [0-9]*) number=$1 ;;
        *) usage >&2 && exit 2 ;;
        esac
        shift
    done
}
