#!/usr/bin/env bash
# The reference model (tests/model.rs): sequences of several processes' operations that proptest makes up, on a real mount and beside the contract; then
# storms of system calls without a model.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/suites/model.sh [--quick] [CASES]
  CASES  how many sequences (default 5000; 200 with --quick); a storm for every hundred
CONCORD_MODEL_SEED    repeats a run (default: another one each time)
CONCORD_MODEL_LENGTH  operations in a sequence at most (default 60)
U
}

cases='' quick=no
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes ;;
    # The trees of other suites are kept with it; here a failing sequence is printed, to be put into tests/model/regressions.rs.
    --keep) ;;
    -h | --help) usage && exit ;;
    [0-9]*) cases=$1 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done
need_fuse
need_python
have cargo || [ ! -r "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
cases=${cases:-$([ $quick = yes ] && echo 200 || echo 5000)}
title "== model"
cd "$REPO" || exit 2
limit 900 cargo test --release --quiet --test model --no-run </dev/null || die "The tests cannot be built"
# Everything lies below it, so that what is left behind is found.
work=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/concord-model-XXXXXX")") || exit 2
export TMPDIR=$work
export CONCORD_MODEL_SEED=${CONCORD_MODEL_SEED:-$(date +%s)}
export CONCORD_MODEL_CASES=$cases CONCORD_MODEL_LENGTH=${CONCORD_MODEL_LENGTH:-60} CONCORD_FUZZ_STORMS=$((cases / 100 + 1))
# A case takes some 0.05 s, a storm 5 s; a machine may be ten times slower.
export CONCORD_TEST_SECONDS=$((600 + cases * 2))
# Mounts, processes and files that the tests left; takes them away.
leftovers() {
    local mount process
    while IFS= read -r -d '' mount; do
        case $mount in "$work"/*) say "a mount: $mount" && detach "$mount" ;; esac
    done < <(concord_mounts)
    for process in /proc/[0-9]*; do
        if { readlink "$process/cwd" && tr '\0' ' ' <"$process/cmdline"; } 2>/dev/null | grep -qF "$work/"; then
            say "a process: $(tr '\0' ' ' <"$process/cmdline" | cut -c1-200)"
            kill -KILL "${process#/proc/}"
        fi
    done
    find "$work" -xdev -mindepth 1 -maxdepth 2 -not -name puppets
    grep -qF " $work/" /proc/self/mountinfo || rm -rf "$work"
}

code=0
if limit $((CONCORD_TEST_SECONDS + 60)) cargo test --release --quiet --test model -- --nocapture --test-threads 1 </dev/null; then
    good "model: $cases sequences and $CONCORD_FUZZ_STORMS storms as the contract has it"
else
    warn "model: a difference; the sequence above belongs into tests/model/regressions.rs"
    code=1
fi
left=$(leftovers)
[ -z "$left" ] || { warn "model: left behind: $left" && code=1; }
exit $code
