#!/usr/bin/env bash
# Include rules that no include directory can enforce, read from the sources:
#   - our own includes are rooted at the repository (a relative one would step around the folder table);
#   - third-party headers stay in the folders that architecture.md gives them to.
#   include_rules_test.sh SOURCE_DIRECTORY
set -euo pipefail
cd "$1"

folders="kernels parallel optim checkpoint runtime launch"
fail=0
report() {
  echo "include_rules: $1:" >&2
  printf '%s\n' "$2" | sed 's/^/  /' >&2
  fail=1
}

# sources [GREP OPTIONS] PATTERN FOLDER...: matching include lines, as FILE:LINE:TEXT.
sources() {
  grep -rnE "$@" --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' || true
}

present=()
for folder in $folders; do
  [[ -d "$folder" ]] && present+=("$folder")
done
total=$(sources '^[[:space:]]*#[[:space:]]*include' "${present[@]}" | wc -l)
if [[ "$total" -eq 0 ]]; then
  echo "include_rules: no includes found below $1: wrong directory?" >&2
  exit 1
fi

found=$(sources '#[[:space:]]*include[[:space:]]*"(\.\.?/|/)' "${present[@]}")
[[ -z "$found" ]] || report "relative or absolute includes; write the path from the repository's root" "$found"

# Quoted includes name one of our folders or a third-party directory, never a neighbour by its bare name.
found=$(sources '#[[:space:]]*include[[:space:]]*"' "${present[@]}" |
  grep -vE '"(kernels|parallel|optim|checkpoint|runtime|launch)/' |
  grep -vE '"(absl|hwy|spdlog|nlohmann|CLI|toml\+\+|gtest|gmock|benchmark|hwloc)/' || true)
[[ -z "$found" ]] || report 'quoted includes that are not rooted (third-party headers go in <>)' "$found"

# only PATTERN ALLOWED...: headers that match may be included below the allowed paths alone.
only() {
  local pattern=$1 found
  shift
  found=$(sources "#[[:space:]]*include[[:space:]]*[<\"]($pattern)" "${present[@]}")
  for allowed in "$@"; do
    found=$(printf '%s' "$found" | grep -v "^$allowed" || true)
  done
  [[ -z "$found" ]] || report "'$pattern' belongs in: $*" "$found"
}

only 'mpi\.h|nccl\.h' parallel/transport/
only 'hdf5|H5' checkpoint/ runtime/data/ runtime/metrics/
only 'sentencepiece' runtime/data/
only 'CLI/|toml\+\+' launch/
only 'isa-l' checkpoint/ runtime/data/
only 'cblas\.h|openblas|dnnl' kernels/ launch/
only 'hwloc' kernels/device/ runtime/ launch/ parallel/transport/
only 'cuda|cublas|cudnn' kernels/ parallel/transport/

# Abseil must stay out of CUDA sources.
found=$(grep -rnE '#[[:space:]]*include[[:space:]]*[<"]absl/' "${present[@]}" --include='*.cu' --include='*.cuh' || true)
[[ -z "$found" ]] || report 'Abseil in CUDA sources' "$found"
# SentencePiece bundles a string_view that clashes with Abseil's.
both=$(grep -rlE 'include[[:space:]]*[<"]sentencepiece' "${present[@]}" --include='*.cc' --include='*.h' |
  xargs -r grep -lE 'include[[:space:]]*[<"]absl/' || true)
[[ -z "$both" ]] || report 'sentencepiece and Abseil headers in one file' "$both"

echo "include_rules: $total includes read"
exit $fail
