#!/usr/bin/env bash
# launch/slurm/longspan.sbatch queues a job again when it was stopped for time and only then. Stand-ins take the places of
# Slurm's commands and of longspan.
#   slurm_test.sh SBATCH_SCRIPT
# shellcheck disable=SC2016,SC2034  # conditions are evaluated by check(), and "status" with them
set -euo pipefail
script=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
export SCRATCH=$scratch
printf '#!/bin/bash\necho "scontrol $*" >>"$SCRATCH/calls"\n' >"$scratch/bin/scontrol"
# Drops its own options, as srun does, and runs the rest.
printf '#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"\n' >"$scratch/bin/srun"
printf '#!/bin/bash\necho "longspan $*" >>"$SCRATCH/calls"\nexit "$(cat "$SCRATCH/status")"\n' >"$scratch/longspan"
chmod +x "$scratch/bin/"* "$scratch/longspan"
echo 'run = {}' >"$scratch/my.toml"

fail=0
check() {
  if ! eval "$2"; then
    echo "slurm_test: FAILED: $1" >&2
    cat "$scratch/output" "$scratch/calls" >&2
    fail=1
  fi
}
# job STATUS SECONDS_LEFT ARGUMENTS...: what the script does when longspan exits with STATUS that long before the end.
job() {
  local end
  echo "$1" >"$scratch/status"
  end=$(($(date +%s) + $2))
  shift 2
  : >"$scratch/calls"
  status=0
  env PATH="$scratch/bin:$PATH" SLURM_SUBMIT_DIR="$scratch" SLURM_JOB_ID=42 SLURM_JOB_END_TIME="$end" \
    LONGSPAN="$scratch/longspan" bash "$script" "$@" >"$scratch/output" 2>&1 || status=$?
}

job 0 3000 my.toml --set run.steps=9
check 'done in time: not queued again' '[[ $status -eq 0 ]] && ! grep -q requeue "$scratch/calls"'
check 'arguments reach longspan, with resume' \
  'grep -qx "longspan train my.toml --set run.steps=9 --resume auto" "$scratch/calls"'
job 0 100 my.toml
check 'stopped for time: queued again' '[[ $status -eq 0 ]] && grep -qx "scontrol requeue 42" "$scratch/calls"'
job 3 100 my.toml
check 'failed: its status, not queued again' '[[ $status -eq 3 ]] && ! grep -q requeue "$scratch/calls"'
job 0 3000 other.toml
check 'no such configuration: refused before anything starts' '[[ $status -eq 2 && ! -s $scratch/calls ]]'
job 0 3000
check 'no arguments: refused' '[[ $status -eq 2 ]]'

[[ $fail -eq 0 ]] && echo "slurm_test: passed"
exit $fail
