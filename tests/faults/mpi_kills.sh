#!/usr/bin/env bash
# Kills one rank of a job under mpirun at labelled points and at random times, starts it again on as many ranks and on
# another number, and checks what is there each time. With steps in tiers the rank's node is lost too, every other time.
# Usage: mpi_kills.sh PROGRAM [POINTS] [RANDOM] [MODE...]
#   POINTS   of all points of each mode so many, evenly (0: every one)
#   RANDOM   so many at random times, of each mode
#   MODE     SYNCHRONOUS, LAZY, COPIES, PARITY (all), see kill_program.cc
set -uo pipefail
program=$1
wanted=${2:-0}
random=${3:-0}
modes=("${@:4}")
[[ ${#modes[@]} -gt 0 ]] || modes=(SYNCHRONOUS LAZY COPIES PARITY)
folder=$(mktemp -d ${TEST_TMPDIR:+-p "$TEST_TMPDIR"})
trap 'rm -rf "$folder"' EXIT
RANDOM=${LONGSPAN_SEED:-1}

fail() {
  echo "FAILED: $*"
  tail -n 20 "$folder/out.txt" "$folder/err.txt" 2>/dev/null
  exit 1
}

# attempt RANKS DIRECTORY MODE SAVES [POINT]; ranks that hang say where they stand and end.
attempt() {
  local n=$1
  shift
  timeout --signal=TERM --kill-after=5 60 mpirun --oversubscribe --bind-to none -n "$n" "$program" run "$@" \
    >"$folder/out.txt" 2>"$folder/err.txt"
}

# newest_of NOTE FOLDER: the newest step that ranks have noted as "reported" or "kept".
newest_of() { cat "$2"/rank-*.txt 2>/dev/null | awk -v note="$1" '$1 == note && $2 > n { n = $2 } END { print n + 0 }'; }

# copy_run FROM TO: a run's files, without what its ranks noted.
copy_run() {
  rm -rf "$2" && mkdir -p "${2%/*}" && cp -r "$1" "$2" && rm -f "$2"/rank-*.txt
}

# check_and_go_on DIRECTORY MODE N RANK: what was reported is there, whole; so is, when the node of RANK is lost for
# every other N, what is kept elsewhere; one more save works, half of the time on one rank more.
check_and_go_on() {
  local newest least
  least=$(newest_of reported "${1%/*}")
  newest=$("$program" check "$1" "$2" 3 "$least") || fail "what is left"
  if [[ ("$2" == COPIES || "$2" == PARITY) && $(($3 % 2)) -eq 0 ]]; then
    "$program" lose "$1" "$2" "$4" || fail "there was no node to lose"
    newest=$("$program" check "$1" "$2" 3 "$(newest_of kept "${1%/*}")") || fail "what is left without the node of rank $4"
    # What else was reported may have gone with the node.
    rm "${1%/*}"/rank-*.txt
    lost=$((lost + 1))
  fi
  attempt $((ranks + ($3 / 2 + mode_index) % 2)) "$1" "$2" 1 || fail "restart"
  grep -q "^resumed from $newest$" "$folder/out.txt" || fail "not resumed from $newest"
  [[ "$("$program" check "$1" "$2" 3 $((newest + 1)))" == $((newest + 1)) ]] || fail "no step $((newest + 1))"
}

begin=$SECONDS
kills=0
lost=0
for mode_index in "${!modes[@]}"; do
  mode=${modes[mode_index]}
  ranks=2
  [[ $mode != PARITY ]] || ranks=3
  base=$folder/$mode
  mkdir -p "$base/base/run"
  attempt $ranks "$base/base/run/checkpoints" $mode 2 || fail "first attempt"
  copy_run "$base/base/run" "$base/labels/run"
  LONGSPAN_LABELS=1 attempt $ranks "$base/labels/run/checkpoints" $mode 1 || fail "labels"
  mapfile -t points < <("$program" points "$base/labels/run" $ranks)
  [[ ${#points[@]} -ge 50 ]] || fail "${#points[@]} points"
  stride=1
  [[ $wanted -eq 0 ]] || stride=$(((${#points[@]} + wanted - 1) / wanted))
  nth=0
  for ((i = (stride - 1) / 2; i < ${#points[@]}; i += stride)); do
    work=$base/killed/run
    copy_run "$base/base/run" "$work"
    if attempt $ranks "$work/checkpoints" $mode 1 "${points[i]}"; then
      echo "not reached: ${points[i]}"
    else
      [[ $? -ne 124 ]] || fail "mpirun hangs after a kill: ${points[i]}"
      grep -qiE 'signal 9|killed' "$folder/out.txt" "$folder/err.txt" || fail "no kill: ${points[i]}"
      kills=$((kills + 1))
    fi
    victim=${points[i]#* of rank }
    check_and_go_on "$work/checkpoints" $mode $((nth++)) "${victim%%:*}"
  done
  for ((i = 0; i < random; ++i)); do
    work=$base/random/run
    mkdir -p "$work"
    timeout 60 mpirun --oversubscribe --bind-to none -n $ranks "$program" run "$work/checkpoints" $mode 100000 \
      >"$folder/out.txt" 2>"$folder/err.txt" &
    job=$!
    # Once it saves: a rank killed while ranks find each other leaves mpirun itself waiting.
    before=$(newest_of reported "$work")
    for _ in $(seq 1000); do
      [[ $(newest_of reported "$work") -gt $before ]] && break
      sleep 0.02
    done
    [[ $(newest_of reported "$work") -gt $before ]] || fail "it does not save"
    sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
    rank=$((RANDOM % ranks))
    victim=$(awk '$1 == "process" { id = $2 } END { print id }' "$work/rank-$rank.txt")
    kill -KILL "$victim" || fail "process $victim has ended by itself"
    wait $job && fail "the job ended well although a rank was killed"
    kills=$((kills + 1))
    check_and_go_on "$work/checkpoints" $mode "$i" "$rank"
  done
done
[[ $kills -ge 1 ]] || fail "no kills"
echo "$kills kills under mpirun, $lost nodes lost too, $((SECONDS - begin)) s: the newest committed step was there, whole," \
  "every time"
