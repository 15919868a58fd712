#!/usr/bin/env bash
# The command on GPUs, with the stand-in in their place: alone, as threads and under mpirun; the same losses as on the CPU,
# checkpoints that either goes on from; what it says where there is no GPU, no memory, or a kernel goes wrong.
# Usage: command_test.sh LONGSPAN_STAND_IN LONGSPAN alone|ranks|transports|failures
set -uo pipefail
gpu=$1 cpu=$2 mode=$3
# shellcheck source=tests/launch/expectations.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../launch/expectations.sh"

mkdir texts
for length in 290 3 150 1 77 41 260 12 180 95 30 220 64 8; do
  head -c $length /usr/share/common-licenses/GPL-3 >texts/$length.txt
done
accepts "$cpu" data build texts --out corpus.h5
# Its longest document takes two ranks of 160 tokens, and three of 100: rings.
cat >run.toml <<'TOML'
[run]
steps = 3
device = "cuda"
threads = 1
[data]
sources = [{ path = "corpus.h5" }]
validation = 0.2
[model]
layers = 2
width = 32
heads = 4
kv_heads = 2
ffn = 80
[batch]
tokens = 500
micro_batch_tokens = 160
[schedule]
peak = 3e-3
warmup = 0
[checkpoint]
interval = 2
[metrics]
evaluate_every = 2
TOML
mpi=(mpirun --oversubscribe --bind-to none)
two=("${mpi[@]}" -n 2 "$gpu" train run.toml)

# on_rank_1 VARIABLE=VALUE ARGUMENTS...: the command line of two ranks, of which the second has the variable.
on_rank_1() {
  local variable=$1
  shift
  command=("${mpi[@]}" -n 1 "$gpu" "$@" : -n 1 env "$variable" "$gpu" "$@")
}

# says TEXT: the last command did, on standard error.
says() {
  grep -qE -- "$1" err.txt || { echo "FAILED: nothing like '$1' was said:"; cat err.txt; failures=$((failures + 1)); }
}
never_says() {
  ! grep -qE -- "$1" err.txt || { echo "FAILED: '$1' was said:"; cat err.txt; failures=$((failures + 1)); }
}

# near RUN OTHER: the runs' losses and gradients, step by step. BF16 keeps 8 bits, so a value is off by 2^-9 = 0.2% at most,
# and a logit has passed a handful of such roundings, at random: half a percent. Gradients pass twice as many, and much of
# them cancels in sums, their errors do not.
near() {
  python3 - "$@" <<'PYTHON' || failures=$((failures + 1))
import json, sys
def read(run):
    values = {}
    for line in open(f"runs/{run}/metrics.jsonl"):
        entry = json.loads(line)
        for key in ("loss", "validation_loss", "gradient_norm"):
            if key in entry:
                values[key, entry["step"]] = entry[key]  # of a step made twice the later one
    return values
run, other = (read(name) for name in sys.argv[1:3])
wrong = [f"{key}: {run.get(key)} and {other[key]}" for key in other
         if key not in run or abs(run[key] - other[key]) > (5e-2 if key[0] == "gradient_norm" else 5e-3) * other[key]]
if not other["loss", 3] < 0.97 * other["loss", 1]:
    wrong.append(f"nothing was learnt: {other}")
if wrong or run.keys() != other.keys():
    sys.exit(f"FAILED: {sys.argv[1]} is not like {sys.argv[2]}: {wrong or run.keys() ^ other.keys()}")
PYTHON
}

whole_on_cpu() {
  accepts "$cpu" train run.toml --set run.name=cpu --set run.device=cpu --set batch.micro_batch_tokens=300
}

wait_for_steps() {
  for _ in $(seq 600); do
    [[ $(grep -c '"loss"' "runs/$1/metrics.jsonl" 2>/dev/null) -ge $2 ]] && return
    read -rt 0.05 -u "$bounded_never"
  done
  echo "FAILED: no $2 steps of $1"
  failures=$((failures + 1))
}

case $mode in
  alone)
    accepts "$gpu" doctor --json
    python3 - <<'PYTHON' || { cat out.txt; failures=$((failures + 1)); }
import json, sys
d = json.load(open("out.txt"))
gpus = [d["gpu"]["GPU 0"], d["gpu"]["GPU 1"]]
right = (d["device"]["auto"]["kind"] == "cuda" and not d["device"]["auto"]["why"] and "GPU 2" not in d["gpu"]
         and gpus[0]["peers"] == [1] and gpus[0]["bus"] != gpus[1]["bus"]
         and all("problem" not in g and g["bf16_flops_per_second"] > 0 and g["gigabytes_per_second"]["in"] > 0 for g in gpus)
         and all(d["gpu"][name]["version"] and not d["gpu"][name]["problem"] for name in ("cuBLASLt", "cuDNN", "NCCL")))
