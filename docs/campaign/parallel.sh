#!/usr/bin/env bash
# A campaign in shards, some at a time, with GNU parallel; then the sum, whose exit code is that of
# the campaign. Run it again after an interruption: shards that have their results are left out.
#
#   parallel.sh SHARDS JOBS DIR --repeat N --seed S [OPTIONS] GUEST
set -euo pipefail

shards=$1 jobs=$2 dir=$3
shift 3
mkdir -p "$dir"

# A shard with a failure must not end the others, and the sum has its exit code.
for ((shard = 1; shard <= shards; shard++)); do
    [ -s "$dir/$shard.json" ] || echo "$shard"
done | parallel --quote --jobs "$jobs" --results "$dir/{}.txt" \
    minivmm -q --shard "{}/$shards" --result "$dir/{}.json" "$@" >/dev/null 2>&1 || true

results=()
for ((shard = 1; shard <= shards; shard++)); do
    results+=("$dir/$shard.json")
done
minivmm merge --result "$dir/all.json" "${results[@]}"
