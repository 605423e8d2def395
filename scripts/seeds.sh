#!/bin/sh
# Runs the five systems of tests/seeds.rs on a mount, with as many processes of each as the argument says (10).
set -eu
cd "$(dirname "$0")/.."
CONCORD_SEEDS_PROCESSES="${1:-10}" exec cargo test --release --test seeds -- --nocapture --test-threads=1
