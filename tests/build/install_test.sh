#!/usr/bin/env bash
# An installation is complete: a project that knows nothing but its prefix finds the package, builds, links and runs.
#   install_test.sh CMAKE BUILD_DIRECTORY CONSUMER_SOURCE COMPILER
set -euo pipefail
cmake=$1
build=$2
consumer=$3
compiler=$4

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
quietly() {
  "$@" >"$scratch/log" 2>&1 || {
    cat "$scratch/log"
    echo "install: FAILED: $*" >&2
    exit 1
  }
}

quietly "$cmake" --install "$build" --prefix "$scratch/prefix"
# Nothing installed may lead back to where it was built: moved, it must still work.
mv "$scratch/prefix" "$scratch/moved"
if grep -rlF "$build" "$scratch/moved" --include='*.cmake' --include='*.h'; then
  echo "install: the files above name the build directory" >&2
  exit 1
fi
quietly "$cmake" -S "$consumer" -B "$scratch/build" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/moved" \
  -DCMAKE_CXX_COMPILER="$compiler"
quietly "$cmake" --build "$scratch/build"
mkdir "$scratch/checkpoints"
"$scratch/build/consumer" "$scratch/checkpoints" || {
  echo "install: the consumer exited with $?" >&2
  exit 1
}
if [[ -e "$build/longspan" ]]; then
  "$scratch/moved/bin/longspan" --help >/dev/null
fi
echo "install: package found, two libraries linked, consumer ran"
