# What tests of the command line expect of a command; to be sourced. Works in a folder of its own, removed at the end;
# counts what went otherwise in $failures.
# shellcheck source=tests/mpi/bounded.sh
source "$(dirname "${BASH_SOURCE[0]}")/../mpi/bounded.sh"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
failures=0

# refuses TEXT COMMAND...: fails within 20 seconds, and says TEXT on one line of standard error.
refuses() {
  local text=$1 status=0
  shift
  bounded 20 "$@" >out.txt 2>err.txt || status=$?
  if [[ $status -eq 0 || $status -eq 124 ]]; then
    echo "FAILED: status $status instead of an error: $*"; cat err.txt; failures=$((failures + 1))
  elif ! grep -qF -- "$text" err.txt out.txt; then
    echo "FAILED: no \"$text\" from: $*"; cat err.txt out.txt; failures=$((failures + 1))
  elif [[ $(grep -cF -- "$text" err.txt) -gt 1 ]]; then
    echo "FAILED: said more than once: $*"; cat err.txt; failures=$((failures + 1))
  fi
}

accepts() {
  if ! bounded 60 "$@" >out.txt 2>err.txt; then
    echo "FAILED: $*"; cat out.txt err.txt; failures=$((failures + 1))
  fi
}
