#!/usr/bin/env bash
# The checkpoint command and model.init as a user meets them. Usage: checkpoint_test.sh LONGSPAN
set -uo pipefail
longspan=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

fail() {
  echo "FAILED: $*"
  cat out.txt err.txt 2>/dev/null
  exit 1
}
run() { "$longspan" "$@" >out.txt 2>err.txt; }
expect() { grep -q -- "$1" out.txt || fail "no '$1' in the output of $2"; }

mkdir texts
for i in $(seq 12); do head -c $((200 + i * 61)) /usr/share/common-licenses/GPL-3 >"texts/$i.txt"; done
run data build texts --out corpus.h5 || fail "data build"
cat >run.toml <<'TOML'
[run]
steps = 6
[data]
sources = [{ path = "corpus.h5" }]
max_length = 256
[model]
layers = 2
width = 32
heads = 4
kv_heads = 2
ffn = 80
[batch]
tokens = 900
micro_batch_tokens = 600
[checkpoint]
interval = 2
keep_last = 10
[metrics]
evaluate_every = 0
TOML
gpt2=(--set 'model.family="gpt2"' --set model.kv_heads=4 --set model.ffn=128)

for family in llama gpt2; do
  more=()
  [[ $family == gpt2 ]] && more=("${gpt2[@]}")
  run train run.toml --ranks 2 --set "run.name=$family" "${more[@]}" || fail "train $family"

  run checkpoint list "runs/$family" || fail "list"
  [[ $(grep -c "^ *[246] " out.txt) -eq 3 ]] || fail "list: three steps"
  expect "20[0-9][0-9]-" "list: the time of the commit"
  run checkpoint list "runs/$family" --json || fail "list --json"
  expect '"bytes": [1-9]' "list --json"
  run checkpoint show "runs/$family" || fail "show"
  expect '^step 6 of run' show
  expect "/optimizer/" show
  run checkpoint show "runs/$family" --json || fail "show --json"
  expect '"crc64"' "show --json"

  first=$(echo "runs/$family"/checkpoints/step-00000002.*)
  run checkpoint diff "$first" "$first" || fail "diff with itself"
  expect "the same" diff
  run checkpoint diff "$first" "runs/$family" && fail "diff of two steps found nothing"
  expect "elements differ, by" diff
  run checkpoint diff "$first" "runs/$family" --json && fail "diff --json"
  expect '"differences"' "diff --json"

  run checkpoint export "runs/$family" --out "$family-model" || fail "export"
  [[ -s $family-model/config.json && -s $family-model/model.safetensors ]] || fail "export: files"
  run checkpoint export "runs/$family" --out "$family-model" && fail "export over a model"
  run checkpoint import "$family-model" --out "runs/$family-imported" || fail "import"
  run checkpoint verify "runs/$family-imported" || fail "verify of an import"
  run checkpoint import "$family-model" --out "runs/$family-imported" && fail "import over a run"
  run checkpoint diff "runs/$family" "runs/$family-imported" --json && fail "an import has no moments"
  grep -q '/parameters/' out.txt && fail "an imported tensor differs"
  run checkpoint export "runs/$family-imported" --out "$family-again" || fail "export of an import"
  cmp "$family-model/model.safetensors" "$family-again/model.safetensors" || fail "export, import, export"

  # A run that starts from the model: its first loss is that of a model that has learnt.
  run train run.toml --ranks 2 --set "run.name=$family-more" --set "model.init=\"$family-model\"" "${more[@]}" \
    --stop-after 1 || fail "model.init"
  loss() { sed -n 's/.*"loss":\([-0-9.e+]*\),.*"step":'"$2"',.*/\1/p' "runs/$1/metrics.jsonl"; }
  awk -v fresh="$(loss "$family" 1)" -v more="$(loss "$family-more" 1)" 'BEGIN { exit !(more > 0 && more < fresh) }' ||
    fail "model.init: first loss $(loss "$family-more" 1), from random weights $(loss "$family" 1)"
  run train run.toml --set "run.name=wrong-$family" --set "model.init=\"$family-model\"" "${more[@]}" --set model.layers=3 &&
    fail "another number of layers"
  grep -q 'model.layers = 2 (here 3)' err.txt || fail "the difference is not named"
done
run checkpoint export runs/none --out nothing && fail "export of nothing"
run checkpoint import run.toml --out runs/x && fail "import of a file"
echo "as expected"
