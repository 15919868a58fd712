#!/usr/bin/env python3
"""Interleaves train_bench with PyTorch, prints a table, writes results/*.json. Called by run.sh; standard library alone."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SGEMM = "gemm 2048 3"
LENGTHS = (512, 4096)
MEMORY_LENGTHS = (4096, 8192, 16384)
QUIET_CORES = 0.1  # what other programs may take during a round
UNTRAINED_LOSS = 8.40  # ln 4096, and what the initial weights add


class Workload:
    """A process that executes one command at a time."""

    def __init__(self, name, command, environment=None, new_session=False):
        self.name, self.command = name, command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(environment or {})}, start_new_session=new_session)

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"'{' '.join(self.command)}' ended with status {self.process.wait()} at '{line}'; "
                               "its message is above")
        return json.loads(answer)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def machine_busy_seconds():
    fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields) - fields[3] - fields[4] - sum(fields[8:])) / os.sysconf("SC_CLK_TCK")  # less idle, iowait, guests


def device_name():
    names = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return names[0].strip() if names else os.uname().machine


def torch_version(python):
    """The version of the PyTorch that `python` finds, or None."""
    if not python:
        return None
    try:
        done = subprocess.run([python, str(HERE / "pytorch_train.py"), "--version"], capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"bench: --python {python}: {error.strerror}")
    return done.stdout.strip() if done.returncode == 0 else None


def peak_resident(bench, threads, length):
    """Peak bytes of a process that trains one step on one document."""
    workload = Workload("memory", [bench, "--ranks", "1", "--threads", str(threads), "--length", str(length),
                                   "--tokens", str(length)])
    answer = workload.ask("step")
    workload.close()
    return answer["peak_resident_bytes"]


def top_operators(operators, seconds):
    total = sum(operators.values())
    ranked = sorted(operators.items(), key=lambda item: -item[1])
    return [(name, value / total * seconds, value / total) for name, value in ranked if value / total >= 0.005]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", required=True, help="path of train_bench")
    parser.add_argument("--python", help="an interpreter that has PyTorch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--results", default=str(HERE / "results"))
    options = parser.parse_args()
    threads, rounds = options.threads, options.rounds

    ours, theirs = [], []
    for length in LENGTHS:
        ours.append((length, 1, Workload(f"longspan, 1 rank x {threads}", [
            options.bench, "--ranks", "1", "--threads", str(threads), "--length", str(length)])))
        if threads >= 2:
            ours.append((length, threads, Workload(f"longspan, {threads} ranks x 1", [
                options.bench, "--ranks", str(threads), "--threads", "1", "--length", str(length)])))
    version = torch_version(options.python)
    if version:
        # As its guide for CPUs advises, freed memory is kept; without this large tensors fault their pages in anew.
        keep = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1099511627776", "MALLOC_ARENA_MAX": "1",
                "OMP_NUM_THREADS": str(threads)}
        for length in LENGTHS:
            for mode in ("eager", "compiled"):
                command = [options.python, str(HERE / "pytorch_train.py"), "--length", str(length), "--threads",
                           str(threads)] + (["--compile"] if mode == "compiled" else [])
                theirs.append((length, mode, Workload(f"PyTorch, {mode}", command, keep)))
    everyone = [w for _, _, w in ours + theirs]

    first = {}
    for workload in everyone:  # allocates, compiles
        print(f"bench: warming up {workload.name}, {' '.join(workload.command[-2:])}", file=sys.stderr)
        first[workload] = workload.ask("step")["loss"]
        workload.ask("step")
        if abs(first[workload] - UNTRAINED_LOSS) > 0.15:
            sys.exit(f"bench: {workload.name}: its first loss is {first[workload]:.3f}, not about {UNTRAINED_LOSS}: "
                     "it does not train the same model")

    steps = {workload: [] for workload in everyone}
    sgemm = {workload: [] for _, _, workload in ours}
    flops = {}
    disturbed = {length: 0 for length in LENGTHS}
    taken = {length: [] for length in LENGTHS}
    done = {length: 0 for length in LENGTHS}
    while min(done.values()) < rounds:
        for length in (x for x in LENGTHS if done[x] < rounds):
            begin, busy, own = time.time(), machine_busy_seconds(), sum(w.cpu_seconds() for w in everyone)
            round_steps, round_sgemm = {}, {}
            for _, _, workload in (item for item in ours if item[0] == length):
                before = workload.ask(SGEMM)
                answer = workload.ask("step")
                after = workload.ask(SGEMM)
                round_steps[workload] = answer["seconds"]
                round_sgemm[workload] = (before["flops"] + after["flops"]) / (before["seconds"] + after["seconds"])
                flops[length] = answer["flops"]
            for _, _, workload in (item for item in theirs if item[0] == length):
                round_steps[workload] = workload.ask("step")["seconds"]
            own = sum(w.cpu_seconds() for w in everyone) - own
            others = (machine_busy_seconds() - busy - own) / (time.time() - begin)
            # A disturbed round is done again, up to twice as many times as there are rounds.
            if others > QUIET_CORES and disturbed[length] < 2 * rounds:
                disturbed[length] += 1
                print(f"bench: length {length}: other programs took {others:.2f} cores; once more", file=sys.stderr)
                continue
            done[length] += 1
            print(f"bench: length {length}: round {done[length]} of {rounds}", file=sys.stderr)
            taken[length].append(others)
            for workload, seconds in round_steps.items():
                steps[workload].append(seconds)
            for workload, rate in round_sgemm.items():
                sgemm[workload].append(rate)
    others = max(max(shares) for shares in taken.values())

    # Where the time goes, after the rounds: sampling disturbs a little.
    profiles = {}
    for length, ranks, workload in ours:
        answer = workload.ask("profile")
        profiles[f"{length}, {ranks} ranks"] = top_operators(answer["operators"], answer["seconds"])
    for length, mode, workload in theirs:
        if mode == "eager":
            answer = workload.ask("profile")
            profiles[f"{length}, PyTorch eager"] = top_operators(answer["operators"], answer["seconds"])
    for workload in everyone:
        workload.close()

    result = {"device": device_name(), "threads": threads, "rounds": rounds, "date": time.strftime("%Y-%m-%d"),
              "pytorch": version, "cores_taken_by_other_programs": {k: [round(x, 3) for x in v] for k, v in taken.items()},
              "rounds_done_again": disturbed,
              "workloads": [], "targets": [], "profiles": profiles}
    print(f"\n{result['device']}, {threads} threads; medians of {rounds} interleaved rounds; PyTorch "
          f"{version or 'skipped (not importable; see --python)'}\n")
    print("| length | program | s/step | best | tokens/s | GFLOP/s | SGEMM GFLOP/s | of SGEMM | times PyTorch eager | compiled |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    median = statistics.median
    for length in LENGTHS:
        rivals = {mode: workload for other, mode, workload in theirs if other == length}
        for _, kind, workload in [x for x in ours if x[0] == length] + [x for x in theirs if x[0] == length]:
            seconds = median(steps[workload])
            row = {"length": length, "program": workload.name, "seconds": seconds, "tokens_per_second": 4096 / seconds,
                   "flops_per_second": flops[length] / seconds, "all_seconds": steps[workload],
                   "first_loss": first[workload]}
            if workload in sgemm:
                row["sgemm_flops_per_second"] = median(sgemm[workload])
                row["share_of_sgemm"] = median(flops[length] / s / g for s, g in zip(steps[workload], sgemm[workload]))
                for mode, rival in rivals.items():
                    row[f"times_pytorch_{mode}"] = median(t / s for s, t in zip(steps[workload], steps[rival]))
            result["workloads"].append(row)
            cells = [f"{length}", workload.name, f"{seconds:.3f}", f"{min(steps[workload]):.3f}",
                     f"{row['tokens_per_second']:.0f}",
                     f"{row['flops_per_second'] * 1e-9:.1f}"]
            cells.append(f"{row['sgemm_flops_per_second'] * 1e-9:.1f}" if workload in sgemm else "")
            cells.append(f"{row['share_of_sgemm'] * 100:.0f}%" if workload in sgemm else "")
            cells += [f"{row[key]:.2f}" if (key := f"times_pytorch_{mode}") in row else "" for mode in ("eager", "compiled")]
            print("| " + " | ".join(cells) + " |")

            if workload in sgemm and length == 512:
                result["targets"].append([f"{length}, {workload.name}: share of SGEMM", row["share_of_sgemm"], ">=", 0.65])
            if workload in sgemm and rivals:
                worst = min(row["times_pytorch_eager"], row["times_pytorch_compiled"])
                bound = 1.0 if length == 512 else 1.3
                result["targets"].append([f"{length}, {workload.name}: times the faster PyTorch", worst, ">=", bound])

    if options.memory:
        print("bench: memory", file=sys.stderr)
        peaks = [peak_resident(options.bench, threads, length) for length in MEMORY_LENGTHS]
        growth = (peaks[2] - peaks[1]) / (peaks[1] - peaks[0])
        result["peak_resident_bytes"] = dict(zip(MEMORY_LENGTHS, peaks))
        result["targets"].append(["memory: (RSS(16K) - RSS(8K)) / (RSS(8K) - RSS(4K))", growth, "<=", 2.1])
        print("\nPeak resident memory, one document: " +
              ", ".join(f"{length} tokens {peak / 2**30:.2f} GiB" for length, peak in zip(MEMORY_LENGTHS, peaks)))

    print("\n| target | measured | wanted | |\n|---|---|---|---|")
    for name, value, relation, bound in result["targets"]:
        met = value >= bound if relation == ">=" else value <= bound
        print(f"| {name} | {value:.3f} | {relation} {bound} | {'met' if met else 'MISSED'} |")
    print("\nSeconds of one step by operator (Longspan: wall clock of rank 0, sampled; PyTorch: its profiler):")
    for name, operators in profiles.items():
        print(f"  {name}: " + ", ".join(f"{op} {seconds:.3f} ({share:.0%})" for op, seconds, share in operators[:14]))
    print(f"\nOther programs took at most {others:.2f} cores during the rounds that count; "
          f"{sum(disturbed.values())} disturbed rounds were done again."
          + ("" if others <= QUIET_CORES else " These timings are NOT to be relied on: measure on a quiet machine."))

    folder = pathlib.Path(options.results)
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", result["device"].lower()).strip("-")
    path = folder / f"{slug}-{threads}-threads.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written: {path}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
