#!/usr/bin/env bash
# Training under mpirun: the same losses on any number of ranks, stop signals that commit, SIGKILL at random times, and
# going on from host memory after one, with a node lost too.
# Usage: train_test.sh LONGSPAN ranks|signals|kills|memory [KILLS]
set -uo pipefail
longspan=$1
mode=$2
kills=${3:-3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

fail() {
  echo "FAILED: $*"
  tail -n 20 err.txt 2>/dev/null
  exit 1
}

mkdir texts
for i in $(seq 30); do head -c $((40 + i * 61)) /usr/share/common-licenses/GPL-3 >"texts/$i.txt"; done
"$longspan" data build texts --out corpus.h5 2>err.txt || fail "data build"
cat >run.toml <<'TOML'
[run]
steps = 30
[data]
sources = [{ path = "corpus.h5" }]
[model]
layers = 2
width = 32
heads = 4
kv_heads = 2
ffn = 80
[batch]
tokens = 2500
micro_batch_tokens = 2000
[schedule]
peak = 3e-3
[checkpoint]
interval = 10
[metrics]
evaluate_every = 0
TOML

mpi() {
  local ranks=$1
  shift
  timeout 100 mpirun --oversubscribe --bind-to none -n "$ranks" "$longspan" train run.toml "$@"
}

# "step loss" of every step; of a step made twice the line of the later attempt.
losses() {
  sed -n 's/.*"attempt":\([0-9]*\).*"loss":\([-0-9.e+]*\),.*"step":\([0-9]*\),.*/\3 \1 \2/p' "runs/$1/metrics.jsonl" |
    sort -n -k1,1 -k2,2 | awk '{ loss[$1] = $3 } END { for (step in loss) print step, loss[step] }' | sort -n
}

state_hash() {
  grep -o '"state_hash": *"[^"]*"' "runs/$1/checkpoints/$(cat "runs/$1/checkpoints/latest")/manifest.json"
}

wait_for_steps() {
  for _ in $(seq 400); do
    [[ $(grep -c '"loss"' "runs/$1/metrics.jsonl" 2>/dev/null) -ge $2 ]] && return
    sleep 0.05
  done
  fail "no $2 steps of $1"
}

case $mode in
  ranks)
    mpi 1 --set run.name=r1 2>err.txt || fail "1 rank"
    for case in 2:1100 3:700 4:600; do
      ranks=${case%:*}
      mpi "$ranks" --set "run.name=r$ranks" --set "batch.micro_batch_tokens=${case#*:}" 2>err.txt || fail "$ranks ranks"
      grep -q '"groups":[1-9]' "runs/r$ranks/metrics.jsonl" || fail "no group was formed on $ranks ranks"
      paste -d ' ' <(losses r1) <(losses "r$ranks") | awk -v ranks="$ranks" '
        { d = $2 - $4; if (d < 0) d = -d; if (NF != 4 || $1 != $3 || d > 1e-4 * $2) { print "step " $1 ": " $2 " and " $4; bad = 1 } }
        END { if (NR != 30) { print NR " steps instead of 30"; bad = 1 } exit bad }' || fail "losses on 1 and $ranks ranks differ"
    done
    # The same job as threads of one process.
    timeout 100 "$longspan" train run.toml --ranks 3 --set run.name=threads --set batch.micro_batch_tokens=700 2>err.txt || fail threads
    [[ "$(losses threads)" == "$(losses r3)" ]] || fail "threads and processes differ"
    # Gradients that travel as bf16: near, and alike on threads and processes.
    mpi 3 --set run.name=r3-bf16 --set batch.micro_batch_tokens=700 --set optimizer.wire=bf16 2>err.txt || fail "bf16 gradients"
    paste -d ' ' <(losses r3) <(losses r3-bf16) | awk '
      { d = $2 - $4; if (d < 0) d = -d; if (NF != 4 || d > 5e-3 * $2) { print "step " $1 ": " $2 " and " $4; bad = 1 } }
      END { exit bad || NR != 30 }' || fail "losses with bf16 gradients"
    [[ "$(losses r3-bf16)" != "$(losses r3)" ]] || fail "optimizer.wire = bf16 changes nothing"
    timeout 100 "$longspan" train run.toml --ranks 3 --set run.name=threads-bf16 --set batch.micro_batch_tokens=700 \
      --set optimizer.wire=bf16 2>err.txt || fail "threads, bf16 gradients"
    [[ "$(losses threads-bf16)" == "$(losses r3-bf16)" ]] || fail "threads and processes differ with bf16 gradients"
    # State of four ranks goes on with two.
    mpi 4 --set run.name=fewer --set batch.micro_batch_tokens=600 --stop-after 12 2>err.txt || fail "first part"
    mpi 2 --set run.name=fewer --set batch.micro_batch_tokens=1100 --resume auto 2>err.txt || fail "on fewer ranks"
    paste -d ' ' <(losses r1) <(losses fewer) | awk '{ d = $2 - $4; if (d < 0) d = -d; if (d > 1e-4 * $2) exit 1 } END { exit NR != 30 }' ||
      fail "losses after resuming on fewer ranks"
    ;;
  signals)
    for signal in USR1 TERM; do
      name=stop-$signal
      mpi 2 --set "run.name=$name" --set run.steps=2000 2>err.txt &
      wait_for_steps "$name" 3
      # To the ranks, as a batch system does.
      pkill -"$signal" -f "^$longspan train run.toml --set run.name=$name" || fail "no process to signal"
      wait $! || fail "$signal did not end with 0"
      grep -q 'continue with' err.txt || fail "no resume command shown"
      stopped=$(losses "$name" | wc -l)
      committed=$(sed 's/step-0*\([0-9]*\).*/\1/' "runs/$name/checkpoints/latest")
      [[ "$committed" == "$stopped" ]] || fail "$signal: $stopped steps made, $committed committed"
      mpi 2 --set "run.name=$name" --set run.steps=2000 --resume auto --stop-after 2 2>err.txt || fail "resume after $signal"
      [[ $(losses "$name" | wc -l) -eq $((stopped + 2)) ]] || fail "steps after $signal"
    done
    ;;
  kills)
    mpi 2 --set run.name=whole --set batch.micro_batch_tokens=1100 --set checkpoint.interval=1 2>err.txt || fail "whole run"
    for kill in $(seq "$kills"); do
      name=killed-$kill
      attempts=0
      # Killed again and again until a start gets to the end; every start goes on from what was committed.
      while true; do
        mpi 2 --set "run.name=$name" --set batch.micro_batch_tokens=1100 --set checkpoint.interval=1 --resume auto 2>err.txt &
        job=$!
        attempts=$((attempts + 1))
        if [[ $attempts -le 4 ]]; then
          # Once the ranks have found each other: a rank killed before that leaves mpirun itself waiting.
          sleep "$((RANDOM % 2)).$((6 + RANDOM % 4))$((RANDOM % 10))"
          # One rank or all; a dead rank must take the others along.
          if [[ $((RANDOM % 2)) -eq 0 ]]; then
            pkill -KILL -f "^$longspan train run.toml --set run.name=$name"
          else
            pkill -KILL -n -f "^$longspan train run.toml --set run.name=$name"
          fi
        fi
        if wait $job; then break; fi
        [[ $attempts -le 8 ]] || fail "start $attempts of $name did not end well"
      done
      [[ "$(losses "$name")" == "$(losses whole)" ]] || { diff <(losses whole) <(losses "$name"); fail "losses after $attempts starts differ"; }
      [[ "$(state_hash "$name")" == "$(state_hash whole)" ]] || fail "states differ after $attempts starts"
      "$longspan" checkpoint verify "runs/$name" >/dev/null 2>err.txt || fail "verify"
      # Every norm is there and is that of the whole run.
      cmp -s <("$longspan" schedule refine "runs/$name" --json) <("$longspan" schedule refine runs/whole --json) ||
        fail "recorded norms differ after $attempts starts"
      echo "$name: $attempts starts, bit-identical"
      rm -rf "runs/$name"
    done
    ;;
  memory)
    common=(--set batch.micro_batch_tokens=1100 --set checkpoint.interval=100000 --set run.steps=100)
    tier=(--set checkpoint.memory_interval=1 --set checkpoint.memory_partner=true
      --set "checkpoint.memory_directory=\"$folder/memory\"")
    mkdir memory
    mpi 2 --set run.name=whole "${common[@]}" 2>err.txt || fail "whole run"
    kill_all() {
      pkill -KILL -f "^$longspan train run.toml --set run.name=$name"
      wait "$job" && fail "$name ended well although it was killed"
      [[ -z "$(ls -d runs/"$name"/checkpoints/step-* 2>/dev/null)" ]] || fail "$name saved to the disk"
    }
    same_as_whole() {
      [[ "$(losses "$name")" == "$(losses whole)" ]] || { diff <(losses whole) <(losses "$name"); fail "losses of $name differ"; }
      [[ "$(state_hash "$name")" == "$(state_hash whole)" ]] || fail "the state of $name differs"
    }

    # export_model RUN [COMMAND...]: into model, by a command that starts the program; which step it is of.
    export_model() {
      rm -rf model
      "${@:2}" "$longspan" checkpoint export "$1" --out model >out.txt 2>err.txt || fail "export of $1"
      step=$(sed -n 's/^model: the model of step //p' out.txt)
      [[ "$step" -ge 1 ]] || fail "export of $1: step '$step'"
    }
    # same_model RUN OTHER [COMMAND...]: model is that of OTHER, whose state is that of RUN.
    same_model() {
      rm -rf other-model
      "$longspan" checkpoint export "runs/$2" --out other-model >/dev/null 2>err.txt || fail "export of $2"
      cmp model/model.safetensors other-model/model.safetensors || fail "the models of $1 and $2 differ"
      "${@:3}" "$longspan" checkpoint diff "runs/$1" "runs/$2" >out.txt 2>err.txt || { cat out.txt; fail "$1 and $2 differ"; }
      grep -q '^the same' out.txt || { cat out.txt; fail "diff of $1 and $2"; }
    }

    name=crashed
    mpi 2 --set "run.name=$name" "${common[@]}" "${tier[@]}" 2>err.txt &
    job=$!
    wait_for_steps "$name" 30
    kill_all
    grep -q 'memory_partner: all ranks are on one node' err.txt || fail "no word about the missing partner"
    "$longspan" checkpoint list "runs/$name" >list.txt 2>err.txt || fail "list"
    grep -q 'memory (2 of 2 files on this node): ' list.txt || { cat list.txt; fail "list does not show memory"; }
    mpi 2 --set "run.name=$name" "${common[@]}" "${tier[@]}" --resume auto 2>err.txt || fail "resume from memory"
    grep -q 'resumed from memory of 1 node (step' err.txt || fail "not resumed from memory"
    same_as_whole
    [[ -z "$(ls memory)" ]] || fail "the run has ended and its memory is not free: $(ls memory)"

    # Two nodes: the second rank has a host name and a memory of its own, which is lost with it.
    if ! unshare --mount --uts true 2>/dev/null; then
      echo "memory: the part with two nodes needs a privileged user; left out"
      break_out=1
    fi
    if [[ -z "${break_out:-}" ]]; then
      two_nodes() {
        timeout 100 mpirun --oversubscribe --bind-to none -n 1 "$longspan" train run.toml "$@" : -n 1 \
          unshare --mount --uts sh -c 'hostname other-node && mount -t tmpfs none memory && exec "$@"' sh \
          "$longspan" train run.toml "$@"
      }
      tier=(--set checkpoint.memory_interval=1 --set "checkpoint.memory_directory=\"$folder/memory\"")
      for protection in 'memory_partner=true' 'memory_erasure="1+1"'; do
        name="node-lost-${protection%=*}"
        two_nodes --set "run.name=$name" "${common[@]}" "${tier[@]}" --set "checkpoint.$protection" 2>err.txt &
        job=$!
        wait_for_steps "$name" 30
        kill_all
        if [[ "$protection" == *partner* ]]; then
          [[ "$(ls memory/*/step-*/rank-*.h5 | wc -l)" -ge 2 ]] || fail "no copy of the other node's file"
        else
          "$longspan" checkpoint list "runs/$name" >list.txt 2>err.txt || fail "list"
          grep -q 'memory (1 of 2 files and 1 of parity on this node): ' list.txt || { cat list.txt; fail "list does not show parity"; }
        fi
        # What is left on this node is all that the command needs.
        export_model "runs/$name"
        [[ "$protection" == *partner* ]] || grep -q 'rank-00001.h5 was computed from parity' err.txt ||
          fail "export: no word about parity"
        mpi 2 --set "run.name=until-$name" "${common[@]}" --stop-after "$step" 2>err.txt || fail "until step $step"
        same_model "$name" "until-$name"
        "$longspan" checkpoint diff "runs/$name" runs/whole >out.txt 2>err.txt && fail "diff of step $step and the last"
        grep -q 'elements differ, by' out.txt || fail "diff after a node was lost ($protection)"
        two_nodes --set "run.name=$name" "${common[@]}" "${tier[@]}" --set "checkpoint.$protection" --resume auto 2>err.txt ||
          fail "resume after a node was lost ($protection)"
        grep -q 'resumed from memory of 1 node (step' err.txt || fail "not resumed from memory ($protection)"
        if [[ "$protection" != *partner* ]]; then
          grep -q 'rank-00001.h5 was computed from parity' err.txt || { cat err.txt; fail "no word about parity"; }
        fi
        same_as_whole
      done
      two_nodes --set run.name=few-nodes "${common[@]}" "${tier[@]}" --set 'checkpoint.memory_erasure="4+1"' --stop-after 2 \
        2>err.txt || fail "too few nodes"
      grep -q 'memory_erasure: "4+1" is for 5 nodes, there are 2: what protects the files takes 1 of their size' err.txt ||
        { cat err.txt; fail "no word about too few nodes"; }

      # Three nodes whose memories stay when processes end: node N's is in nodes/N.
      cat >on_node.sh <<'SH'
