#!/usr/bin/env bash
# From a fresh machine to a trained model: installs, builds, makes a data set, trains on two ranks with a stop and a
# resume half-way, generates text.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'USAGE'
Usage: launch/quickstart.sh [--sample] [--no-install] [--build DIR]

Everything it makes lies in build/, data/ and runs/ of this repository.

  --sample      a few steps only, to see that everything works (what CI runs)
  --no-install  only checks that the packages are there
  --build DIR   builds there (default: build)

Example: bash launch/quickstart.sh
USAGE
}

readonly kConfig=examples/01_quickstart/quickstart.toml
readonly kDocuments=data/quickstart
readonly kDataset=data/quickstart.h5
readonly kRanks=2
readonly kSmallestCorpus=10000000  # bytes

build=build
sample=false
setup=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --sample) sample=true ;;
    --no-install) setup+=(--no-install) ;;
    --build) build=${2:?--build needs a directory}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart: unknown option '$1'; see launch/quickstart.sh --help" >&2; exit 2 ;;
  esac
  shift
done

die() {
  echo "quickstart: $*" >&2
  exit 1
}

step() {
  echo
  echo "== $* (${SECONDS} s)"
}

# Shows a command as the user would type it, then runs it.
run() {
  local line word
  line='$'
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./=:,+-]+$ ]] || word="'$word'"
    line+=" $word"
  done
  echo "$line"
  "$@"
}

# --- the corpus -------------------------------------------------------------------------------------------------------

