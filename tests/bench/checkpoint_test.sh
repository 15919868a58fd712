#!/usr/bin/env bash
# That the checkpoint benchmark answers, at sizes of nothing. Usage: checkpoint_test.sh PATH_OF_CHECKPOINT_BENCH
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bench=$1
fail() { echo "bench.checkpoint: $1" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

mkdir "$folder/alone" "$folder/memory"
answers=$(printf 'run none 1 0 2 1\nrun lazy 2 2 4 1\nrun synchronous 1 0 2 1\nkeep\nrestore disk\nrestore memory\ncopy\nwrite\nmemory\n' |
  "$bench" --memory-tier "$folder/alone" --ranks 2 --state-mib 8 --compute 0.01 --directory "$folder/alone")
echo "$answers"
[[ $(wc -l <<<"$answers") == 9 ]] || fail "not nine answers"
blocked() { sed -n "$1s/.*\"blocked_seconds\": \[\([^]]*\)\].*/\1/p" <<<"$answers" | tr ',' '\n' | grep -c '[0-9]' || true; }
[[ $(blocked 1) == 0 && $(blocked 2) == 4 && $(blocked 3) == 4 ]] || fail "not as many saves as were asked for"
# The state and the head of the file, on both ranks.
bytes=$(sed -n '4s/.*"bytes": \([0-9]*\).*/\1/p' <<<"$answers")
[[ "$bytes" -gt $((2 * 8 * 1024 * 1024)) && "$bytes" -lt $((2 * 9 * 1024 * 1024)) ]] || fail "a save of $bytes bytes"
for line in 5 6; do
  [[ $(sed -n "${line}s/.*\"bytes\": \([0-9]*\).*/\1/p" <<<"$answers") == "$bytes" ]] || fail "restored other bytes than were saved"
done
ls "$folder"/alone/lazy/step-*/COMMIT "$folder"/alone/synchronous/step-*/COMMIT >/dev/null || fail "nothing is committed"
if printf 'runn\n' | "$bench" --state-mib 1 --directory "$folder/alone" 2>/dev/null; then fail "an unknown command was accepted"; fi

python3 "$here/checkpoint.py" --bench "$bench" --directory "$folder" --results "$folder/results" --rounds 1 --state-mib 8 \
  --compute 0.01 --iterations 2 --every 2,1 --memory-tier "$folder/memory" >"$folder/table" 2>"$folder/log" ||
  { cat "$folder/log" >&2; fail "the driver fails"; }
grep -q '^| lazy | 1 | [0-9.]' "$folder/table" || fail "no row of lazy saves"
grep -q '^| restore rate / sequential read, cold | [0-9.]' "$folder/table" || fail "no row of restores"
grep -q '^| from memory | [0-9.]' "$folder/table" || fail "no row of loads from memory"
[[ -z $(ls "$folder/memory") ]] || fail "a memory tier is left"
ls "$folder"/results/checkpoint-*.json >/dev/null
if python3 "$here/checkpoint.py" --bench "$bench" --directory "$folder" --state-mib 1e9 2>"$folder/log"; then fail "no disk is that large"; fi
grep -q 'needs .* GiB of disk' "$folder/log" || fail "it does not say how much disk it needs"
