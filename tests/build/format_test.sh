#!/usr/bin/env bash
# Sources are formatted as .clang-format says.
#   format_test.sh SOURCE_DIRECTORY
# Exit 77 (skipped) where clang-format 14 is missing: other versions format differently.
set -euo pipefail
cd "$1"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

formatter=''
for candidate in clang-format-14 clang-format; do
  if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q 'version 14\.'; then
    formatter=$candidate
    break
  fi
done
if [[ -z "$formatter" ]]; then
  echo "format: skipped, clang-format 14 is not installed (launch/setup.sh --tests installs it)"
  exit 77
fi

files=()
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  # New files count too; ignored ones do not. A file deleted but not yet committed is still listed.
  while IFS= read -r file; do
    [[ -e "$file" ]] && files+=("$file")
  done < <(git ls-files --cached --others --exclude-standard -- '*.h' '*.cc' '*.cu' '*.cuh')
else
  while IFS= read -r file; do
    files+=("$file")
  done < <(find kernels parallel optim checkpoint runtime launch tests examples \
    \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -type f | sort)
fi
if [[ ${#files[@]} -eq 0 ]]; then
  echo "format: no sources found below $1" >&2
  exit 1
fi

# One run for all: started for each file, it takes ten times as long. A file with mistakes shows as "FILE:LINE:COLUMN: ...".
if ! "$formatter" --dry-run -Werror "${files[@]}" >"$log" 2>&1; then
  mapfile -t bad < <(sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: .*/\1/p' "$log" | sort -u)
  if [[ ${#bad[@]} -eq 0 ]]; then
    cat "$log" >&2
    exit 1
  fi
  echo "format: ${#bad[@]} of ${#files[@]} files are not formatted; mend them with:" >&2
  echo "  $formatter -i ${bad[*]}" >&2
  exit 1
fi
echo "format: ${#files[@]} files are formatted"
