#!/usr/bin/env bash
# launch/setup.sh installs just what is missing, on machines that this test makes up: stand-ins for dpkg-query, apt-get,
# apt-cache and sudo come first on PATH and record how they were called.
#   setup_test.sh SETUP_SCRIPT
# shellcheck disable=SC2016,SC2034  # conditions are evaluated by check(), and "status" with them
set -euo pipefail
setup=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin" "$scratch/empty"
export SCRATCH=$scratch

stand_in() { printf '#!/bin/bash\n%s\n' "$2" >"$scratch/bin/$1"; chmod +x "$scratch/bin/$1"; }
# Installed is all but what the file "missing" names; dpkg-query is asked for one package, its last argument.
stand_in dpkg-query '
package=${!#}
grep -qx "$package" "$SCRATCH/missing" && exit 1
grep -qx "$package" "$SCRATCH/removed" && { echo config-files; exit 0; }
echo installed'
stand_in apt-get 'echo "apt-get $*" >>"$SCRATCH/calls"'
stand_in apt-cache '[[ " $(cat "$SCRATCH/unknown") " == *" ${!#} "* ]] || echo "a version of ${!#}"'
stand_in sudo 'exec "$@"'
stand_in cmake 'echo "cmake version $(cat "$SCRATCH/cmake_version")"'

fail=0
check() {
  if ! eval "$2"; then
    echo "setup_test: FAILED: $1" >&2
    echo "--- output"; cat "$scratch/output"; echo "--- calls"; cat "$scratch/calls"
    fail=1
  fi
}
machine() {
  : >"$scratch/calls"
  printf '%s\n' "$1" | tr ' ' '\n' >"$scratch/missing"
  printf '%s\n' "${2:-}" >"$scratch/removed"
  printf '%s' "${3:-}" >"$scratch/unknown"
  printf '%s' "${4:-3.25.1}" >"$scratch/cmake_version"
}
run() {
  status=0
  PATH="$scratch/bin:$PATH" bash "$setup" "$@" >"$scratch/output" 2>&1 </dev/null || status=$?
}
installs() { grep -c '^apt-get.* install ' "$scratch/calls" || true; }

machine ''
run
check 'a complete machine: success, nothing called' '[[ $status -eq 0 && ! -s $scratch/calls ]]'

machine 'libhwy-dev libhdf5-dev'
run
check 'missing packages: success' '[[ $status -eq 0 && $(installs) -eq 1 ]]'
check 'missing packages: these two and no others' \
  'grep -q "install .* libhwy-dev libhdf5-dev$\|install .* libhdf5-dev libhwy-dev$" "$scratch/calls"'
check 'missing packages: what is there is not upgraded' 'grep -q -- "--no-upgrade" "$scratch/calls"'
check 'missing packages: said beforehand' 'grep -q "missing: .*libhwy-dev" "$scratch/output"'

machine '' 'libabsl-dev'
run
check 'removed, configuration left behind: counts as missing' 'grep -q "install .* libabsl-dev$" "$scratch/calls"'

machine 'libhwy-dev'
run --no-install
check '--no-install: fails, installs nothing' '[[ $status -eq 1 && ! -s $scratch/calls ]]'
check '--no-install: names the package' 'grep -q libhwy-dev "$scratch/output"'

machine 'ccache'
run
check 'test packages: not without --tests' '[[ $status -eq 0 && ! -s $scratch/calls ]]'
run --tests
check 'test packages: with --tests' 'grep -q "install .* ccache$" "$scratch/calls"'

machine 'libhwy-dev' '' ' libhwy-dev '
run
check 'unknown to apt: fails before installing' '[[ $status -ne 0 && $(installs) -eq 0 ]]'
check 'unknown to apt: named' 'grep -q "no package named: libhwy-dev" "$scratch/output"'

machine 'clang-format-14 ccache' '' ' clang-format-14 '
run --tests
check 'test package unknown to apt: said, the rest is installed' \
  '[[ $status -eq 0 ]] && grep -q "install .*--no-upgrade ccache$" "$scratch/calls" && grep -q skipped "$scratch/output"'
run --tests --no-install
check 'test package missing, --no-install: not a failure' '[[ $status -eq 0 ]]'

machine '' '' '' '3.22.1'
run
check 'old CMake: fails and says what to do' '[[ $status -ne 0 ]] && grep -q "pip install .cmake" "$scratch/output"'

machine ''
run --frobnicate
check 'unknown option: refused' '[[ $status -eq 2 ]]'

# Neither Debian nor Ubuntu: only a few commands on PATH.
for tool in cat wc; do ln -s "$(command -v $tool)" "$scratch/empty/$tool"; done
status=0
PATH="$scratch/empty" "$BASH" "$setup" >"$scratch/output" 2>&1 || status=$?
check 'another system: stops with the list' '[[ $status -ne 0 ]] && grep -q "^libhdf5-dev" "$scratch/output"'

[[ $fail -eq 0 ]] && echo "setup_test: passed"
exit $fail
