#!/usr/bin/env bash
# ByteScale's Figure 17 by simulation, its published numbers beside ours: README.md.
# Usage: run.sh LONGSPAN [FOLDER] [--quick]
set -euo pipefail
longspan=$(realpath "${1:?usage: run.sh LONGSPAN [FOLDER] [--quick]}")
folder=${2:-$(mktemp -d)}
batches=10
[[ "${3:-}" != --quick ]] || batches=1
mkdir -p "$folder" && cd "$folder"

"$longspan" simulate --figure-17 --batches "$batches" --svg figure-17.svg | tee figure-17.txt

# A plot, and a number in every place that has a published one.
grep -q '</svg>' figure-17.svg
grep -E '^github +LLaMA-7B ' figure-17.txt | grep -qE '1\.73/ +[0-9.]+/ +[0-9.]+ .* 7\.89/ +[0-9.]+/ *[0-9.]+$'
