#!/usr/bin/env bash
# Ring attention on a slow network: does transfer hide behind attention, and is a step as long as the cost formula says?
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: tests/bench/overlap.sh [--build DIR] [--ranks "2 4 8"] [--megabits "100 300"] [--compute-megabits "200"]
                              [--repetitions N] [--bf16] [--quick]

Makes a network for each number of ranks: every rank in a network namespace of its own, their links joined by a bridge,
what leaves a rank limited by tc tbf; one process a rank, OpenMPI over TCP alone. On it one attention layer, forward and
backward, of one long sequence, with its messages and without, for lengths on both sides of the point from which on
transfer can be hidden:
  - attention that sleeps for as long as it would take, on each of --ranks, at each of --megabits (Mbit/s of a link);
  - attention that computes, 2 ranks of one thread, at each of --compute-megabits.
Prints a table (Markdown). About five minutes.

  --build DIR              build directory (default: build)
  --repetitions N          of each length; medians are given (default 3)
  --bf16                   keys and values travel as bf16
  --quick                  2 and 4 ranks that sleep, one length: fails unless the network is used and messages travel
                           beside attention (15 seconds)

Needs network namespaces: root, or a user who may make namespaces; without them it ends with status 77. Everything lies
in namespaces of the script's own and is gone when it ends.

Example: bash tests/bench/overlap.sh --ranks 8 --megabits 100
USAGE
}

readonly kLeftOut=77
arguments=("$@")
build=build
ranks="2 4 8"
megabits="100 300"
compute_megabits="200"
repetitions=3
options=()
quick=
while [[ $# -gt 0 ]]; do
  case "$1" in
    --build) build=$2; shift ;;
    --ranks) ranks=$2; shift ;;
    --megabits) megabits=$2; shift ;;
    --compute-megabits) compute_megabits=$2; shift ;;
    --repetitions) repetitions=$2; shift ;;
    --bf16) options+=(--bf16) ;;
    --quick) quick=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "overlap: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
  shift
done
options+=(--repetitions "$repetitions")
programs=$(realpath "$build/tests/bench")
for program in overlap_bench overlap_sleep_bench; do
  [[ -x "$programs/$program" ]] || { echo "overlap: no $programs/$program: build it, or name the build directory" >&2; exit 2; }
done

# Once more, in namespaces that nobody else sees and that end with the script.
if [[ -z "${LONGSPAN_OVERLAP_INSIDE:-}" ]]; then
  for tool in unshare ip tc mpirun; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
      { echo "overlap: left out: there is no $tool (Debian: util-linux, iproute2, openmpi-bin)" >&2; exit $kLeftOut; }
  done
  own=(--mount --net --uts --pid --fork --kill-child --mount-proc)
  [[ $(id -u) -eq 0 ]] || own+=(--user --map-root-user)
  if ! unshare "${own[@]}" sh -c '
      PATH=$PATH:/usr/sbin:/sbin && mount -t tmpfs none /run && ip netns add probe && ip link add bridge0 type bridge &&
      ip -n probe link set lo up && tc -n probe qdisc add dev lo root tbf rate 1mbit burst 16kb latency 50ms' 2>/dev/null; then
    echo "overlap: left out: this user may not make network namespaces with a rate limit here; root may" >&2
    exit $kLeftOut
  fi
  exec unshare "${own[@]}" env LONGSPAN_OVERLAP_INSIDE=1 bash "${BASH_SOURCE[0]}" ${arguments[@]+"${arguments[@]}"}
fi

PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs none /run
folder=/run/overlap
mkdir "$folder"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# mpirun starts its daemons on "nodes" with this in place of ssh: into the namespace of the address, under a name of its own.
cat >"$folder/agent" <<'AGENT'
#!/usr/bin/env bash
node=${1##*.}
shift
exec ip netns exec "rank$node" unshare --uts sh -c 'hostname "$0" && eval "$1"' "rank$node" "$*"
AGENT
chmod +x "$folder/agent"

# make_network RANKS: rank i is 10.0.0.i, from 1 on; this namespace, where mpirun is, 10.0.0.254.
make_network() {
  ip link set lo up
  ip link add bridge0 type bridge
  ip addr add 10.0.0.254/24 dev bridge0
  ip link set bridge0 up
  for i in $(seq "$1"); do
    ip netns add "rank$i"
    # Long frames, so that little of the ranks' own cores goes into packets.
    ip link add "port$i" mtu 9000 type veth peer name eth0 mtu 9000 netns "rank$i"
    ip link set "port$i" master bridge0 up
    ip -n "rank$i" link set lo up
    ip -n "rank$i" addr add "10.0.0.$i/24" dev eth0
    ip -n "rank$i" link set eth0 up
    # The usual one, whatever this machine's default is; a kernel without it keeps that.
    ip netns exec "rank$i" sh -c 'echo cubic >/proc/sys/net/ipv4/tcp_congestion_control' 2>/dev/null || true
  done
}

remove_network() {
  for i in $(seq "$1"); do
    ip link delete "port$i"
    ip netns delete "rank$i"
  done
  ip link delete bridge0
}

# limit RANKS MEGABITS. A bucket smaller than any block: what it saves up while a link is idle costs nothing.
limit() {
  for i in $(seq "$1"); do
    tc -n "rank$i" qdisc replace dev eth0 root tbf rate "$2mbit" burst 10kb latency 50ms
  done
}

# start RANKS PROGRAM ARGUMENTS...
start() {
  local count=$1
  shift
  seq "$count" | sed 's/.*/10.0.0.& slots=1/' >"$folder/hosts"
  # A word about process groups of the agent, which is none of ours, is left out.
  timeout 300 mpirun -n "$count" --hostfile "$folder/hosts" --map-by ppr:1:node --bind-to none \
    --mca plm_rsh_agent "$folder/agent" --mca orte_tmpdir_base "$folder" --mca oob_tcp_if_include 10.0.0.0/24 \
    --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.0.0.0/24 "$@" 2> >(grep -v 'setpgid' >&2)
}

if [[ -n "$quick" ]]; then
  for count in 2 4; do
    make_network "$count"
    limit "$count" 100
    start "$count" "$programs/overlap_sleep_bench" --megabits 100 --repetitions 1 --hop-seconds 0.04 --check
    remove_network "$count"
  done
  exit
fi

cat <<'HEADER'
| attention | ranks | Mbit/s | threshold | tokens a rank | step, s | alone, s | exposed | waiting | formula, s | step over formula | CPU for messages |
|---|---|---|---|---|---|---|---|---|---|---|---|
HEADER
for count in $ranks; do
  make_network "$count"
  for rate in $megabits; do
    limit "$count" "$rate"
    start "$count" "$programs/overlap_sleep_bench" --megabits "$rate" "${options[@]}"
  done
  remove_network "$count"
done
make_network 2
for rate in $compute_megabits; do
  limit 2 "$rate"
  start 2 "$programs/overlap_bench" --megabits "$rate" "${options[@]}"
done
