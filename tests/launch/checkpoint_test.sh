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
  run checkpoint diff "$first" nowhere && fail "diff with what is not there"
  grep -q 'nowhere: there is no such checkpoint' err.txt || fail "diff does not say what is not there"
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
# A model of several files: whole again through the command, and the beginning of a run.
wide=(--set model.width=256 --set model.ffn=680 --set run.steps=1)
run train run.toml --set run.name=wide "${wide[@]}" || fail "train wide"
run checkpoint export runs/wide --out wide-model || fail "export in one file"
run checkpoint export runs/wide --out wide-shards --shard 1 || fail "export in shards"
[[ -s wide-shards/model.safetensors.index.json && ! -e wide-shards/model.safetensors ]] || fail "no index of shards"
[[ $(compgen -G 'wide-shards/model-*.safetensors' | wc -l) -ge 3 ]] || fail "few shards"
run checkpoint import wide-shards --out runs/wide-imported || fail "import of shards"
run checkpoint export runs/wide-imported --out wide-again || fail "export of imported shards"
cmp wide-model/model.safetensors wide-again/model.safetensors || fail "shards, and back"
run train run.toml --set run.name=wide-more --set 'model.init="wide-shards"' "${wide[@]}" || fail "model.init from shards"

# A run that is killed leaves steps in memory that the checkpoint directory does not have.
mkdir memory
"$longspan" train run.toml --ranks 2 --set run.name=killed --set run.steps=100000 --set checkpoint.interval=50000 \
  --set checkpoint.memory_interval=1 --set "checkpoint.memory_directory=\"$folder/memory\"" >train.txt 2>&1 &
trainer=$!
for _ in $(seq 300); do
  compgen -G "memory/*/step-*/COMMIT" >/dev/null && break
  sleep 0.1
done
kill -9 $trainer
wait $trainer 2>/dev/null
tier=$(dirname memory/*/step-*/COMMIT | tail -1)
[[ -f $tier/COMMIT ]] || { cp train.txt out.txt; fail "no step in memory"; }
run checkpoint verify runs/killed || fail "verify of a step that only a tier has"
expect "$(basename "$tier"): every byte verified" "verify of a tier"
run checkpoint show runs/killed || fail "show of a tier"
expect "^step [0-9]* of run \"killed\"" "show of a tier"
echo words >runs/killed/tokenizer.model
run checkpoint export runs/killed --out killed-model || fail "export from a tier"
[[ -s killed-model/model.safetensors ]] || fail "export from a tier: files"
cmp runs/killed/tokenizer.model killed-model/tokenizer.model || fail "export from a tier: the run's tokenizer"
run checkpoint diff "$tier" runs/killed || fail "diff of a tier's step with itself"
run checkpoint diff "$tier" runs/llama && fail "diff of a tier's step with another run"
expect "elements differ, by" "diff of a tier"
# One of two nodes' directories: what is here can be shown and verified, and no more.
mv "$tier/rank-00001.h5" elsewhere.h5
run checkpoint show runs/killed || fail "show of some files"
run checkpoint verify runs/killed || fail "verify of some files"
expect "1 of 2 files verified; not on this node: rank-00001.h5" "verify of some files"
run checkpoint verify "$tier" || fail "verify of a directory with some files"
run checkpoint export runs/killed --out killed-again && fail "export of half a model"
grep -q "rank-00001.h5 is not in any place that is left.*under mpirun, a rank on each" err.txt || fail "the missing file is not named"
run checkpoint diff "$tier" runs/killed && fail "diff of half a model"
grep -q "rank-00001.h5 is not in any place" err.txt || fail "diff does not name the missing file"
printf x | dd of="$tier/rank-00000.h5" bs=1 seek=5000 conv=notrunc 2>/dev/null
run checkpoint verify runs/killed && fail "a damaged file of a tier verifies"
grep -q "rank-00000.h5: bytes" err.txt || fail "the damage is not named"
# In a checkpoint directory a missing file is damage.
rm "$(echo runs/llama/checkpoints/step-00000006.*)/rank-00001.h5"
run checkpoint verify runs/llama/checkpoints/step-00000006.* && fail "verify without a file"

run checkpoint export runs/none --out nothing && fail "export of nothing"
run checkpoint import run.toml --out runs/x && fail "import of a file"
echo "as expected"
