#!/usr/bin/env bash
# Installs the distribution packages that Longspan is built from, those that are missing and no others.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/setup.sh [--tests] [--no-install] [--help]

Installs with apt what Longspan needs and this machine lacks (Debian 12 or later, Ubuntu 24.04 or later; as root or
through sudo). Packages that are there stay as they are. On other systems it prints the list and stops.

  --tests       also what only tests/run.sh needs
  --no-install  only check: exit 0 when all is there, 1 when something is missing

Example: launch/setup.sh --tests
USAGE
}

# The one list: package, then why. CMakeLists.txt finds each of them in cmake/dependencies.cmake.
packages() {
  cat <<'LIST'
build-essential       compiler (g++ 12 or later), C library, make
cmake                 build system, 3.25 or later
ninja-build           runs the build
pkg-config            finds libraries that ship no CMake files
git                   fetches and versions the source
libopenmpi-dev        ranks: MPI headers
openmpi-bin           ranks: mpirun
libopenblas-dev       matrix products
libhwy-dev            SIMD in our own kernels
libhdf5-dev           token data sets and checkpoints
libisal-dev           checksums (CRC32C), parity (Reed-Solomon)
liburing-dev          asynchronous writes of checkpoints (io_uring)
libabsl-dev           errors, strings, containers, time
libtomlplusplus-dev   configuration files
libcli11-dev          command line
nlohmann-json3-dev    JSON
libspdlog-dev         logs
libsentencepiece-dev  tokenizer
libgtest-dev          tests
libgmock-dev          tests: matchers
libbenchmark-dev      benchmarks
LIST
}

test_packages() {
  cat <<'LIST'
clang-format-14       formatting check; the version counts, they format differently
ccache                makes the second build quick
iproute2              ip and tc, for ranks on a network of limited rate
LIST
}

readonly kCmakeMinimum=3.25

tests=false
test_option=''
install=true
while [[ $# -gt 0 ]]; do
  case "$1" in
    --tests) tests=true; test_option=' --tests' ;;
    --no-install) install=false ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup: unknown option '$1'; see launch/setup.sh --help" >&2; exit 2 ;;
  esac
  shift
done

list() {
  packages
  if $tests; then test_packages; fi
}

is_installed() {
  [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed* ]]
}

# Tests that want such a package are skipped without it.
is_optional() {
  test_packages | grep -q "^$1 "
}

stop_with_list() {
  echo "setup: $1" >&2
  echo "setup: Longspan needs these; the names are Debian's:" >&2
  list >&2
  echo "setup: with all of them there, go on with: cmake --preset default && cmake --build --preset default" >&2
  exit 1
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  stop_with_list "this is neither Debian nor Ubuntu, so nothing was installed."
fi

missing=()
while read -r package _; do
  is_installed "$package" || missing+=("$package")
done < <(list)

if [[ ${#missing[@]} -eq 0 ]]; then
  echo "setup: all $(list | wc -l) packages are there, nothing to install"
else
  echo "setup: missing: ${missing[*]}"
  if ! $install; then
    required=()
    for package in "${missing[@]}"; do
      is_optional "$package" || required+=("$package")
    done
    [[ ${#required[@]} -gt 0 ]] || exit 0
    echo "setup: install them with: launch/setup.sh${test_option}" >&2
    exit 1
  fi
  as_root=()
  if [[ $EUID -ne 0 ]]; then
    if ! command -v sudo >/dev/null; then
      echo "setup: not root, and there is no sudo. As root, run:" >&2
      echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  quiet=()
  [[ -t 1 ]] || quiet=(-qq)
  # The lock may be held by the machine's own unattended upgrades for a while.
  apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get "${quiet[@]}"
       -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  echo "setup: apt-get update"
  "${apt[@]}" update || echo "setup: apt-get update failed; going on with the package lists that are there" >&2

  unknown=()
  wanted=()
  for package in "${missing[@]}"; do
    if [[ -n "$(apt-cache madison "$package" 2>/dev/null)" ]]; then
      wanted+=("$package")
    elif is_optional "$package"; then
      echo "setup: no package $package on this system; tests that need it will be skipped"
    else
      unknown+=("$package")
    fi
  done
  if [[ ${#unknown[@]} -gt 0 ]]; then
    stop_with_list "apt knows no package named: ${unknown[*]}. Check the network and the sources in /etc/apt (on Ubuntu,
setup: 'universe' must be enabled). Nothing was installed."
  fi
  if [[ ${#wanted[@]} -gt 0 ]]; then
    echo "setup: apt-get install --no-install-recommends ${wanted[*]}"
    if ! "${apt[@]}" install --yes --no-install-recommends --no-upgrade "${wanted[@]}"; then
      echo "setup: apt-get failed; its message is above. Mend that and run launch/setup.sh again." >&2
      exit 1
    fi
    echo "setup: installed ${#wanted[@]} packages"
  fi
fi

version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')
if [[ "$(printf '%s\n' "$kCmakeMinimum" "$version" | sort -V | head -n 1)" != "$kCmakeMinimum" ]]; then
  cat >&2 <<MESSAGE
setup: CMake here is $version, Longspan needs $kCmakeMinimum or later (Ubuntu 22.04 ships 3.22). A newer one from PyPI, beside
setup: the system's:
  apt-get install python3-venv && python3 -m venv ~/cmake-venv && ~/cmake-venv/bin/pip install 'cmake>=$kCmakeMinimum'
  export PATH=~/cmake-venv/bin:\$PATH
MESSAGE
  exit 1
fi
echo "setup: ready (CMake $version, g++ $(g++ -dumpfullversion), $(nproc) cores)"
