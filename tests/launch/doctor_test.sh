#!/usr/bin/env bash
# `longspan doctor`, alone and under mpirun, on whatever machine this is.
# Usage: doctor_test.sh LONGSPAN
set -uo pipefail
longspan=$1
# shellcheck source=tests/launch/expectations.sh
source "$(dirname "${BASH_SOURCE[0]}")/expectations.sh"

# has PYTHON_EXPRESSION: holds for the JSON object d in out.txt.
has() {
  python3 -c "import json, sys; d = json.load(open('out.txt')); sys.exit(0 if ($1) else 1)" ||
    { echo "FAILED: not true of the report: $1"; cat out.txt; failures=$((failures + 1)); }
}

accepts "$longspan" doctor --json
has "d['machine']['host'] and d['machine']['cores']['allowed'] >= 1"
has "0 < d['machine']['memory']['available_bytes'] <= d['machine']['memory']['bytes']"
has "d['machine']['io_uring']['available'] == (d['machine']['io_uring']['problem'] == '')"
has "d['cpu']['f32 products']['flops_per_second'] > 1e8 and d['cpu']['memory copy']['gigabytes_per_second'] > 0.1"
has "d['storage']['.']['free_bytes'] > 0 and d['storage']['/dev/shm']['kind'] == 'tmpfs'"
has "all(('version' in d['gpu'][l]) and (d['gpu'][l]['version'] or d['gpu'][l]['problem']) for l in ('cuDNN', 'cuBLASLt', 'NCCL'))"
has "d['job']['MPI']['problem'] == '' and d['job']['ranks'] == 1"
has "d['device']['auto']['kind'] in ('cpu', 'cuda')"
# What a run takes is what is said here.
has "(d['device']['auto']['kind'] == 'cuda') == ('GPU 0' in d['gpu'] and 'problem' not in d['gpu']['GPU 0'] and not d['device']['auto']['why'])"

accepts mpirun --oversubscribe --bind-to none -n 2 "$longspan" doctor --json
has "d['job']['ranks'] == 2 and sum(d['job']['ranks by node'].values()) == 2"
has "d['job']['messages']['gigabytes_per_second'] > 0.01"

accepts "$longspan" doctor --quick --directory /nowhere
grep -q '/nowhere  *No such file' out.txt || { echo "FAILED: a missing directory"; cat out.txt; failures=$((failures + 1)); }
grep -q '^machine$' out.txt && grep -q '^device$' out.txt || { echo "FAILED: no sections"; cat out.txt; failures=$((failures + 1)); }
grep -q 'GFLOP' out.txt && { echo "FAILED: --quick measured"; failures=$((failures + 1)); }
"$longspan" doctor --help | grep -q 'Example' || { echo "FAILED: no example in --help"; failures=$((failures + 1)); }
exit "$((failures > 0))"
