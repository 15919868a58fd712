#!/usr/bin/env bash
# Planned against measured: trains with each policy in turns, on documents as long as source files are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
  cat <<'USAGE'
Usage: tests/bench/plan_train.sh [--build DIR] [--ranks N] [--steps N]

Measures the cost model of N ranks of one thread (default 2), then trains one small model under the policies skyline,
naive and static, five steps of each in turn, until each has --steps (default 30). Prints, a line a policy: measured
makespan over planned (median; quartiles), balance (busiest rank over the mean, by processor time), seconds a step. With
more ranks than cores only the balance means something.

Example: bash tests/bench/plan_train.sh --ranks 4
USAGE
}

build=build
ranks=2
steps=30
while [[ $# -gt 0 ]]; do
  case "$1" in
    --build) build=$2; shift ;;
    --ranks) ranks=$2; shift ;;
    --steps) steps=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "plan_train: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
  shift
done
longspan=$(realpath "$build/longspan")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Lengths of source files (the measured mix "code"), cut at 6000 tokens: a document of so many characters each.
"$longspan" plan --mix code --tokens 1500000 --context 6000 --ranks 1 --micro-batch-tokens 6000 --json 2>/dev/null |
  sed -n '/"lengths"/,/]/p' | tr -c '0-9\n' ' ' | tr -s ' ' '\n' | grep -v '^$' |
  awk 'BEGIN { while (length(text) < 12000) text = text sprintf("%d ", i++ * 7919 % 9973) }
       { printf "{\"text\": \"%s\"}\n", substr(text, 1 + FNR % 5000, $1 > 2 ? $1 - 2 : 1) }' >"$folder/documents.jsonl"
"$longspan" data build "$folder/documents.jsonl" --field text --out "$folder/corpus.h5" 2>/dev/null >&2

cat >"$folder/bench.toml" <<TOML
[run]
directory = "$folder/runs"
steps = $steps
threads = 1
[data]
sources = [{ path = "$folder/corpus.h5" }]
max_length = 6000
validation = 0.0
[model]
layers = 2
width = 128
heads = 4
kv_heads = 4
ffn = 344
[batch]
tokens = 24000
micro_batch_tokens = 3000
[checkpoint]
interval = 1000000
[metrics]
evaluate_every = 0
TOML

# Ranks that share a core would measure each other.
profiled=$ranks
[[ $profiled -le $(nproc) ]] || profiled=$(nproc)
echo "measuring the cost model of $profiled ranks of one thread"
"$longspan" profile "$folder/bench.toml" --ranks "$profiled" --out "$folder/cost.json"
done_steps=0
while [[ $done_steps -lt $steps ]]; do
  for policy in skyline naive static; do
    "$longspan" train "$folder/bench.toml" --ranks "$ranks" --set "run.name=$policy" --set "planner.policy=$policy" \
      --set "planner.cost=$folder/cost.json" --stop-after 5 --resume auto >>"$folder/train.log" 2>&1 ||
      { tail -n 5 "$folder/train.log" >&2; exit 1; }
  done
  done_steps=$((done_steps + 5))
done

printf '%-9s %-28s %-22s %s\n' policy 'measured / planned' 'balance by CPU time' 'makespan, seconds'
for policy in skyline naive static; do
  quartiles() {
    awk -v a="\"$1\":" -v b="${2:+\"$2\":}" '
      function number(key,   at) { at = index($0, key); return substr($0, at + length(key)) + 0 }
      index($0, a) { print b == "" ? number(a) : number(a) / number(b) }' "$folder/runs/$policy/metrics.jsonl" |
      sort -g | awk '{ v[NR] = $1 } END { printf "%.3f (%.3f to %.3f)", v[int((NR + 1) / 2)], v[int((NR + 3) / 4)], v[int((3 * NR + 1) / 4)] }'
  }
  printf '%-9s %-28s %-22s %s\n' "$policy" "$(quartiles measured_makespan planned_makespan)" \
    "$(quartiles cpu_max_over_mean)" "$(quartiles measured_makespan)"
done
