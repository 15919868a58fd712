#!/usr/bin/env bash
# Kills one rank of a job under mpirun at labelled points and at random times, starts it again on as many ranks and on
# another number, and checks what is there each time.
# Usage: mpi_kills.sh PROGRAM [POINTS] [RANDOM]   so many of all points, evenly (0: every one); so many at random times
set -uo pipefail
program=$1
wanted=${2:-0}
random=${3:-0}
ranks=2
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

reported() { cat "$1"/rank-*.txt 2>/dev/null | awk '$1 == "reported" && $2 > n { n = $2 } END { print n + 0 }'; }

# check_and_go_on DIRECTORY MODE N: what was reported is there, whole; one more save works, on other ranks for odd N.
check_and_go_on() {
  local newest
  newest=$("$program" check "$1" 3 "$(reported "${1%/*}")") || fail "what is left"
  attempt $((ranks + $3 % 2)) "$1" "$2" 1 || fail "restart"
  grep -q "^resumed from $newest$" "$folder/out.txt" || fail "not resumed from $newest"
  [[ "$("$program" check "$1" 2 $((newest + 1)))" == $((newest + 1)) ]] || fail "no step $((newest + 1))"
}

begin=$SECONDS
kills=0
for mode in SYNCHRONOUS LAZY; do
  base=$folder/$mode
  mkdir -p "$base/base/run" "$base/labels/run"
  attempt $ranks "$base/base/run/checkpoints" $mode 2 || fail "first attempt"
  cp -r "$base/base/run/checkpoints" "$base/labels/run/"
  LONGSPAN_LABELS=1 attempt $ranks "$base/labels/run/checkpoints" $mode 1 || fail "labels"
  mapfile -t points < <("$program" points "$base/labels/run" $ranks)
  [[ ${#points[@]} -ge 50 ]] || fail "${#points[@]} points"
  stride=1
  [[ $wanted -eq 0 ]] || stride=$(((${#points[@]} * 2 + wanted - 1) / wanted))
  for ((i = (stride - 1) / 2; i < ${#points[@]}; i += stride)); do
    work=$base/killed/run
    rm -rf "$work" && mkdir -p "$work" && cp -r "$base/base/run/checkpoints" "$work/"
    if attempt $ranks "$work/checkpoints" $mode 1 "${points[i]}"; then
      echo "not reached: ${points[i]}"
    else
      [[ $? -ne 124 ]] || fail "mpirun hangs after a kill: ${points[i]}"
      grep -qiE 'signal 9|killed' "$folder/out.txt" "$folder/err.txt" || fail "no kill: ${points[i]}"
      kills=$((kills + 1))
    fi
    check_and_go_on "$work/checkpoints" $mode "$i"
  done
  for ((i = 0; i < random; ++i)); do
    work=$base/random/run
    mkdir -p "$work"
    timeout 60 mpirun --oversubscribe --bind-to none -n $ranks "$program" run "$work/checkpoints" $mode 100000 \
      >"$folder/out.txt" 2>"$folder/err.txt" &
    job=$!
    # Once it saves: a rank killed while ranks find each other leaves mpirun itself waiting.
    before=$(reported "$work")
    for _ in $(seq 1000); do
      [[ $(reported "$work") -gt $before ]] && break
      sleep 0.02
    done
    [[ $(reported "$work") -gt $before ]] || fail "it does not save"
    sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
    victim=$(awk '$1 == "process" { id = $2 } END { print id }' "$work/rank-$((RANDOM % ranks)).txt")
    kill -KILL "$victim" || fail "process $victim has ended by itself"
    wait $job && fail "the job ended well although a rank was killed"
    kills=$((kills + 1))
    check_and_go_on "$work/checkpoints" $mode "$i"
  done
done
[[ $kills -ge 1 ]] || fail "no kills"
echo "$kills kills under mpirun, $((SECONDS - begin)) s: the newest committed step was there, whole, every time"