sys.exit(0 if right else "FAILED: doctor")
PYTHON
    whole_on_cpu
    accepts "$gpu" train run.toml --set run.name=gpu --set batch.micro_batch_tokens=300 --trace runs/gpu/traces/all.json
    says 'over .*, each cuda 0, stand-in GPU'
    near gpu cpu
    accepts "$gpu" trace summary runs/gpu/traces/all.json
    grep -q 'busiest: rank' out.txt || { echo "FAILED: no summary of the trace"; cat out.txt; failures=$((failures + 1)); }
    for device in cuda cpu; do
      accepts "$gpu" generate runs/gpu --prompt 'GNU ' --tokens 5 --device $device --json
      [[ $(python3 -c 'import json; print(len(json.load(open("out.txt"))["tokens"]))') -eq 5 ]] ||
        { echo "FAILED: generate on $device"; cat out.txt; failures=$((failures + 1)); }
    done
    # Threads of one process, each with a GPU of its own.
    accepts "$gpu" train run.toml --set run.name=threads --ranks 2
    near threads cpu
    accepts "$gpu" train run.toml --dry-run --ranks 4
    grep -q '4 ranks' out.txt || { echo "FAILED: --dry-run"; cat out.txt; failures=$((failures + 1)); }

    # No GPU: on any rank, or on one.
    no_gpu='run.device = "cuda": no GPU can be used (no CUDA-capable device is detected)'
    refuses "$no_gpu" env LONGSPAN_STAND_IN_DEVICES=0 "$gpu" train run.toml --set run.name=none
    says 'run with device = "cpu"'
    refuses "$no_gpu" env LONGSPAN_STAND_IN_DEVICES=0 "$gpu" generate runs/gpu --tokens 5 --device cuda
    on_rank_1 LONGSPAN_STAND_IN_DEVICES=0 train run.toml --set run.name=none
    refuses "rank 1 on $(hostname): $no_gpu" "${command[@]}"
    on_rank_1 LONGSPAN_STAND_IN_DEVICES=0 train run.toml --set run.name=none --set run.device=auto --stop-after 1
    accepts "${command[@]}"
    says '^longspan: on CPUs: rank 1 has no GPU that can be used$'
    ;;

  ranks)
    whole_on_cpu
    # A GPU a rank, and then one for both; every other start is a resume on the other kind of device, with other ranks.
    accepts "${two[@]}" --set run.name=to-cpu --stop-after 2 --trace runs/to-cpu/traces/all.json
    says '2 ranks over nccl [0-9.]*, each cuda 0'
    never_says 'pinned memory'
    grep -q '"groups":[1-9]' runs/to-cpu/metrics.jsonl || { echo "FAILED: no ring"; failures=$((failures + 1)); }
    accepts "$gpu" trace summary runs/to-cpu/traces/all.json
    accepts "$cpu" train run.toml --set run.name=to-cpu --set run.device=cpu --ranks 3 --resume auto
    near to-cpu cpu
    accepts "$cpu" train run.toml --set run.name=to-gpu --set run.device=cpu --ranks 3 --stop-after 2
    accepts "${mpi[@]}" -n 4 "$gpu" train run.toml --set run.name=to-gpu --set batch.micro_batch_tokens=100 --resume auto
    says '4 ranks over .*through pinned memory, each cuda 0'
    near to-gpu cpu
    for devices in 1 2; do
      LONGSPAN_STAND_IN_DEVICES=$devices accepts "${mpi[@]}" -n 2 "$gpu" doctor --quick
      transport=$([[ $devices -eq 1 ]] && echo 'mpi.* through pinned memory' || echo 'nccl [0-9.]*')
      grep -qE "^  GPU messages  *$transport\$" out.txt ||
        { echo "FAILED: doctor, $devices GPUs"; cat out.txt; failures=$((failures + 1)); }
    done
    ;;

  transports)
    # NCCL, where it is installed and every rank has a GPU of its own; else pinned memory, and why.
    step=(--set metrics.evaluate_every=0 --set data.validation=0 --stop-after 1)
    accepts "${two[@]}" --set run.name=nccl "${step[@]}"
    says '2 ranks over nccl'
    never_says 'pinned memory'
    LONGSPAN_STAND_IN_DEVICES=1 accepts "${two[@]}" --set run.name=shared "${step[@]}"
    says '^longspan: messages go through pinned memory: ranks 0 and 1 share the GPU .*, and NCCL wants one for each rank$'
    says '2 ranks over .*through pinned memory'
    on_rank_1 LONGSPAN_STAND_IN_NCCL_VERSION=21000 train run.toml --set run.name=old "${step[@]}"
    accepts "${command[@]}"
    says '^longspan: messages go through pinned memory: rank 1: NCCL 2.10.0 is not served'
    python3 - <<'PYTHON' || failures=$((failures + 1))
