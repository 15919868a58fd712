#!/usr/bin/env bash
# Packs the tests that need a GPU, the GPU benchmark and the libraries they need into one archive.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
  cat <<'USAGE'
Usage: tests/gpu/pack.sh [options]

For a GPU machine that has a driver and Python's CUDA packages (PyTorch brings them), but no MPI, HDF5 or compiler. Builds
the tests labelled gpu, train_bench and attention_bench, and packs them, stripped, with the shared libraries they link.
CUDA's own libraries (cuBLASLt, cuDNN, NCCL) are taken from that machine. There:

  tar xf longspan-gpu.tar.xz && longspan-gpu/run.sh            # the tests
  longspan-gpu/run.sh bench --rows attention                   # the benchmark, with the options of tests/bench/gpu.sh
  longspan-gpu/run.sh sanitizer                                # the tests under compute-sanitizer, where it is on PATH

  --out FILE     (default: longspan-gpu.tar.xz)
  --build DIR    build folder (default: build-cuda)
  --archs LIST   GPU architectures to compile for (default: 90a, Hopper; e.g. '80;90a;100')

Example: tests/gpu/pack.sh --out /tmp/longspan-gpu.tar.xz
USAGE
}
die() { echo "pack: $1" >&2; exit "${2:-1}"; }
value_of() { [[ $# -ge 2 ]] || die "$1 needs a value; see tests/gpu/pack.sh --help" 2; printf '%s' "$2"; }

out=longspan-gpu.tar.xz build=build-cuda archs=90a
while [[ $# -gt 0 ]]; do
  case "$1" in
    --out) out=$(value_of "$@"); shift ;;
    --build) build=$(value_of "$@"); shift ;;
    --archs) archs=$(value_of "$@"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option '$1'; see tests/gpu/pack.sh --help" 2 ;;
  esac
  shift
done
readonly kMostBytes=$((55 << 20))  # what a reader of the help may count on

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
pack=$folder/longspan-gpu
mkdir -p "$pack/bin" "$pack/lib" "$pack/bench"

echo "pack: building in $build for $archs" >&2
log=$folder/log
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLONGSPAN_CUDA=ON -DLONGSPAN_BENCHMARKS=ON \
  "-DCMAKE_CUDA_ARCHITECTURES=$archs" >"$log" 2>&1 || { cat "$log" >&2; die "configuring failed; see above"; }
# Programs are named after their tests (tests/CMakeLists.txt).
mapfile -t tests < <(ctest --test-dir "$build" --show-only=json-v1 -L gpu | python3 -c '
import json, sys
for test in json.load(sys.stdin)["tests"]:
    print(test["name"].replace(".", "_") + "_test")')
[[ ${#tests[@]} -gt 0 ]] || die "no test has the label gpu"
cmake --build "$build" --target "${tests[@]}" train_bench attention_bench >"$log" 2>&1 ||
  { cat "$log" >&2; die "the build failed; see above"; }

for test in "${tests[@]}"; do
  program=$(find "$build/tests" -type f -name "$test" -perm -u+x)
  install -m 755 --strip "$program" "$pack/bin/"
done
for program in train_bench attention_bench; do install -m 755 --strip "$build/tests/bench/$program" "$pack/bin/"; done
printf '%s\n' "${tests[@]}" >"$pack/tests"
cp tests/bench/{gpu.sh,gpu.py,measure.py,pytorch_train.py,pytorch_attention.py} "$pack/bench/"

# The C library and its loader too: that machine's may be older.
for program in "$pack"/bin/*; do
  ldd "$program" | awk '/=> \// { print $3 } /^\t\/.*ld-linux/ { print $1 }'
done | sort -u | while read -r library; do cp -L "$library" "$pack/lib/"; done

cat >"$pack/run.sh" <<'RUN'
#!/usr/bin/env bash
# Runs the packed tests, or with `bench` the benchmark; see tests/gpu/pack.sh.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# CUDA's libraries, where Python's packages put them.
cuda=$(python3 - <<'PYTHON'
import glob, os, sys
print(":".join(sorted({os.path.dirname(f) for p in sys.path for f in glob.glob(os.path.join(p, "nvidia", "**", "*.so*"), recursive=True)})))
PYTHON
)
loader=$(ls "$here"/lib/ld-linux* | head -n 1)
# Programs start through the packed loader, so that the packed C library is used with it.
mkdir -p "$here/start"
for program in "$here"/bin/*; do
  name=$(basename "$program")
  printf '#!/bin/sh\nexec %s --library-path %s "%s" "$@"\n' "$loader" "$here/lib:$cuda:${LD_LIBRARY_PATH:-}" "$program" \
    >"$here/start/$name"
  chmod +x "$here/start/$name"
done

case "${1:-tests}" in
  bench) shift; exec bash "$here/bench/gpu.sh" --bin "$here/start" --results "${RESULTS:-$here/results}" "$@" ;;
  tests) under=() ;;
  sanitizer) under=(compute-sanitizer --error-exitcode 1 --target-processes all) ;;
  *) echo "run.sh: '$1'? There are: tests (default), sanitizer, bench [options]" >&2; exit 2 ;;
esac
failed=()
while read -r name; do
  echo "=== $name"
  "${under[@]}" "$here/start/$name" || failed+=("$name")
done <"$here/tests"
echo "$(wc -l <"$here/tests") test programs, ${#failed[@]} failed${failed:+: ${failed[*]}}"
[[ ${#failed[@]} -eq 0 ]]
RUN
chmod +x "$pack/run.sh"
tar -C "$folder" -cJf "$out" longspan-gpu
bytes=$(stat -c %s "$out")
[[ "$bytes" -le "$kMostBytes" ]] || die "$out has $((bytes >> 20)) MiB, more than $((kMostBytes >> 20)): fewer --archs?"
echo "pack: $out, $((bytes >> 20)) MiB: ${#tests[@]} test programs and the benchmark"
