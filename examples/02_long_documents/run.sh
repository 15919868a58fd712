#!/usr/bin/env bash
# Documents longer than one rank holds. A rank takes 2048 tokens at a time; documents reach 6000, so some are shared by two
# ranks, some by three, and most by none: the planner decides for each.
# Usage: run.sh LONGSPAN [FOLDER]
set -euo pipefail
longspan=$(realpath "${1:?usage: run.sh LONGSPAN [FOLDER]}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${2:-$(mktemp -d)}
mkdir -p "$folder" && cd "$folder" && rm -rf runs

"$longspan" data build "$here/../../runtime" "$here/../../parallel" --extensions .cc,.h --out code.h5
"$longspan" data inspect code.h5

settings=(--set run.name=long)
# What a run would look like, before it is started. Try --ranks 64.
"$longspan" train "$here/long.toml" "${settings[@]}" --ranks 3 --dry-run

# Three ranks as threads of one process; mpirun -n 3 does the same with processes.
"$longspan" train "$here/long.toml" "${settings[@]}" --ranks 3

# "groups" counts the documents of a step that were shared.
grep -o '"groups":[0-9]*' runs/long/metrics.jsonl | sort | uniq -c
grep -q '"groups":[1-9]' runs/long/metrics.jsonl
