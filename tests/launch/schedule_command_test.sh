#!/usr/bin/env bash
# `longspan schedule` as a user meets it.
# Usage: schedule_command_test.sh LONGSPAN
set -uo pipefail
longspan=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
failures=0
fail() {
  echo "FAILED: $*"
  cat out.txt err.txt 2>/dev/null | head -n 20
  failures=$((failures + 1))
}
# says TEXT COMMAND...: succeeds and prints it.
says() {
  local text=$1
  shift
  timeout 20 "$@" >out.txt 2>err.txt || fail "status of $*"
  grep -qF -- "$text" out.txt || fail "no \"$text\" from $*"
}
refuses() {
  local text=$1 status=0
  shift
  timeout 20 "$@" >out.txt 2>err.txt || status=$?
  [[ $status -ne 0 && $status -ne 124 ]] || fail "status $status of $*"
  grep -qF -- "$text" err.txt || fail "no \"$text\" from $*"
}

# Flat norms: linear to the last digit.
for _ in $(seq 4); do echo 0.3; done >flat.txt
says '"factors": [' "$longspan" schedule refine --norms flat.txt --norm l1 --json
[[ "$(tr -d ' \n' <out.txt | sed 's/.*"factors":\[\([^]]*\)\].*/\1/')" == 1.0,0.75,0.5,0.25 ]] || fail "flat norms"
says '"headroom": 0.0' "$longspan" schedule refine --norms flat.txt --norm l2 --json
says '"steps": 7' "$longspan" schedule refine --norms flat.txt --norm l1 --steps 7 --json
says '"fallback": null' "$longspan" schedule refine --norms flat.txt --norm l1 --json
says '"compat": true' "$longspan" schedule refine --norms flat.txt --norm l2 --compat --json
[[ "$(tr -d ' \n' <out.txt | sed 's/.*"factors":\[\([^]]*\)\].*/\1/')" == 1.0,0.66666666666666*,0.33333333333333*,0.0 ]] ||
  fail "compatibility mode"
says 'factor of the peak' "$longspan" schedule refine --norms flat.txt --norm l1 --svg flat.svg
grep -q '<polyline' flat.svg || fail "no curve in the SVG"
printf '1\nnan\ninf\n0\n2\n# a remark\n\n3\n' >odd.txt
says '"steps": 6' "$longspan" schedule refine --norms odd.txt --norm l1 --json
printf '1\nx\n' >words.txt
refuses 'words.txt:2: "x" is not a number' "$longspan" schedule refine --norms words.txt --norm l1
printf '0\n0\n' >zeros.txt
refuses 'finite and positive' "$longspan" schedule refine --norms zeros.txt --norm l1 --json
refuses 'compatibility mode' "$longspan" schedule refine --norms odd.txt --norm l1 --compat
refuses '--norm' "$longspan" schedule refine --norms flat.txt
refuses '--norms' "$longspan" schedule refine
refuses 'nowhere' "$longspan" schedule refine nowhere
refuses 'l3' "$longspan" schedule refine --norms flat.txt --norm l3

says 'rex over 100 steps' "$longspan" schedule show --set schedule.kind=rex --steps 100 --set schedule.warmup=0
grep -qE '^ +90 +90%  0.000109091' out.txt || fail "rex at 90%"
says '"warmup_steps": 2' "$longspan" schedule show --steps 100 --json --svg show.svg
refuses 'the nearest is "cosine"' "$longspan" schedule show --set schedule.kind=cosina
refuses 'schedule.from' "$longspan" schedule show --set schedule.kind=refined
seq 5 >rates.txt
says 'table over 5 steps' "$longspan" schedule show --set schedule.kind=table --set schedule.file=rates.txt --steps 5
refuses 'has 5 rates, but run.steps = 6' "$longspan" schedule show --set schedule.kind=table \
  --set schedule.file=rates.txt --steps 6

# A run, what it recorded, and a run with the schedule that follows.
mkdir texts
for i in $(seq 20); do head -c $((i * 37)) /usr/share/common-licenses/GPL-3 >"texts/$i.txt"; done
"$longspan" data build texts --out corpus.h5 2>err.txt || fail "data build"
cat >run.toml <<'TOML'
[run]
name = "first"
steps = 20
[data]
sources = [{ path = "corpus.h5" }]
validation = 0.0
[model]
layers = 1
width = 16
heads = 2
kv_heads = 1
ffn = 32
[batch]
tokens = 1000
micro_batch_tokens = 1000
TOML
timeout 60 "$longspan" train run.toml --schedule constant 2>err.txt || fail "first run"
says 'from l1 norms of 20 updates' "$longspan" schedule refine runs/first
says '"warnings": []' "$longspan" schedule refine runs/first --steps 30 --json
says 'warm-up, then' "$longspan" schedule show run.toml --set schedule.kind=refined --set schedule.from=runs/first
says 'best peak' "$longspan" schedule explain runs/first
grep -qE '^used +1.0000 +1.000' out.txt || fail "the schedule used is the measure"
says '"advice": "' "$longspan" schedule explain runs/first --json
timeout 60 "$longspan" train run.toml --schedule refined --from runs/first --set run.name=second 2>err.txt || fail "refined run"
grep -q 'schedule: refined, from l1 norms' err.txt || fail "the run does not say what its schedule came from"
if python3 -c 'import h5py' 2>/dev/null; then
  python3 -c 'import h5py; u = h5py.File("runs/second/norms.h5")["updates"]; assert (u["l1"] > u["l2"]).all() and len(u) == 20' || fail "h5py"
fi
for command in show refine explain; do
  "$longspan" schedule $command --help | grep -q Example || fail "no example in schedule $command --help"
done

[[ $failures -eq 0 ]] && echo "all as expected"
exit $((failures > 0))
