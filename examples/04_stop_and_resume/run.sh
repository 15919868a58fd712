#!/usr/bin/env bash
# Stops a run of three ranks with a signal and resumes it on two.
# Usage: run.sh LONGSPAN [FOLDER]
set -euo pipefail
longspan=$(realpath "${1:?usage: run.sh LONGSPAN [FOLDER]}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${2:-$(mktemp -d)}
mkdir -p "$folder" && cd "$folder" && rm -rf runs

"$longspan" data build "$here/../../optim" "$here/../../checkpoint" --extensions .cc,.h --out code.h5

"$longspan" train "$here/stop.toml" --ranks 3 &
training=$!
# Once the first steps are done: finish the step, commit, exit 0.
for _ in $(seq 600); do
  [[ $(grep -c '"loss"' runs/stop/metrics.jsonl 2>/dev/null || true) -ge 3 ]] && break
  sleep 0.1
done
kill -USR1 "$training"
wait "$training"
done_steps=$(grep -c '"loss"' runs/stop/metrics.jsonl)
echo "stopped after $done_steps steps"

"$longspan" checkpoint list runs/stop
"$longspan" checkpoint verify runs/stop

# Two ranks hold less than three: each takes more tokens at a time. The model's state is the same to the bit.
"$longspan" train "$here/stop.toml" --ranks 2 --set batch.micro_batch_tokens=3072 \
  --set run.steps=400 --stop-after 3 --resume auto
[[ $(grep -c '"loss"' runs/stop/metrics.jsonl) -eq $((done_steps + 3)) ]]
