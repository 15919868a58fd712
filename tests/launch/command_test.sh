#!/usr/bin/env bash
# The usual mistakes at the command line: one clear line, a non-zero status on all ranks within seconds.
# Usage: command_test.sh LONGSPAN
set -uo pipefail
longspan=$1
# shellcheck source=tests/launch/expectations.sh
source "$(dirname "${BASH_SOURCE[0]}")/expectations.sh"

mkdir texts
for i in $(seq 40); do head -c $((i * 37)) /usr/share/common-licenses/GPL-3 >"texts/$i.txt"; done
accepts "$longspan" data build texts --out corpus.h5
cat >good.toml <<'TOML'
[run]
steps = 3
[data]
sources = [{ path = "corpus.h5" }]
[model]
layers = 1
width = 16
heads = 2
kv_heads = 1
ffn = 32
[batch]
tokens = 2000
micro_batch_tokens = 2000
TOML
mpi=(mpirun --oversubscribe --bind-to none -n 2)

# A trace, and what is no trace.
accepts "$longspan" train good.toml --set run.name=traced --ranks 2 --trace runs/traced/traces/all.json
accepts "$longspan" trace summary runs/traced/traces/all.json
grep -q 'busiest: rank' out.txt || { echo "FAILED: no summary"; cat out.txt; failures=$((failures + 1)); }
accepts "$longspan" trace summary runs/traced/traces/all.json --json
[[ $(wc -l <out.txt) -eq 1 ]] && grep -q '^{"seconds":' out.txt || { echo "FAILED: --json"; failures=$((failures + 1)); }
refuses 'not a trace' "$longspan" trace summary good.toml
refuses 'nowhere.json: cannot read' "$longspan" trace summary nowhere.json
refuses 'FROM:TO' "$longspan" train good.toml --trace trace.json --trace-steps 5
refuses 'FROM:TO' "$longspan" train good.toml --trace trace.json --trace-steps 5:4
refuses '--trace' "$longspan" train good.toml --trace-steps 1:4
refuses 'the next step is 4' "$longspan" train good.toml --set run.name=traced --set run.steps=5 --ranks 2 \
  --set schedule.on_budget_change=hold \
  --resume auto --trace trace.json --trace-steps 1:2
"$longspan" trace summary --help | grep -q 'Example' || { echo "FAILED: no example in --help"; failures=$((failures + 1)); }

sed 's/steps = 3/step = 3/' good.toml >unknown.toml
refuses 'unknown.toml:2: unknown key "run.step"; the nearest known key is "run.steps"' "$longspan" train unknown.toml
refuses 'unknown.toml:2: unknown key' "${mpi[@]}" "$longspan" train unknown.toml
refuses 'nowhere.toml: cannot read' "$longspan" train nowhere.toml
refuses 'missing.h5' "${mpi[@]}" "$longspan" train good.toml --set 'data.sources=[{path="missing.h5"}]'
head -c 3000 corpus.h5 >truncated.h5
refuses 'truncated.h5' "$longspan" train good.toml --set 'data.sources="truncated.h5"'
refuses 'good.toml' "$longspan" train good.toml --set 'data.sources="good.toml"'
refuses 'vocabulary of 257' "${mpi[@]}" "$longspan" train good.toml --set model.vocab=100
refuses '--set batch.micro_batch_tokens=' "${mpi[@]}" "$longspan" train good.toml --set batch.micro_batch_tokens=400
refuses 'policy' "$longspan" train good.toml --set planner.policy=none
echo >occupied
refuses 'occupied' "${mpi[@]}" "$longspan" train good.toml --set run.directory=occupied/by/file
refuses 'occupied' "$longspan" train good.toml --set run.directory=occupied/runs
accepts "$longspan" train good.toml --set run.name=first
refuses 'already holds a run' "${mpi[@]}" "$longspan" train good.toml --set run.name=first
refuses 'model.width was 16, is now 32' "$longspan" train good.toml --set run.name=first --set model.width=32 --resume auto
refuses 'schedule.on_budget_change=retime' "${mpi[@]}" "$longspan" train good.toml --set run.name=first --set run.steps=6 --resume auto
accepts "$longspan" train good.toml --set run.name=first --set run.steps=6 --set schedule.on_budget_change=retime --resume auto
accepts "$longspan" train good.toml --set run.name=first --set run.steps=6 --resume auto
refuses '--ranks' "${mpi[@]}" "$longspan" train good.toml --ranks 2
refuses 'not finite' "${mpi[@]}" "$longspan" train good.toml --set run.name=nan --set schedule.peak=1e30 \
  --set optimizer.clip=0 --set run.steps=20
