#!/usr/bin/env bash
# Builds and runs the checkpoint benchmark; see README.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
  cat <<'USAGE'
Usage: tests/bench/checkpoint.sh [options]

What saves cost: lazy ones every 10th, 5th, 2nd and every iteration, beside no saves, synchronous ones, and, where PyTorch
is importable, torch.save and torch.distributed.checkpoint.async_save; how fast they are on disk and back, beside fio (where
it is installed; else beside a write loop of its own and dd). Interleaved in rounds; prints tables and writes
tests/bench/results/checkpoint-<device>-<n>-ranks.json. Says first what disk and memory it needs (2 ranks of 1 GiB: 18 GiB
of disk and 10 GiB of memory, with PyTorch 24 and 16). About 2 minutes a round on two cores, with PyTorch 5; one more to
warm up.

  --directory DIR  on the disk to be measured (default: the build folder)
  --python PATH    an interpreter with PyTorch, e.g. that of a virtual environment (default: python3)
  --memory-tier D  where host memory outlives a process: on tmpfs (default: /dev/shm)
  --rounds N       rounds of which medians are taken (default 7)
  --ranks N        ranks, of one compute thread each (default 2)
  --state-mib N    state of a rank (default 1024)
  --compute S      seconds of forward and backward in an iteration (default 1)
  --every LIST     a save every so many iterations (default 10,5,2,1)
  --quick          2 rounds of 64 MiB and 0.1 s: to see that it works
  --build DIR      build folder (default: build)
  --bench PATH     a checkpoint_bench that is built already
  --results DIR    where the JSON goes (default: tests/bench/results)

Example: bash tests/bench/checkpoint.sh --directory /scratch --python venv/bin/python
USAGE
}
die() { echo "bench: $1" >&2; exit "${2:-1}"; }
value_of() { [[ $# -ge 2 ]] || die "$1 needs a value; see tests/bench/checkpoint.sh --help" 2; printf '%s' "$2"; }

python=python3 build=$root/build bench='' directory=''
arguments=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --rounds | --ranks)
      value=$(value_of "$@")
      [[ "$value" =~ ^[1-9][0-9]*$ ]] || die "$1 $value: must be a positive number" 2
      arguments+=("$1" "$value"); shift ;;
    --state-mib | --compute)
      value=$(value_of "$@")
      [[ "$value" =~ ^[0-9]*\.?[0-9]+$ ]] || die "$1 $value: must be a number" 2
      arguments+=("$1" "$value"); shift ;;
    --every)
      value=$(value_of "$@")
      [[ "$value" =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || die "--every $value: must be numbers, such as 10,1" 2
      arguments+=("$1" "$value"); shift ;;
    --results) arguments+=("$1" "$(value_of "$@")"); shift ;;
    --memory-tier) arguments+=("$1" "$(value_of "$@")"); shift ;;
    --directory) directory=$(value_of "$@"); shift ;;
    --python) python=$(value_of "$@"); shift ;;
    --quick) arguments+=(--rounds 2 --state-mib 64 --compute 0.1) ;;
    --build) build=$(value_of "$@"); shift ;;
    --bench) bench=$(value_of "$@"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option '$1'; see tests/bench/checkpoint.sh --help" 2 ;;
  esac
  shift
done

command -v python3 >/dev/null || die "the benchmark's driver wants python3 (apt-get install python3)"
if [[ -z "$bench" ]]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  echo "bench: building checkpoint_bench in $build" >&2
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLONGSPAN_BENCHMARKS=ON -DLONGSPAN_TESTS=ON \
    >"$log" 2>&1 && cmake --build "$build" --target checkpoint_bench >>"$log" 2>&1 ||
    { cat "$log" >&2; die "the build failed; its message is above"; }
  bench=$build/tests/bench/checkpoint_bench
fi
[[ -x "$bench" ]] || die "$bench is not there"
exec python3 "$here/checkpoint.py" --bench "$bench" --python "$python" --directory "${directory:-$build}" "${arguments[@]}"
