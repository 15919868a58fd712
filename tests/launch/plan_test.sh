#!/usr/bin/env bash
# `longspan plan` as a user meets it: what it prints, and one clear line for each usual mistake.
# Usage: plan_test.sh LONGSPAN
set -uo pipefail
longspan=$1
# shellcheck source=tests/launch/expectations.sh
source "$(dirname "${BASH_SOURCE[0]}")/expectations.sh"

mkdir texts
for i in $(seq 20); do head -c $((i * 37)) /usr/share/common-licenses/GPL-3 >"texts/$i.txt"; done
accepts "$longspan" data build texts --out corpus.h5
plan=("$longspan" plan --ranks 4 --micro-batch-tokens 1000)
printf '3000\n# a comment\n500\n\n20\n' >lengths.txt
accepts "${plan[@]}" --lengths lengths.txt --ranks-per-node 2 --svg plan.svg
grep -q 'what binds' out.txt && grep -q '^    3 |' out.txt && grep -q 'bytescale-7b' err.txt && grep -q '</svg>' plan.svg ||
  { echo "FAILED: summary, timeline, assumptions or drawing missing"; cat out.txt err.txt; failures=$((failures + 1)); }
accepts "$longspan" plan --lengths - --ranks 8 --micro-batch-tokens 400 --ranks-per-node 4 --head-parallel auto <lengths.txt
grep -q 'heads by' out.txt || { echo "FAILED: no heads are split"; cat out.txt; failures=$((failures + 1)); }
accepts "${plan[@]}" --lengths lengths.txt --head-parallel 2 --json
grep -q '"head_parallel":2' out.txt || { echo "FAILED: heads are not split by 2"; cat out.txt; failures=$((failures + 1)); }
refuses '--head-parallel none: needs auto, or the most ranks' "${plan[@]}" --lengths lengths.txt --head-parallel none
accepts "${plan[@]}" --lengths lengths.txt --json
[[ $(wc -l <out.txt) -eq 1 ]] && grep -q '^{"format":"longspan-plan","version":1,"ranks":4,' out.txt ||
  { echo "FAILED: --json prints something else"; head -c 300 out.txt; failures=$((failures + 1)); }
accepts bash -c "echo 7 | $longspan plan --lengths - --ranks 9 --micro-batch-tokens 1000 --gpu h100 --model llama-7b"
grep -q '8 ranks have no work' out.txt || { echo "FAILED: idle ranks"; cat out.txt; failures=$((failures + 1)); }
accepts "${plan[@]}" --data corpus.h5 --tokens 3000 --policy naive
accepts "${plan[@]}" --mix github --tokens 64K --context 4000
echo '{"linear_seconds_per_token": 1e-6}' >broken.json
echo '{"attention_seconds_per_pair": 1e-9, "linear_seconds_per_token": 1e-6, "ring_seconds_per_token": 0,
  "ring_step_seconds": 0, "micro_batch_seconds": 0, "rank_speeds": [1, 1, 1, 0.5]}' >cost.json
accepts "${plan[@]}" --lengths lengths.txt --cost cost.json
refuses 'how many heads there are, which a cost file does not say' "${plan[@]}" --lengths lengths.txt --cost cost.json --head-parallel auto
: >empty.txt
for text in 0 -5 7x 1.5 99999999999999999999; do
  printf '12\n%s\n' "$text" >bad.txt
  refuses "bad.txt:2: \"$text\" is not a length" "${plan[@]}" --lengths bad.txt
done
refuses 'empty.txt: no lengths' "${plan[@]}" --lengths empty.txt
refuses 'nowhere.txt: cannot read' "${plan[@]}" --lengths nowhere.txt
refuses 'which sequences?' "${plan[@]}"
refuses 'only one of' "${plan[@]}" --lengths lengths.txt --mix github
refuses 'needs --tokens' "${plan[@]}" --mix github
refuses 'byted' "${plan[@]}" --mix nothing --tokens 1000
refuses 'skyline' "${plan[@]}" --lengths lengths.txt --policy none
refuses 'h100' "${plan[@]}" --lengths lengths.txt --gpu tpu --model llama-7b
refuses 'llama-7b' "${plan[@]}" --lengths lengths.txt --gpu h100 --model bert
refuses '--gpu needs --model' "${plan[@]}" --lengths lengths.txt --gpu h100
refuses 'leave --gpu' "${plan[@]}" --lengths lengths.txt --gpu h100 --model llama-7b --cost cost.json
refuses 'broken.json: attention_seconds_per_pair is missing' "${plan[@]}" --lengths lengths.txt --cost broken.json
refuses 'nowhere.json: cannot read' "${plan[@]}" --lengths lengths.txt --cost nowhere.json
refuses 'rank_speeds has 4 speeds for 5 ranks' "$longspan" plan --lengths lengths.txt --ranks 5 \
  --micro-batch-tokens 1000 --cost cost.json
refuses 'cannot write the drawing' "${plan[@]}" --lengths lengths.txt --svg no/such/plan.svg
refuses 'at least one is needed' "$longspan" plan --lengths lengths.txt --ranks 0 --micro-batch-tokens 1000
for capacity in 0 999; do
  refuses "micro_batch_tokens is $capacity" "$longspan" plan --lengths lengths.txt --ranks 4 --micro-batch-tokens $capacity
done
refuses 'use at least 6 ranks' "$longspan" plan --lengths lengths.txt --ranks 4 --micro-batch-tokens 500
"$longspan" plan --help | grep -q 'Example' || { echo "FAILED: no example in --help"; failures=$((failures + 1)); }

[[ $failures -eq 0 ]] && echo "all as expected"
exit $((failures > 0))
