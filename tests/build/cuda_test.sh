#!/usr/bin/env bash
# What cmake/cuda.cmake finds, and what it says where there is no CUDA that serves. The file is run on its own, with
# toolkits that are only named so.
#   cuda_test.sh SOURCE_DIRECTORY
set -euo pipefail
source=$(cd "$1" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# toolkit NAME RELEASE: a folder with an nvcc that says this release.
toolkit() {
  mkdir -p "$folder/$1/bin"
  printf '#!/bin/sh\necho "Cuda compilation tools, release %s, V%s.1"\n' "$2" "$2" >"$folder/$1/bin/nvcc"
  chmod +x "$folder/$1/bin/nvcc"
}
toolkit old 11.8
toolkit bare 13.0
toolkit whole 13.0
mkdir "$folder/whole/include"
touch "$folder/whole/include/cudnn.h"

# Compilers are not looked for: what is found before them is what is asked about.
cat >"$folder/find.cmake" <<CMAKE
cmake_minimum_required(VERSION 3.25)
macro(enable_language)
  message(STATUS "would compile with \${CMAKE_CUDA_COMPILER}")
endmacro()
macro(find_package)
endmacro()
include("$source/cmake/cuda.cmake")
CMAKE

# says TEXT ARGUMENTS...
says() {
  local text=$1
  shift
  cmake -DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF -DCMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH=OFF "$@" \
    -P "$folder/find.cmake" >"$folder/out.txt" 2>&1 || true
  tr -s ' \n' ' ' <"$folder/out.txt" | grep -qF -- "$text" ||
    { echo "cuda: not said: $text"; cat "$folder/out.txt"; exit 1; }
}

says 'CUDA 11.8' -DLONGSPAN_CUDA=AUTO -DLONGSPAN_CUDA_ROOT="$folder/old"
says 'is too old: 12.8 is the oldest that is served' -DLONGSPAN_CUDA=AUTO -DLONGSPAN_CUDA_ROOT="$folder/old"
says 'CUDA back end: OFF' -DLONGSPAN_CUDA=AUTO -DLONGSPAN_CUDA_ROOT="$folder/old"
says 'LONGSPAN_CUDA=ON, but CUDA 11.8' -DLONGSPAN_CUDA=ON -DLONGSPAN_CUDA_ROOT="$folder/old"
says 'but no cudnn.h (cuDNN 9)' -DLONGSPAN_CUDA=AUTO -DLONGSPAN_CUDA_ROOT="$folder/bare" \
  -DLONGSPAN_CUDA_PLACES="$folder/none"
says "would compile with $folder/whole/bin/nvcc" -DLONGSPAN_CUDA=AUTO -DLONGSPAN_CUDA_ROOT="$folder/whole"
says 'CUDA back end: OFF' -DLONGSPAN_CUDA=OFF -DLONGSPAN_CUDA_ROOT="$folder/whole"
# As PyPI's packages lie: a folder for each, below nvidia/ of Python's path.
mkdir -p "$folder/site/nvidia"
mv "$folder/whole" "$folder/site/nvidia/cu13"
PYTHONPATH="$folder/site" says "would compile with $folder/site/nvidia/cu13/bin/nvcc" -DLONGSPAN_CUDA=AUTO \
  -DLONGSPAN_CUDA_PLACES="$folder/none" -DLONGSPAN_PYTHON="$(command -v python3)"
echo "cuda: as expected"
