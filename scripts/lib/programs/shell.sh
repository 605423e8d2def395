#!/usr/bin/env bash
# shell.sh WAY FILE STOP TEMPLATES: saves FILE in one of the ways of the shell, until the file STOP is there.
# TEMPLATES holds documents with "@" at the start of each line, where the name of the save goes.
way=$1 file=$2 stop=$3 templates=$4
saves=0 refused=0
scratch=$(mktemp) || exit 1
trap 'rm -f "$scratch"' EXIT

by_redirect() { # a loop whose output goes to the file, one write a line
    while IFS= read -r line; do printf '%s\n' "${line/@/[$by]}"; done <"$template" >"$file"
}
by_group() { # three programs, one redirection
    {
        head -n 10 "$template" | sed "s/@/[$by]/"
        sed -n "11,20s/@/[$by]/p" "$template"
        tail -n +21 "$template" | sed "s/@/[$by]/"
    } >"$file"
}
by_sed() { # edits in place: writes a new file, renames it over the old one
    sed -i "s/^\[[^]]*\]/[$by]/" "$file"
}
by_cp() { # copies a finished file over it
    sed "s/@/[$by]/" "$template" >"$scratch" && cp "$scratch" "$file"
}
by_tee() { # the end of a pipeline
    sed "s/@/[$by]/" "$template" | tee "$file" >/dev/null
}
by_append() { # a log line in three writes
    {
        printf '{"by": "%s", ' "$by"
        printf '"text": "step %d is done", ' "$saves"
        printf '"end": "%s"}\n' "$by"
    } >>"$file"
}

set -o pipefail
all=("$templates"/*)
while [ ! -e "$stop" ]; do
    by="$way $$ $((saves + refused))"
    template=${all[saves % ${#all[@]}]}
    if "by_$way"; then saves=$((saves + 1)); else refused=$((refused + 1)); fi
    sleep 0.01
done
echo "saves=$saves refused=$refused"
