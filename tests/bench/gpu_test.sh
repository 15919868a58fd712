#!/usr/bin/env bash
# That the GPU benchmark's programs answer, that its rows get results, and that a second run goes on instead of measuring
# again. Usage: gpu_test.sh FOLDER_OF_THE_PROGRAMS DEVICE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$1 device=$2
fail() { echo "bench.gpu: $1" >&2; exit 1; }
command -v python3 >/dev/null || { echo "bench.gpu: skipped: there is no python3"; exit 77; }

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
run() { "$here/gpu.sh" --bin "$bin" --device "$device" --quick --python false --results "$results" "$@" 2>&1; }

first=$(run --rows attention)
echo "$first"
grep -q 'a ring step | [0-9.e+-]* | [0-9.e+-]* |' <<<"$first" || fail "no rates of attention"
second=$(run)
echo "$second"
[[ $(grep -c 'has a result' <<<"$second") == 1 ]] || fail "a row was measured again, or lost"
[[ $(grep -c '^| tiny, [0-9]* | [0-9]* |' <<<"$second") == 2 ]] || fail "not two rows of training"
if run --rows nothing >/dev/null; then fail "rows that are not there were accepted"; fi
if printf 'full 64\n' | "$bin/attention_bench" 2>/dev/null; then fail "a command cut short was accepted"; fi
