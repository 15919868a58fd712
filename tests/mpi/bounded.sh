# shellcheck shell=bash
# bounded SECONDS COMMAND...: the command's exit status, or 124 where it does not end in time. Then it says on standard error
# where each process of the command and each of its threads stood, and ends them all. To be sourced.

exec {bounded_never}<> <(:) # a read from it waits, without a process as sleep would be

bounded() {
  local seconds=$1 job process end
  shift
  "$@" <&0 &  # of its own, what is in the background reads nothing
  job=$!
  end=$((SECONDS + seconds))
  while kill -0 "$job" 2>/dev/null; do
    if [[ $SECONDS -gt $end ]]; then
      echo "still running after $seconds s: $*" >&2
      local -a processes
      mapfile -t processes < <(bounded_family "$job")
      for process in "${processes[@]}"; do bounded_describe "$process" >&2; done
      kill -KILL "${processes[@]}" 2>/dev/null
      wait "$job" 2>/dev/null
      return 124
    fi
    read -rt 0.05 -u "$bounded_never"
  done
  wait "$job"
}

# The process and all that descend from it.
bounded_family() {
  local child
  echo "$1"
  for child in $(pgrep -P "$1"); do bounded_family "$child"; done
}

bounded_describe() {
  local task rank stacks
  rank=$(tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
  echo "process $1, rank ${rank:-none}: $(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null)"
  if [[ -n "$rank" ]] && command -v gdb >/dev/null; then
    stacks=$(timeout 20 gdb -p "$1" -batch -ex 'thread apply all backtrace 8' 2>/dev/null | grep -E '^(Thread|#)')
    [[ -z "$stacks" ]] || { echo "$stacks"; return; }
  fi
  for task in /proc/"$1"/task/*; do
    echo "  $(cat "$task/comm"): $(sed -n 's/^State:\t//p' "$task/status"), in $(cat "$task/wchan" 2>/dev/null)"
  done
}
