#!/usr/bin/env bash
# The folder table holds: with the include directories of each library, exactly the headers of the folders that it may use
# are found. Every public header is tried from every library.
#   negative_compile_test.sh COMPILER DIRECTORY
# DIRECTORY holds what tests/build/CMakeLists.txt wrote: include_directories/LIBRARY and public_headers.
set -euo pipefail
compiler=$1
directory=$2

# The table of architecture.md, written out anew: were it taken from CMake, a wrong USES would go unnoticed.
declare -A may_use=(
  [device]="device"
  [kernels]="kernels device"
  [transport]="transport device"
  [parallel]="parallel kernels transport device"
  [optim]="optim kernels transport device"
  [checkpoint]="checkpoint transport device"
  [data]="data device kernels transport parallel optim checkpoint"
  [runtime]="runtime data device kernels transport parallel optim checkpoint"
)
# Where a third-party library's headers lie beside the compiler's own (as Highway's), its use cannot be kept from
# compiling: include_rules_test.sh reads the sources for those.
declare -A third_party=([mpi.h]="transport" [hdf5.h]="checkpoint data runtime")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail=0
refused=0
accepted=0

# flags_of LIBRARY: sets `flags` to what a source of that library is compiled with.
flags_of() {
  flags=(-std=c++20)
  while read -r path; do
    # The compiler's own directory stays in its own place in the order, as CMake leaves it.
    [[ -z "$path" || "$path" == /usr/include ]] || flags+=(-I "$path")
  done <"$directory/include_directories/$1"
}

# compiles LIBRARY HEADER [-E]: whether a source of that library could include it; with -E, only preprocessed.
compiles() {
  flags_of "$1"
  printf '#include "%s"\n' "$2" >"$scratch/probe.cc"
  "$compiler" "${flags[@]}" "${3:--fsyntax-only}" -o /dev/null "$scratch/probe.cc" 2>"$scratch/message"
}

# must_not_find LIBRARY HEADER...: none of them is on the library's include path. One run of the preprocessor asks for all.
must_not_find() {
  local library=$1 found
  shift
  [[ $# -gt 0 ]] || return 0
  flags_of "$library"
  for header in "$@"; do
    printf '#if __has_include("%s")\n"%s"\n#endif\n' "$header" "$header"
  done >"$scratch/probe.cc"
  "$compiler" "${flags[@]}" -E -P "$scratch/probe.cc" >"$scratch/found"
  while read -r found; do
    echo "negative_compile: $library can include $found, which the folder table forbids" >&2
    fail=1
  done < <(grep . "$scratch/found" || true)
  refused=$((refused + $#))
}

# The same by a real compilation, which must fail for want of the header and for no other reason.
must_not_compile() {
  if compiles "$1" "$2"; then
    echo "negative_compile: $1 can include $2, which the folder table forbids" >&2
    fail=1
  elif ! grep -q "$2: No such file" "$scratch/message"; then
    echo "negative_compile: $1 with $2 failed, but not because the header cannot be found:" >&2
    cat "$scratch/message" >&2
    fail=1
  fi
}

# That headers compile in full, tests/build/CMakeLists.txt sees to: here they and all they include must be found.
must_compile() {
  if ! compiles "$1" "$2" -E; then
    echo "negative_compile: $1 cannot include $2, which the folder table allows:" >&2
    cat "$scratch/message" >&2
    fail=1
  else
    accepted=$((accepted + 1))
  fi
}

for list in "$directory"/include_directories/*; do
  library=$(basename "$list")
  if [[ -z "${may_use[$library]+set}" ]]; then
    echo "negative_compile: library '$library' has no row in the table of this test: add it" >&2
    fail=1
    continue
  fi
  forbidden=()
  own=''
  while IFS=: read -r owner header; do
    [[ -n "$owner" ]] || continue
    if [[ " ${may_use[$library]} " != *" $owner "* ]]; then
      forbidden+=("$header")
    elif [[ "$owner" == "$library" ]]; then
      own=$header
    fi
  done <"$directory/public_headers"
  for header in "${!third_party[@]}"; do
    [[ " ${third_party[$header]} " == *" $library "* ]] || forbidden+=("$header")
  done
  must_not_find "$library" "${forbidden[@]}"
  [[ ${#forbidden[@]} -eq 0 ]] || must_not_compile "$library" "${forbidden[0]}"
  # The control: one of its own headers does compile with the same flags.
  [[ -z "$own" ]] || must_compile "$library" "$own"
done
# Controls across folders, and that the third-party probes fail for want of the right, not of the package.
has() { [[ -e "$directory/include_directories/$1" ]]; }
if has kernels; then must_compile kernels kernels/device/tensor_view.h; fi
if has parallel; then must_compile parallel parallel/transport/transport.h; fi
if has transport; then must_compile transport mpi.h; fi
if has checkpoint; then must_compile checkpoint hdf5.h; fi

echo "negative_compile: $refused forbidden includes refused, $accepted allowed ones accepted"
[[ $refused -gt 0 && $accepted -gt 0 ]] || fail=1
exit $fail
