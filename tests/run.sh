#!/usr/bin/env bash
# Installs what is missing, builds, runs the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'USAGE'
Usage: tests/run.sh [options]

Without options: installs what is missing, builds with warnings as errors, and runs the fast suite and the tests under
mpirun. Exits non-zero on the first part that fails.

  --full           the long tests too, 10,000 killed processes among them
  --sanitize       the fast suite (one process) under ASan and UBSan, in build-sanitize
  --tsan           the fast suite (one process) under TSan, in build-tsan
  --gpu            the tests that need a GPU; builds with CUDA, in build-cuda
  --parity         makes the PyTorch vectors anew and compares (needs PyTorch)
  --filter REGEX   only tests whose name matches, e.g. 'kernels' or 'checkpoint.commit'
  --jobs N         builds and runs N at a time (default: one a core)
  --build DIR      builds there
  --no-install     only checks that the packages are there

Examples: tests/run.sh                        all that CI's first part runs
          tests/run.sh --filter ring          one subject
          tests/run.sh --sanitize --filter kernels
USAGE
}

die() {
  echo "tests: $1" >&2
  exit "${2:-1}"
}

preset=default
exclude='full|gpu|bench'
include=''
filter=''
build=''
parity=false
jobs=$(nproc)
setup=(--tests)
value_of() { [[ $# -ge 2 ]] || die "$1 needs a value; see tests/run.sh --help" 2; printf '%s' "$2"; }
while [[ $# -gt 0 ]]; do
  case "$1" in
    --full) exclude='gpu|bench' ;;
    --sanitize) preset=sanitize; exclude='.+' ;;
    --tsan) preset=tsan; exclude='.+' ;;
    --gpu) preset=cuda; include='gpu'; exclude='bench' ;;
    --parity) parity=true ;;
    --filter) filter=$(value_of "$@"); shift ;;
    --jobs) jobs=$(value_of "$@"); shift ;;
    --build) build=$(value_of "$@"); shift ;;
    --no-install) setup+=(--no-install) ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option '$1'; see tests/run.sh --help" 2 ;;
  esac
  shift
done
[[ "$jobs" =~ ^[1-9][0-9]*$ ]] || die "--jobs $jobs: must be a positive number" 2
case "$preset" in
  default) build=${build:-build} ;;
  *) build=${build:-build-$preset} ;;
esac

# Tests start mpirun too: as root it wants to be asked twice, and CI has fewer cores than ranks.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1${TSAN_OPTIONS:+:$TSAN_OPTIONS}"

seconds=$SECONDS
launch/setup.sh "${setup[@]}"

if $parity; then
  [[ -x tests/parity/run.sh ]] || die "tests/parity/run.sh is not there"
  tests/parity/run.sh || die "FAILED: parity with PyTorch"
  echo "tests: passed: parity with PyTorch, $((SECONDS - seconds)) s"
  exit 0
fi

options=(-DLONGSPAN_TESTS=ON -DLONGSPAN_WERROR=ON)
case "$preset" in
  # Under sanitizers the tests alone: benchmarks and examples would only take time.
  sanitize | tsan) options+=(-DLONGSPAN_BENCHMARKS=OFF -DLONGSPAN_EXAMPLES=OFF) ;;
  *) options+=(-DLONGSPAN_BENCHMARKS=ON -DLONGSPAN_EXAMPLES=ON) ;;
esac
echo "tests: configuring $build (preset $preset)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! cmake --preset "$preset" -B "$build" "${options[@]}" >"$log" 2>&1; then
  cat "$log" >&2
  die "FAILED: configuring $build; CMake's message is above"
fi
echo "tests: building with $jobs at a time"
cmake --build "$build" --parallel "$jobs" || die "FAILED: the build of $build; the compiler's message is above"
echo "tests: built in $((SECONDS - seconds)) s"

selection=(--label-exclude "$exclude")
[[ -z "$include" ]] || selection+=(--label-regex "$include")
[[ -z "$filter" ]] || selection+=(--tests-regex "$filter")
# --timeout is for tests that set none of their own.
if ! ctest --test-dir "$build" --parallel "$jobs" --output-on-failure --no-tests=error --timeout 300 \
    "${selection[@]}" 2>&1 | tee "$log"; then
  die "FAILED: see above, and $build/Testing/Temporary/LastTest.log"
fi
# ctest counts skipped tests as passed; a run in which all were skipped has tested nothing.
count=$(sed -n 's/.*tests passed, 0 tests failed out of \([0-9]*\).*/\1/p' "$log")
skipped=$(grep -c '\*\*\*Skipped' "$log" || true)
[[ "${count:-0}" -gt "$skipped" ]] || die "FAILED: no test was run"
echo "tests: passed: $((count - skipped)) tests, $skipped skipped, preset $preset, $((SECONDS - seconds)) s"