refuses '--bind-to none' taskset -c 0 "$longspan" train good.toml --set run.name=threads --set run.threads=64
refuses 'neither a run' "$longspan" generate nowhere
refuses 'nowhere' "$longspan" data build nowhere --out x.h5
refuses 'no/such' "$longspan" data build texts --out no/such/folder/x.h5
accepts "$longspan" generate runs/first --prompt 'GNU ' --tokens 5
accepts "$longspan" checkpoint list runs/first --json
accepts "$longspan" checkpoint verify runs/first
accepts "$longspan" config show good.toml --json
accepts "$longspan" train good.toml --dry-run --ranks 8 --json
gradient_bytes() { sed -n 's/.*"gradient_bytes_per_rank_per_step": *\([0-9]*\).*/\1/p' out.txt; }
wide=$(gradient_bytes)
accepts "$longspan" train good.toml --dry-run --ranks 8 --json --set optimizer.wire=bf16
# Gradients in half their bytes; parameters travel as before.
[[ -n "$wide" && $(($(gradient_bytes) * 4)) -eq $((wide * 3)) ]] ||
  { echo "FAILED: gradients of $wide bytes, as bf16 $(gradient_bytes)"; failures=$((failures + 1)); }

accepts "$longspan" simulate --mix github,equal --ranks 8,64 --context 64K,256K --batches 2 --jitter 0.05 --json --svg plot.svg
# A sequence of 256K fits nowhere on 8 ranks: said in the rows of the four policies, and the others have results.
[[ $(grep -c '"error": "planner: sequence .* 8 ranks' out.txt) -eq 4 && $(grep -c '"speedup_over_static": [0-9]' out.txt) -eq 28 ]] ||
  { echo "FAILED: rows of simulate"; grep -E '"(error|speedup)' out.txt; failures=$((failures + 1)); }
grep -q '</svg>' plot.svg || { echo "FAILED: no plot"; failures=$((failures + 1)); }
accepts "$longspan" simulate --ranks 64 --stages 3 --policy static,pp-balance --batches 1
cp out.txt first.txt
accepts "$longspan" simulate --ranks 64 --stages 3 --policy static,pp-balance --batches 1
cmp -s out.txt first.txt || { echo "FAILED: simulate differs from run to run"; failures=$((failures + 1)); }
refuses 'unknown mix "gihub"; there is: byted' "$longspan" simulate --mix gihub
refuses 'unknown policy "fast"; there is: skyline' "$longspan" simulate --policy fast
refuses '--context 1X: it must be a number of tokens' "$longspan" simulate --context 1X
refuses '--ranks' "$longspan" simulate --ranks 0
refuses '--gradient-wire' "$longspan" simulate --gradient-wire fp8
accepts "$longspan" simulate --policy static --ranks 64 --batches 1 --gradient-wire bf16
refuses 'must be even' "$longspan" simulate --micro-batch-tokens 8191
refuses '0 tokens a batch' "$longspan" simulate --tokens 0
refuses '0 pipeline stages' "$longspan" simulate --stages 0
refuses 'deviation is -1' "$longspan" simulate --jitter -1
refuses 'cannot write no/such' "$longspan" simulate --batches 1 --svg no/such/plot.svg
refuses '--figure-17 sets --ranks itself' "$longspan" simulate --figure-17 --ranks 8
refuses '--figure-17 sets costs itself' "$longspan" simulate --figure-17 --gpu h100
refuses 'needs --model' "$longspan" simulate --gpu h100
accepts "$longspan" simulate --gpu h100 --model llama-7b --ranks 64 --batches 1 --parameters 7e9
for command in train generate simulate 'data build' 'data inspect' 'checkpoint list' 'checkpoint verify' 'config show' 'config defaults'; do
  # shellcheck disable=SC2086
  "$longspan" $command --help | grep -q 'Example' || { echo "FAILED: no example in $command --help"; failures=$((failures + 1)); }
done

[[ $failures -eq 0 ]] && echo "all as expected"
exit $((failures > 0))
