#!/usr/bin/env bash
# Ten iterations on three ranks, then ten more on two.
# Usage: run.sh HEAT [FOLDER]
set -euo pipefail
heat=$(realpath "${1:?usage: run.sh HEAT [FOLDER]}")
folder=${2:-$(mktemp -d)}
rm -rf "$folder/heat" && mkdir -p "$folder"
flags=(--oversubscribe --bind-to none)
mpirun "${flags[@]}" -n 3 "$heat" "$folder/heat" 10
mpirun "${flags[@]}" -n 2 "$heat" "$folder/heat" 20 | tee "$folder/second.txt"
grep -q "continued after iteration 10" "$folder/second.txt"