#!/bin/sh
node=$1
shift
exec unshare --mount --uts sh -c 'hostname "node-$0" && mount --bind "nodes/$0" memory && exec "$@"' "$node" "$@"
SH
      chmod +x on_node.sh
      mkdir -p nodes/0 nodes/1 nodes/2
      # on_nodes "0 2" COMMAND...: a rank on each.
      on_nodes() {
        local command=()
        for node in $1; do
          [[ ${#command[@]} -eq 0 ]] || command+=(:)
          command+=(-n 1 ./on_node.sh "$node" "${@:2}")
        done
        timeout 100 mpirun --oversubscribe --bind-to none "${command[@]}"
      }
      name=three-nodes
      on_nodes "0 1 2" "$longspan" train run.toml --set "run.name=$name" "${common[@]}" "${tier[@]}" \
        --set 'checkpoint.memory_erasure="2+1"' 2>err.txt &
      job=$!
      wait_for_steps "$name" 30
      kill_all
      rm -rf nodes/1/*
      on_nodes "0 2" "$longspan" checkpoint list "runs/$name" >list.txt 2>err.txt || fail "list on two nodes"
      for node in 0 2; do
        grep -q "memory (1 of 3 files and 1 of parity on node-$node): " list.txt || { cat list.txt; fail "list without node $node"; }
      done
      [[ $(grep -c committed list.txt) -eq 1 ]] || { cat list.txt; fail "list on two nodes: one rank prints"; }
      # A node by itself has too little; two together have enough, whichever of them writes the model.
      ./on_node.sh 0 "$longspan" checkpoint export "runs/$name" --out model-of-one >/dev/null 2>err.txt &&
        fail "one of three nodes exported a model"
      grep -q 'is not in any place that is left.*under mpirun, a rank on each' err.txt || fail "no word about other nodes"
      for nodes in "0 2" "2 0" "1 0 2"; do
        export_model "runs/$name" on_nodes "$nodes"
        grep -q 'rank-00001.h5 was computed from parity' err.txt || fail "export on nodes $nodes: no word about parity"
        [[ $(grep -c . out.txt) -eq 1 ]] || { cat out.txt; fail "export on nodes $nodes: one rank prints"; }
        [[ -d runs/until-$name ]] || on_nodes "0 1 2" "$longspan" train run.toml --set "run.name=until-$name" "${common[@]}" \
          --stop-after "$step" 2>err.txt || fail "until step $step"
        same_model "$name" "until-$name" on_nodes "$nodes"
      done
      on_nodes "0 2" "$longspan" checkpoint export "runs/$name" --out model >out.txt 2>err.txt && fail "export over a model"
      [[ $(grep -c '^longspan: .*File exists' err.txt) -eq 1 ]] || { cat err.txt; fail "export over a model: one rank says so"; }
    fi
    ;;
esac
echo "$mode: as expected"
