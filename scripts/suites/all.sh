#!/usr/bin/env bash
# Every suite, one after the other. Its options go to each; `scripts/suites/NAME.sh --help` tells what they mean there.
set -uo pipefail
. "$(dirname "$0")/../lib/common.sh"

suites=(pjdfstest fsx stress-ng fio dbench sqlite watchers locks model)
case ${1:-} in
'' | --quick | --keep) ;;
-h | --help) say "Usage: scripts/suites/all.sh [--quick] [--keep]   runs ${suites[*]}" && exit ;;
*) say "Usage: scripts/suites/all.sh [--quick] [--keep]" >&2 && exit 2 ;;
esac

summary=() code=0
for suite in "${suites[@]}"; do
    began=$SECONDS
    if "$REPO/scripts/suites/$suite.sh" "$@"; then state=ok; else state=FAILED code=1; fi
    summary+=("$(printf '%-8s %s (%d s)' $state "$suite" $((SECONDS - began)))")
done
title "== summary"
printf '%s\n' "${summary[@]}"
exit $code
