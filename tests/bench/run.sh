#!/usr/bin/env bash
# Builds and runs the training benchmark; see README.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
  cat <<'USAGE'
Usage: tests/bench/run.sh [options]

Trains the benchmark's model with Longspan and, where it is importable, with PyTorch, interleaved with SGEMM of the same
library and threads; prints a table and writes tests/bench/results/<device>.json. Quiet machine: about ten minutes on two
cores.

  --rounds N       rounds of which medians are taken (default 9)
  --python PATH    an interpreter with PyTorch, e.g. that of a virtual environment (default: python3)
  --threads N      threads in all (default: one a core)
  --quick          3 rounds, without the memory check: to see that it works
  --kernels        single operators (Google Benchmark) instead
  --build DIR      build folder (default: build)
  --bench PATH     a train_bench that is built already
  --results DIR    where the JSON goes (default: tests/bench/results)
USAGE
}
die() { echo "bench: $1" >&2; exit "${2:-1}"; }
value_of() { [[ $# -ge 2 ]] || die "$1 needs a value; see tests/bench/run.sh --help" 2; printf '%s' "$2"; }

python=python3 build=$root/build bench='' kernels=false
arguments=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --rounds | --threads)
      value=$(value_of "$@")
      [[ "$value" =~ ^[1-9][0-9]*$ ]] || die "$1 $value: must be a positive number" 2
      arguments+=("$1" "$value"); shift ;;
    --results) arguments+=("$1" "$(value_of "$@")"); shift ;;
    --python) python=$(value_of "$@"); shift ;;
    --quick) arguments+=(--rounds 3 --no-memory) ;;
    --kernels) kernels=true ;;
    --build) build=$(value_of "$@"); shift ;;
    --bench) bench=$(value_of "$@"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option '$1'; see tests/bench/run.sh --help" 2 ;;
  esac
  shift
done

target=train_bench
! $kernels || target=kernels_bench
if [[ -z "$bench" ]]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  echo "bench: building $target in $build" >&2
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLONGSPAN_BENCHMARKS=ON -DLONGSPAN_TESTS=ON \
    >"$log" 2>&1 && cmake --build "$build" --target "$target" >>"$log" 2>&1 ||
    { cat "$log" >&2; die "the build failed; its message is above"; }
  bench=$build/tests/bench/$target
fi
[[ -x "$bench" ]] || die "$bench is not there"
if $kernels; then exec "$bench"; fi
command -v python3 >/dev/null || die "the benchmark's driver wants python3 (apt-get install python3)"
exec python3 "$here/measure.py" --bench "$bench" --python "$python" "${arguments[@]}"
