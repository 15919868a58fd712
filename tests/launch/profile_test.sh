#!/usr/bin/env bash
# `longspan profile` as a user meets it: as threads, under mpirun, and the usual mistakes.
# Usage: profile_test.sh LONGSPAN
set -uo pipefail
longspan=$1
# shellcheck source=tests/launch/expectations.sh
source "$(dirname "${BASH_SOURCE[0]}")/expectations.sh"

mkdir texts
for i in $(seq 20); do head -c $((i * 37)) /usr/share/common-licenses/GPL-3 >"texts/$i.txt"; done
accepts "$longspan" data build texts --out corpus.h5
cat >tiny.toml <<'TOML'
[data]
sources = [{ path = "corpus.h5" }]
[model]
family = "gpt2"
layers = 1
width = 16
heads = 2
kv_heads = 2
ffn = 32
[batch]
micro_batch_tokens = 512
TOML
profile=("$longspan" profile tiny.toml --seconds 1)
mpi=(mpirun --oversubscribe --bind-to none -n 2)
for launcher in '' mpi; do
  if [[ -n $launcher ]]; then accepts "${mpi[@]}" "${profile[@]}" --out cost.json
  else accepts "${profile[@]}" --ranks 2 --out cost.json; fi
  grep -q 'error: median' out.txt && [[ $(grep -c ' ms ' out.txt) -eq 16 ]] || { echo "FAILED: report"; cat out.txt; failures=$((failures + 1)); }
  accepts "$longspan" plan --mix equal --tokens 64K --ranks 2 --micro-batch-tokens 8192 --cost cost.json
  rm -f cost.json
done
accepts "${profile[@]}" --out cost.json
grep -q 'one rank alone' out.txt || { echo "FAILED: one rank alone"; failures=$((failures + 1)); }
refuses 'no/such/cost.json: cannot write' "${mpi[@]}" "${profile[@]}" --out no/such/cost.json
refuses 'at least 64' "${mpi[@]}" "${profile[@]}" --out cost.json --set batch.micro_batch_tokens=32
refuses 'nowhere.toml: cannot read' "$longspan" profile nowhere.toml --out cost.json
refuses '--ranks makes threads' "${mpi[@]}" "${profile[@]}" --ranks 2 --out cost.json
"$longspan" profile --help | grep -q 'Example' || { echo "FAILED: no example in --help"; failures=$((failures + 1)); }

[[ $failures -eq 0 ]] && echo "all as expected"
exit $((failures > 0))
