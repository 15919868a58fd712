#!/usr/bin/env bash
# Usage: expect_failure.sh SECONDS TEXT COMMAND...
# Succeeds if the command prints TEXT and ends within SECONDS with an exit status other than zero.
set -u
seconds=$1 text=$2
shift 2
output=$(timeout --kill-after=5 "$seconds" "$@" 2>&1)
code=$?
printf '%s\n' "$output"
if [[ $code -eq 124 || $code -eq 137 ]]; then
  echo "FAILED: still running after $seconds s"
  exit 1
fi
if [[ $code -eq 0 ]]; then
  echo "FAILED: exit status 0"
  exit 1
fi
if [[ "$output" != *"$text"* ]]; then
  echo "FAILED: did not print '$text'"
  exit 1
fi
echo "ended with status $code, as it should"
