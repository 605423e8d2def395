#!/usr/bin/env bash
# Breaks the code on purpose, one place at a time, and checks that the tests of the claim behind it fail.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'U'
Usage: scripts/mutate.sh [--list] [--only CLAIM]... [--no-baseline]
  --list         print the mutations of scripts/lib/mutations.py, and which do not fit the code any more; break nothing
  --only CLAIM   only the mutations of this claim (W5), or one of them by its name (w5-every-flush-publishes)
  --no-baseline  do not first check that the tests pass with the code as it is
Works on a copy of the work tree. Takes a minute or so for each mutation. Exit 1 when a mutation survives or cannot be made.
U
}

case ${1:-} in -h | --help) usage && exit ;; esac
need_python
have cargo || [ ! -r "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
exec "$PYTHON" "$LIB/mutate.py" "$@"
