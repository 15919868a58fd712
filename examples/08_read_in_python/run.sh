#!/usr/bin/env bash
# Reads a checkpoint of three ranks in Python, and compares it with what `checkpoint export` writes.
# Needs h5py and numpy; exits with 77, "skipped", where Python lacks them. PYTHON names another interpreter.
# Usage: run.sh LONGSPAN [FOLDER]
set -euo pipefail
longspan=$(realpath "${1:?usage: run.sh LONGSPAN [FOLDER]}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${2:-$(mktemp -d)}
python=${PYTHON:-python3}
if ! "$python" -c 'import h5py, numpy' 2>/dev/null; then
  echo "skipped: $python has no h5py and numpy"
  exit 77
fi
mkdir -p "$folder" && cd "$folder" && rm -rf runs model

"$longspan" data build "$here/../../optim" --extensions .cc,.h --out code.h5
"$longspan" train "$here/../04_stop_and_resume/stop.toml" --ranks 3 --stop-after 2
step=runs/stop/checkpoints/$(cat runs/stop/checkpoints/latest)
"$python" "$here/read_checkpoint.py" "$step" | sed -n 1,5p
"$longspan" checkpoint export runs/stop --out model --shard 1

"$python" - "$here" "$step" <<'PYTHON'
import json, pathlib, struct, sys
sys.path.insert(0, sys.argv[1])
import numpy
from read_checkpoint import read_tensors

def safetensors(path):  # the format is small enough to read by hand
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    for name, entry in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield name, numpy.frombuffer(data[8 + length + begin:8 + length + end], "<f4").reshape(entry["shape"])

ours = {name[len("/parameters/"):]: array for name, array in read_tensors(sys.argv[2]).items()
        if name.startswith("/parameters/")}
theirs = {name: array for path in pathlib.Path("model").glob("*.safetensors") for name, array in safetensors(path)}
assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
for name, array in ours.items():
    assert array.shape == theirs[name].shape and (array == theirs[name]).all(), name
print(f"{len(ours)} tensors, the same from rank files and from safetensors")
PYTHON
