#!/usr/bin/env bash
# Installs what is missing and runs everything: format, lints, tests, and a short quickstart.
set -uo pipefail
. "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/test.sh [--quick]
  --quick    unit tests and helper checks only; no mount, no installation
CONCORD_TEST_SECONDS  the whole run's limit in seconds (default 1500)
U
}

quick=no
case ${1:-} in
'') ;;
--quick) quick=yes ;;
-h | --help) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac
cd "$REPO" || exit 2
# Everything that the tests make or mount goes here, so that cleaning up touches nothing else.
TMPDIR=$(mktemp -d) || exit 2
export TMPDIR
chmod 755 "$TMPDIR"
end=$((SECONDS + ${CONCORD_TEST_SECONDS:-1500}))
summary=()
failed=0

cleanup() {
    local code=$?
    trap - EXIT INT TERM HUP
    "$REPO/scripts/unmount-all.sh" --force --under "$TMPDIR" </dev/null || code=1
    "$REPO/scripts/unmount-all.sh" --list --under "$TMPDIR" | grep -q . || rm -rf --one-file-system "$TMPDIR"
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# step NAME SECONDS COMMAND...: runs it within its limit and what is left of the whole run's.
step() {
    local name=$1 seconds=$2 left=$((end - SECONDS)) began=$SECONDS code=0
    shift 2
    title "== $name"
    [ "$left" -gt 5 ] || left=5
    [ "$seconds" -lt "$left" ] || seconds=$left
    limit "$seconds" "$@" </dev/null || code=$?
    case $code in
    0) summary+=("ok       $name ($((SECONDS - began)) s)") ;;
    124 | 137) failed=1 && summary+=("TIMEOUT  $name (limit $seconds s)") ;;
    *) failed=1 && summary+=("FAILED   $name (exit $code)") ;;
    esac
    return $code
}

# Overrides common.sh: the summary tells.
not_run() { summary+=("not run  $1: $2"); }

# component NAME COMMAND: a part of the Rust toolchain; official images come without rustfmt and clippy.
component() {
    cargo "$2" --version >/dev/null 2>&1 && return 0
    have rustup && limit 120 rustup component add "$1" </dev/null >/dev/null 2>&1
    cargo "$2" --version >/dev/null 2>&1
}

have cargo || [ ! -r "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
have cargo || die "cargo is missing: install Rust 1.95 or later from https://rustup.rs"
if [ $quick = no ]; then
    title "== what is missing"
    install_missing fusermount3=fuse3 setfacl=acl setfattr=attr python3=python3 git=git ps=procps node=nodejs mkfs.ext4=e2fsprogs strace=strace \
        sponge=moreutils jq=jq rsync=rsync vim=vim nano=nano make=make patch=patch \
        entr=entr rg=ripgrep
    [ -e /dev/fuse ] || modprobe fuse 2>/dev/null || true
fi

if component rustfmt fmt; then step "cargo fmt --check" 60 cargo fmt --check; else not_run "cargo fmt" "rustfmt cannot be had"; fi
# The release profile throughout: the binary that quickstart runs is the one that is tested, and nothing is built twice.
if component clippy clippy; then
    step "cargo clippy" 600 cargo clippy --release --all-targets --quiet -- -D warnings
else
    not_run "cargo clippy" "clippy cannot be had"
fi
need_python
step "helper scripts" 60 "$PYTHON" "$LIB/self_test.py"

log=$TMPDIR/cargo-test.log
tests=(cargo test --release --no-fail-fast)
[ $quick = no ] || tests+=(--lib --bins)
step "cargo build" 900 cargo build --release --quiet
# pipefail carries cargo's exit code through tee.
# shellcheck disable=SC2016
step "cargo test" 1200 bash -o pipefail -c '"${@:2}" 2>&1 | tee "$1"' tests "$log" "${tests[@]}"

if [ $quick = no ]; then
    step "quickstart" 240 "$REPO/scripts/quickstart.sh" --seconds 3
    step "soak" 120 "$REPO/scripts/soak.sh" --writers 20 --readers 5 5
    # The short ones of scripts/suites; docs/CONFORMANCE.md has the results of all. Building their tools may take minutes.
    if [ "$(id -u)" = 0 ]; then
        step "pjdfstest" 600 "$REPO/scripts/suites/pjdfstest.sh" --quick
    else
        not_run "pjdfstest" "it changes its user, which only root can"
    fi
    step "fsx" 600 "$REPO/scripts/suites/fsx.sh" --quick
fi

title "== cargo test's results"
grep -E '^(     Running|   Doc-tests|test result:|error(\[|:)|test .* FAILED|---- .* stdout ----)' "$log" || say "none: cargo test did not run"
title "== summary"
printf '%s\n' "${summary[@]}"
# Once more, so that the last lines hold the sum whatever came before.
passed=$(awk '/^test result:/ { p += $4; f += $6; i += $8 } END { printf "test result in all: %d passed; %d failed; %d ignored", p, f, i }' "$log")
say "$passed"
# Cargo names a target that ended without a result here only.
grep -E '^(test .* FAILED|error(\[|:)|    `)' "$log" | sort -u
if [ $failed = 0 ]; then good "All passed."; else warn "FAILED"; fi
exit $failed
