#!/usr/bin/env bash
# Which learning-rate schedule trains best, and does the answer depend on the budget? The question of the REX paper (arXiv
# 2107.04197) on a small language model.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: run.sh [--sample] [--minutes M] [--documents DIR] LONGSPAN [FOLDER]

Trains linear, cosine, REX, WSD and refined schedules (from the l1 norms of a constant-rate run and of a linear run) at
5%, 25% and 100% of a budget, with three seeds. The peak of each is chosen at 25% with the first seed. Writes
FOLDER/report.md and FOLDER/losses.svg.

Everything that is done lies in FOLDER; run the same command again and it goes on where it was, in the middle of a run too.

  --sample         a toy model and budget, two seeds: under two minutes, shows only that everything works
  --minutes M      stop in order after M minutes
  --documents DIR  the texts (default: data/quickstart of this repository, which launch/quickstart.sh makes; with --sample
                   this repository's sources)

Example: examples/06_schedules/run.sh build/longspan runs/schedules
USAGE
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sample=false
minutes=''
documents=''
while [[ $# -gt 0 ]]; do
  case "$1" in
    --sample) sample=true ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --documents) documents=$(realpath "${2:?--documents needs a directory}"); shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "run.sh: unknown option '$1'; see run.sh --help" >&2; exit 2 ;;
    *) break ;;
  esac
  shift
done
[[ $# -ge 1 ]] || { usage >&2; exit 2; }
longspan=$(realpath "$1")
folder=${2:-$(mktemp -d)}
mkdir -p "$folder" && cd "$folder"

readonly kShapes='linear cosine rex wsd refined-constant refined-linear'
steps=2560
seeds='1 2 3'
peaks='5e-4 1e-3 2e-3 4e-3'
overrides=()
if $sample; then
  steps=40
  seeds='1 2'
  peaks='4e-3 1e-2'
  overrides=(--set model.layers=1 --set model.width=32 --set model.ffn=64 --set batch.tokens=1024
    --set batch.micro_batch_tokens=2048)
  [[ -n "$documents" ]] || documents=$(realpath "$here/../../optim")
else
  [[ -n "$documents" ]] || documents=$(realpath "$here/../..")/data/quickstart
fi
readonly kResults=results.tsv # budget in percent, shape, seed, peak, steps, validation loss
touch "$kResults"

# --- data: every twentieth document is held out -------------------------------------------------------------------------

if [[ ! -s train.h5 || ! -s validation.h5 ]]; then
  [[ -d "$documents" ]] || { echo "run.sh: no folder $documents; launch/quickstart.sh makes it, or use --documents DIR" >&2; exit 1; }
  rm -rf texts
  mkdir -p texts/train texts/validation
  number=0
  while IFS= read -r -d '' file; do
    number=$((number + 1))
    part=train
    [[ $((number % 20)) -ne 0 ]] || part=validation
    ln -s "$file" "texts/$part/$number.txt"
  done < <(find "$documents" -type f -size -2048k -print0 | LC_ALL=C sort -z)
  for part in train validation; do "$longspan" data build texts/$part --out $part.h5; done
fi

# --- one run ------------------------------------------------------------------------------------------------------------

runs_done=0
# loss_of BUDGET SHAPE SEED PEAK: from the results; empty when it is still to be made.
loss_of() {
  awk -v b="$1" -v s="$2" -v n="$3" -v p="$4" '$1 == b && $2 == s && $3 == n && $4 == p { print $6 }' "$kResults"
}

# train BUDGET SHAPE SEED PEAK: unless it has been made; ends the script in order when time is up.
train() {
  local budget=$1 shape=$2 seed=$3 peak=$4 status=0 flags=()
  [[ -z "$(loss_of "$@")" ]] || return 0
  local name=$shape-$budget-$seed-$peak updates=$(((steps * budget + 50) / 100))
  case "$shape" in
    # The earlier run of the job: the first seed's, at the same budget and its own best peak.
    refined-*) flags=(--schedule refined --from "runs/${shape#refined-}-$budget-1-$(best_peak "${shape#refined-}")") ;;
    *) flags=(--schedule "$shape") ;;
  esac
  local limit=()
  if [[ -n "$minutes" ]]; then
    local left=$((minutes * 60 - SECONDS))
    [[ $left -gt 0 ]] || pause
    limit=(timeout --signal=USR1 --kill-after=300 "$left")
  fi
  # On USR1 it finishes the step and saves, so the next call goes on from there.
  "${limit[@]}" "$longspan" train "$here/schedules.toml" "${overrides[@]}" --set "run.name=$name" --set "run.seed=$seed" \
    --set "run.steps=$updates" --set "schedule.peak=$peak" "${flags[@]}" --resume auto >>"train.log" 2>&1 || status=$?
  [[ $status -ne 124 ]] || pause
  [[ $status -eq 0 ]] || { tail -n 5 train.log >&2; echo "run.sh: $name failed; see $folder/train.log" >&2; exit 1; }
  local loss
  loss=$(sed -n 's/.*"validation_loss":\([-0-9.e+]*\).*/\1/p' "runs/$name/metrics.jsonl" | tail -n 1)
  [[ -n "$loss" ]] || { echo "run.sh: $name left no validation loss" >&2; exit 1; }
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$budget" "$shape" "$seed" "$peak" "$updates" "$loss" >>"$kResults"
  rm -rf "runs/$name/checkpoints"
  runs_done=$((runs_done + 1))
  echo "$budget% $shape, seed $seed, peak $peak: validation loss $loss (${SECONDS} s)"
}

pause() {
  echo "paused after $SECONDS s and $runs_done runs; the same command goes on from here"
  exit 0
}

# best_peak SHAPE: by the first seed at 25%.
best_peak() {
  awk -v s="$1" '$1 == 25 && $2 == s && $3 == 1 && (best == "" || $6 + 0 < least) { best = $4; least = $6 + 0 }
    END { print best }' "$kResults"
}

# --- all of them --------------------------------------------------------------------------------------------------------

for shape in constant $kShapes; do
  for peak in $peaks; do train 25 "$shape" 1 "$peak"; done
done
for budget in 5 25 100; do train "$budget" constant 1 "$(best_peak constant)"; done
for budget in 5 25 100; do
  for seed in $seeds; do
    for shape in $kShapes; do train "$budget" "$shape" "$seed" "$(best_peak "$shape")"; done
  done
done

awk -v shapes="$kShapes" -v seeds="$seeds" -v peaks="$peaks" -v steps="$steps" -v svg=losses.svg \
  -f "$here/report.awk" "$kResults" >report.md
cat report.md
echo "written: $folder/report.md and $folder/losses.svg"
