#!/usr/bin/env bash
# Builds and runs the GPU benchmark; see README.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
  cat <<'USAGE'
Usage: tests/bench/gpu.sh [options]

On one GPU, row by row: attention alone beside PyTorch's cuDNN and flash attention; training of GPT-2 124M and 1.5B at
1024 tokens, a Llama of 1B at 8K and 32K, Qwen2.5 of 0.5B and 1.5B at 1024, beside PyTorch (compiled, fused AdamW, its
faster attention) on the same model and batch, interleaved, with the rate of a large product before and after each step.
Rows that have a result are left out, so that a run that was cut short goes on where it stopped. Prints tables and writes
tests/bench/results/gpu-<device>.json.

  --rounds N       rounds of which medians are taken (default 9)
  --rows TEXT      only rows whose name has TEXT in it, such as 'attention' or 'llama'
  --again          rows that have a result too
  --python PATH    an interpreter with PyTorch (default: python3; without PyTorch its columns stay empty)
  --quick          tiny rows: to see that it works; with --device cpu on any machine
  --device D       cuda (default) or cpu
  --build DIR      build folder (default: build-cuda)
  --bin DIR        a folder with train_bench and attention_bench that are built already
  --results DIR    where the JSON goes (default: tests/bench/results)

Example: tests/bench/gpu.sh --rows attention --python venv/bin/python
USAGE
}
die() { echo "bench: $1" >&2; exit "${2:-1}"; }
value_of() { [[ $# -ge 2 ]] || die "$1 needs a value; see tests/bench/gpu.sh --help" 2; printf '%s' "$2"; }

python=python3 build=$root/build-cuda bin=''
arguments=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --rounds)
      value=$(value_of "$@")
      [[ "$value" =~ ^[1-9][0-9]*$ ]] || die "$1 $value: must be a positive number" 2
      arguments+=("$1" "$value"); shift ;;
    --rows | --device | --results) arguments+=("$1" "$(value_of "$@")"); shift ;;
    --again | --quick) arguments+=("$1") ;;
    --python) python=$(value_of "$@"); shift ;;
    --build) build=$(value_of "$@"); shift ;;
    --bin) bin=$(value_of "$@"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option '$1'; see tests/bench/gpu.sh --help" 2 ;;
  esac
  shift
done

if [[ -z "$bin" ]]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  echo "bench: building in $build" >&2
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLONGSPAN_CUDA=ON -DLONGSPAN_BENCHMARKS=ON \
    >"$log" 2>&1 && cmake --build "$build" --target train_bench attention_bench >>"$log" 2>&1 ||
    { cat "$log" >&2; die "the build failed; its message is above"; }
  bin=$build/tests/bench
fi
for program in train_bench attention_bench; do
  [[ -x "$bin/$program" ]] || die "$bin/$program is not there"
done
command -v python3 >/dev/null || die "the benchmark's driver wants python3 (apt-get install python3)"
exec python3 "$here/gpu.py" --train-bench "$bin/train_bench" --attention-bench "$bin/attention_bench" \
  --python "$python" "${arguments[@]}"
