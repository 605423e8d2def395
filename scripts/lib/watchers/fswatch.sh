#!/bin/sh
# fswatch on PATH: STATE.md is read at each of its events, which are said without end; what was read goes out as a line.
fswatch --monitor inotify_monitor --latency 0.1 "$1" | {
    # It does not say when it watches.
    sleep 1
    echo ready
    while read -r _; do echo "saw $(tail -n 1 STATE.md 2>/dev/null)"; done
}
