# As count.py, by flock(1), in the ways of its man page: flock.sh WAY TURNS.
way=$1 turns=$2
add() { n=$(sed "s/[^0-9]//g" count.json) && [ -n "$n" ] && printf '{"count": %d}' $((n + 1)) >count.json; }
case $way in
flock-shell-self)
    # The script locks itself.
    [ "$FLOCKER" = "$0" ] || exec env FLOCKER="$0" flock -e count.json sh "$0" "$@"
    turn=0
    while [ $turn -lt "$turns" ]; do add && turn=$((turn + 1)) || exit 1; done
    exit
    ;;
esac
turn=0
while [ $turn -lt "$turns" ]; do
    case $way in
    flock-command) flock count.json sh -c 'n=$(sed "s/[^0-9]//g" count.json); printf "{\"count\": %d}" $((n + 1)) >count.json' ;;
    flock-subshell) (flock 9 && add) 9>lock.json ;;
    flock-subshell-rw) (flock 9 && add) 9<>count.json ;;
    flock-subshell-read) (flock 9 && add) 9<count.json ;;
    flock-subshell-append) (flock 9 && add) 9>>count.json ;;
    flock-refused) until (flock -n 9 || exit 1 && add) 9>lock.json; do sleep 0.01; done ;;
    flock-patient) (flock -w 600 9 || exit 1 && add) 9>lock.json ;;
    flock-exec) exec 9<>lock.json && flock 9 && add && flock -u 9 ;;
    flock-shared-first) (flock -s 9 && flock -u 9 && flock -x 9 && add) 9<>count.json ;;
    flock-closed) flock -o lock.json sh -c 'n=$(sed "s/[^0-9]//g" count.json); printf "{\"count\": %d}" $((n + 1)) >count.json' ;;
    *) exit 2 ;;
    esac || exit 1
    turn=$((turn + 1))
done