# Text that a machine has once setup.sh is through: library headers, Perl's library, CMake's modules and manual. Real
# documents, from a few dozen bytes to some hundred thousand.
corpus_files() {
  local folders=() folder
  for folder in /usr/include/c++ /usr/include/absl /usr/include/hwy /usr/include/hdf5 /usr/include/linux \
    /usr/include/spdlog /usr/include/fmt /usr/include/nlohmann /usr/include/toml++ /usr/include/CLI \
    /usr/src/googletest /usr/share/perl \
    /usr/share/cmake-*; do
    [[ -d "$folder" ]] && folders+=("$folder")
  done
  [[ ${#folders[@]} -gt 0 ]] || return 0
  # Perl's unicore holds number tables. grep -I leaves out binary files and, as it must match, empty ones.
  find "${folders[@]}" -type f -size -2048k -not -path '*/unicore/*' -not -name '*.gz' -not -name '*.png' \
    -exec grep -IlZ '' {} + | LC_ALL=C sort -z
}

make_documents() {
  local staging=$kDocuments.partial
  rm -rf "$staging"
  mkdir -p "$staging"
  corpus_files | xargs -0 -r cp --parents -t "$staging" --
  local bytes
  bytes=$(du -sb --apparent-size "$staging" | cut -f 1)
  if [[ "$bytes" -lt "$kSmallestCorpus" ]]; then
    rm -rf "$staging"
    die "found only $bytes bytes of text in /usr/include, /usr/share/perl and /usr/share/cmake-*; $kSmallestCorpus are
wanted. On a system that keeps them elsewhere, put any texts or sources into $kDocuments and run this again."
  fi
  rm -rf "$kDocuments"
  mv "$staging" "$kDocuments"
}

# --- metrics ----------------------------------------------------------------------------------------------------------

# values FIELD: that number of each step in the run's metrics, in the order of steps. Of a step done twice the later one
# counts. Done with awk, as the machine may have nothing else.
values() {
  awk -v field="\"$1\":" '
    function number(key,   at, rest) {
      at = index($0, key)
      if (!at) return ""
      rest = substr($0, at + length(key))
      sub(/^ */, "", rest)
      sub(/[,} ].*/, "", rest)
      return rest
    }
    {
      step = number("\"step\":"); value = number(field)
      if (step != "" && value != "" && value != "null") { seen[step] = value; if (step + 0 > last) last = step + 0 }
    }
    END { for (i = 0; i <= last; ++i) if (i in seen) print seen[i] }' "$run_folder/metrics.jsonl"
}

mean() { awk '{ sum += $1 } END { if (NR) printf "%.'"$1"'f", sum / NR; else printf "?" }'; }

# --- the run ----------------------------------------------------------------------------------------------------------

train() {
  # Root is asked twice by mpirun. Each rank runs several threads, so mpirun must not bind it to one core. On SIGTERM the
  # ranks need longer than mpirun's one second to finish their step and save.
  local flags=(--bind-to none --mca odls_base_sigkill_timeout 30)
  [[ $(nproc) -ge $kRanks ]] || flags+=(--oversubscribe)
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  run mpirun -n "$kRanks" "${flags[@]}" "$longspan" train "$kConfig" "${overrides[@]}" "$@" ||
    die "training failed; its message is above, and the log in $run_folder/log.txt"
}

step "1/6 packages"
launch/setup.sh "${setup[@]}"

step "2/6 build"
if ! cmake --preset default -B "$build" >"${TMPDIR:-/tmp}/longspan-configure.$$" 2>&1; then
  cat "${TMPDIR:-/tmp}/longspan-configure.$$" >&2
  rm -f "${TMPDIR:-/tmp}/longspan-configure.$$"
  die "configuring failed; CMake's message is above"
fi
rm -f "${TMPDIR:-/tmp}/longspan-configure.$$"
cmake --build "$build" --target longspan --parallel "$(nproc)" || die "the build failed; the compiler's message is above"
longspan=$build/longspan

name=quickstart
overrides=()
steps=$(sed -n 's/^steps *= *\([0-9]*\).*/\1/p' "$kConfig")
if $sample; then
  name=quickstart-sample
  steps=6
  overrides=(--set "run.name=$name" --set "run.steps=$steps" --set data.max_length=4096 --set batch.tokens=4096
    --set metrics.evaluate_every=3)
fi
run_folder=runs/$name

step "3/6 corpus: text that this machine has"
if [[ ! -d "$kDocuments" ]]; then
  make_documents
fi
echo "$(find "$kDocuments" -type f | wc -l) documents in $kDocuments"
if [[ ! -s "$kDataset" ]]; then
  run "$longspan" data build "$kDocuments" --out "$kDataset"
fi
run "$longspan" data inspect "$kDataset"

if [[ -e "$run_folder" ]]; then
  rm -rf "$run_folder.old"
  mv "$run_folder" "$run_folder.old"
  echo "the run that was in $run_folder is now in $run_folder.old"
fi

step "4/6 train: $steps steps on $kRanks ranks, stopped after $((steps / 2))"
begin=$SECONDS
train --stop-after $((steps / 2))

step "5/6 train: resume from the checkpoint"
train --resume auto
training=$((SECONDS - begin))

step "6/6 generate"
prompt='#include <'
run "$longspan" generate "$run_folder" --prompt "$prompt" --tokens 200

edge=$((steps < 20 ? 1 : 5))
done_steps=$(values loss | wc -l)
[[ "$done_steps" -eq "$steps" ]] || die "$run_folder/metrics.jsonl has $done_steps steps, not $steps"
before=$(values loss | head -n "$edge" | mean 3)
after=$(values loss | tail -n "$edge" | mean 3)
echo
echo "== Done in $SECONDS s, $training s of them training"
echo "  loss         $before -> $after   mean of the first and the last $edge steps; 5.549 is a guess among 257 tokens"
echo "  validation   $(values validation_loss | tail -n 1 | mean 3)   on documents that were held out"
echo "  tokens/s     $(values tokens_per_second | mean 0)"
echo "  balance      $(values busy_max_over_mean | mean 3)   busiest rank / mean of ranks; 1 is perfect"
echo "  long ones    $(values groups | awk '{ n += $1 } END { print n + 0 }') documents were shared by both ranks"
echo "  model        $run_folder/checkpoints"
if ! awk -v before="$before" -v after="$after" 'BEGIN { exit !(after < before) }'; then
  die "the loss did not fall; please report this with $run_folder/log.txt"
fi
again="mpirun -n $kRanks --bind-to none $longspan train $kConfig"
[[ ${#overrides[@]} -eq 0 ]] || again+=" ${overrides[*]}"
[[ $EUID -ne 0 ]] || again="OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 $again"
cat <<NEXT

What to try next
  more text          $longspan generate $run_folder --prompt 'sub ' --tokens 400
  train on           $again --set run.steps=$((2 * steps)) --set schedule.on_budget_change=retime --resume auto
  your own data      $longspan data build FOLDER --out data/mine.h5
                     then name it in a copy of $kConfig, under [data]
  every setting      $longspan config defaults
  the tests          bash tests/run.sh
NEXT
