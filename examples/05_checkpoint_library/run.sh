#!/usr/bin/env bash
# Three ranks, one of which is killed; two continue. Compared with a run that nothing happened to.
# Usage: run.sh WAVE [FOLDER]
set -euo pipefail
wave=$(realpath "${1:?usage: run.sh WAVE [FOLDER]}")
folder=${2:-$(mktemp -d)}
rm -rf "$folder/killed" "$folder/whole"
mkdir -p "$folder/killed" "$folder/whole"
ranks() { mpirun --oversubscribe --bind-to none -n "$@"; }
newest() { cat "$folder/killed/checkpoints/latest" 2>/dev/null || true; }

# So many iterations that it cannot end by itself. Every rank notes its process.
ranks 3 bash -c 'echo $$ >>"$0/processes"; exec "$@"' "$folder/killed" "$wave" "$folder/killed" 1000000000 \
  2>"$folder/killed/log" &
run=$!
trap 'kill "$run" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
  [[ -n "$(newest)" ]] && break
  kill -0 "$run" || { cat "$folder/killed/log" >&2; exit 1; }
  sleep 0.1
done
[[ -n "$(newest)" ]] || { echo "no checkpoint was committed within a minute" >&2; exit 1; }
sleep 0.5
kill -9 "$(tail -n 1 "$folder/killed/processes")"
if wait "$run"; then echo "the run did not notice that a rank was killed" >&2; exit 1; fi
trap - EXIT
echo "killed; the newest checkpoint is $(newest)"

# `latest` is a hint: the program may find a newer one, committed in the moment of the kill.
step=$(newest)
step=$((10#${step:5:8} + 20))
ranks 2 "$wave" "$folder/killed" "$step" | tee "$folder/killed/continued"
grep -q "continued after iteration" "$folder/killed/continued"

ranks 1 "$wave" "$folder/whole" "$step"
cmp "$folder/killed/result" "$folder/whole/result"
echo "the same result, bit for bit, as without the kill"
