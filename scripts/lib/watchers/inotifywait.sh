#!/bin/sh
# inotifywait -m on PATH for EVENTS: STATE.md is read at each; what was read goes out as a line.
inotifywait -m -e "$2" "$1" 2>&1 | while read -r said; do
    case $said in
    'Setting up'*) ;;
    'Watches established.') echo ready ;;
    *) echo "saw $(tail -n 1 STATE.md 2>/dev/null)" ;;
    esac
done
