#!/usr/bin/env bash
# Makes the PyTorch vectors anew, compares them with the recorded ones, and runs the parity test on them.
# Usage: tests/parity/run.sh [BUILD_DIRECTORY]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${1:-$here/../../build}
python=${PYTHON:-python3}

if ! "$python" -c 'import torch, h5py, numpy' 2>/dev/null; then
  environment=$build/parity-venv
  if ! "$environment/bin/python" -c 'import torch, h5py, numpy' 2>/dev/null; then
    echo "parity: installing torch, numpy and h5py from PyPI into $environment (about 3 GB)"
    "$python" -m venv "$environment"
    "$environment/bin/pip" install --quiet torch numpy h5py
  fi
  python=$environment/bin/python
fi

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$python" "$here/make_vectors.py" "$fresh"
"$python" "$here/compare_vectors.py" "$here" "$fresh"
LONGSPAN_PARITY_VECTORS=$fresh "$build/tests/parity/parity_pytorch_test"