import json, sys
losses = {run: json.loads(open(f"runs/{run}/metrics.jsonl").readline())["loss"] for run in ("nccl", "shared", "old")}
sys.exit(0 if max(losses.values()) < (1 + 1e-6) * min(losses.values()) else f"FAILED: the losses are {losses}")
PYTHON
    LONGSPAN_STAND_IN_DEVICES=1 accepts "${mpi[@]}" -n 2 "$gpu" profile run.toml --seconds 1 --out cost.json \
      --set batch.micro_batch_tokens=64
    says 'messages go through pinned memory: ranks 0 and 1 share the GPU'
    grep -q 'error: median' out.txt || { echo "FAILED: profile"; cat out.txt; failures=$((failures + 1)); }
    ;;

  failures)
    # Too little memory before the first step: all ranks end in order, with one message.
    on_rank_1 LONGSPAN_STAND_IN_MEMORY=100000 train run.toml --set run.name=small
    refuses "rank 1 on $(hostname): set-up on cuda 1, stand-in GPU" "${command[@]}"
    says ': no memory for [0-9]* bytes of [a-z ]*: the GPU has [0-9]* of 100000 bytes left; this rank already holds'
    says 'lower batch.micro_batch_tokens, or train on more ranks'
    # In a step, which takes more than what comes before. The limit is one byte less than that.
    on_rank_1 LONGSPAN_STAND_IN_PEAK="$folder/peak" train run.toml --set run.name=measured --stop-after 1
    accepts "${command[@]}"
    on_rank_1 LONGSPAN_STAND_IN_MEMORY=$(($(cat peak) - 1)) train run.toml --set run.name=short
    refuses 'longspan: rank 1: step 1 on cuda 1, stand-in GPU' "${command[@]}"
    says '(: no memory for [0-9]* bytes of |CUDA: .*: out of memory).*; lower batch.micro_batch_tokens'

    # A kernel that reads an illegal address, after two steps were committed: with either transport, and alone.
    for case in staged:1 nccl:2 alone:1; do
      name=fault-${case%:*}
      options=(train run.toml --set "run.name=$name" --set run.steps=1000)
      fault=LONGSPAN_STAND_IN_FAULT=$folder/fault
      rank=1
      on_rank_1 "$fault" "${options[@]}"
      if [[ $case == alone* ]]; then
        rank=0 options+=(--set batch.micro_batch_tokens=300)
        command=(env "$fault" "$gpu" "${options[@]}")
      fi
      export LONGSPAN_STAND_IN_DEVICES=${case#*:}
      bounded 60 "${command[@]}" >out.txt 2>err.txt &
      job=$!
      wait_for_steps "$name" 3
      touch fault
      begin=$SECONDS
      wait $job
      status=$?
      rm fault
      [[ $status -ne 0 && $status -ne 124 && $((SECONDS - begin)) -le 15 ]] ||
        { echo "FAILED: status $status after $((SECONDS - begin)) s"; cat err.txt; failures=$((failures + 1)); }
      where="(step|validation after step|save after step) [0-9]+ on cuda [01], stand-in GPU, 4 GiB: CUDA: "
      says "^longspan: rank $rank: $where.*: an illegal memory access was encountered, in work that was queued before; the GPU is"
      never_says "internal error|longspan: rank $((1 - rank)):"
      # Where nobody is left to say how to go on, the rank does.
      [[ $rank -eq 1 ]] || says '^longspan: what is committed stays: continue with --resume auto$'
      [[ $case == staged* ]] || continue
      made=$(grep -c '"loss"' "runs/$name/metrics.jsonl")
      accepts "${mpi[@]}" -n 2 "$gpu" "${options[@]}" --resume auto --stop-after 1
      says 'resumed from .*step'
      [[ $(grep -c '"loss"' "runs/$name/metrics.jsonl") -eq $((made + 1)) ]] ||
        { echo "FAILED: $made steps were made, and one more"; failures=$((failures + 1)); }
    done
    ;;
esac
[[ $failures -eq 0 ]] && echo "$mode: as expected"
exit $((failures > 0))
