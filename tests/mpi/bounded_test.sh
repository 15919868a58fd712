#!/usr/bin/env bash
# That bounded.sh ends what does not end, with its children, and says where it stood.
set -uo pipefail
# shellcheck source=tests/mpi/bounded.sh
source "$(dirname "${BASH_SOURCE[0]}")/bounded.sh"
fail() {
  echo "FAILED: $*"
  exit 1
}
bounded 20 true || fail "status of true"
bounded 20 bash -c 'exit 7'
[[ $? -eq 7 ]] || fail "status 7"
[[ $(echo input | bounded 20 cat) == input ]] || fail "standard input"
said=$(OMPI_COMM_WORLD_RANK=3 bounded 1 bash -c 'sleep 987 & echo $!; wait' 2>&1)
[[ $? -eq 124 ]] || fail "status of what did not end"
child=$(head -n 1 <<<"$said")
# Gone, or a zombie that nobody asks about.
grep -qs '^State:.[^Z]' "/proc/$child/status" && fail "a child goes on"
grep -q 'still running after 1 s: bash -c' <<<"$said" || fail "$said"
grep -qE "^process $child, rank 3: sleep 987" <<<"$said" || fail "$said"
grep -qE '^(#[0-9]+ .*|  sleep: S .*)' <<<"$said" || fail "$said"
echo "as expected"
