#!/usr/bin/env bash
# That train_bench answers its commands and that its model learns. Usage: protocol_test.sh PATH_OF_TRAIN_BENCH
set -euo pipefail
bench=$1
fail() { echo "bench.protocol: $1" >&2; exit 1; }

for ranks in 1 2; do
  answers=$(printf 'gemm 256 2\nstep\nstep\nstep\nprofile\n' |
    "$bench" --ranks "$ranks" --threads 1 --length 64 --tokens 64)
  echo "$answers"
  [[ $(grep -c '"seconds": [0-9.]*, ' <<<"$answers") == 5 ]] || fail "$ranks ranks: not five answers"
  grep -q '"operators": {.*"gemm": ' <<<"$answers" || fail "$ranks ranks: no operators in the profile"
  losses=$(sed -n 's/.*"loss": \([0-9.]*\),.*/\1/p' <<<"$answers")
  # Untrained, all 4096 tokens are about as likely: ln 4096 = 8.32.
  awk 'NR == 1 { first = $1 } { last = $1 } END { exit !(first > 8 && first < 8.7 && last < first) }' <<<"$losses" ||
    fail "$ranks ranks: losses do not fall from 8.3:" $losses
done
if printf 'stepp\n' | "$bench" --threads 1 --length 64 --tokens 64 2>/dev/null; then fail "an unknown command was accepted"; fi
