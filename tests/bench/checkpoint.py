#!/usr/bin/env python3
"""Interleaves checkpoint_bench with PyTorch and fio, prints tables, writes JSON. Called by checkpoint.sh; standard library
alone."""

import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from measure import HERE, QUIET_CORES, Workload, device_name, machine_busy_seconds, torch_version

GIB = 2**30
BLOCK = 8 << 20  # bytes of one write of a save
DEPTH = 4  # writes of a rank that are under way
LIMITED = 0.2  # of the compute, where storage is to be the limit


def session_seconds(session):
    """Processor seconds of all processes that `session`'s leader started, and its own."""
    ticks = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[3]) == session:
            ticks += sum(int(x) for x in fields[11:15])  # with children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def kernel_seconds():
    """Processor seconds of the kernel's own threads and of interrupts: what our input and output causes there."""
    ticks = sum(int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[6:8])
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == 2:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def evict(paths):
    """The page cache forgets these files."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


class Disk:
    """What the disk does without us: fio, or, where that is missing, our own writes and dd's reads."""

    def __init__(self, folder, options, bench):
        self.folder, self.ranks, self.bench = folder, options.ranks, bench  # fio's files stay in the folder
        self.bytes = max(BLOCK, int(options.state_mib * 2**20) // BLOCK * BLOCK)
        self.engine = None
        if shutil.which("fio"):
            for engine in ("io_uring", "libaio"):
                if self.fio(engine, "write", ["--size=8M", f"--directory={folder}", "--fallocate=native", "--unlink=1"]):
                    self.engine = engine
                    break
        if self.engine:
            self.name = subprocess.run(["fio", "--version"], capture_output=True, text=True).stdout.strip()
            self.name += f", {self.engine}, O_DIRECT, {BLOCK >> 20} MiB, depth {DEPTH}, {self.ranks} jobs, fsync included"
        else:
            self.name = "fio is not there: our own write loop through FileSystem, and dd iflag=direct"

    def fio(self, engine, rw, arguments):
        command = ["fio", f"--rw={rw}", f"--bs={BLOCK}", "--direct=1", f"--ioengine={engine}", f"--iodepth={DEPTH}",
                   "--end_fsync=1", "--group_reporting", "--output-format=json",
                   f"--numjobs={self.ranks if rw == 'write' else 1}", *arguments, "--name=job"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return None
        job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0][rw]
        return job["io_bytes"] / (job["runtime"] / 1000) if job["runtime"] else 1.0

    def write(self, again):
        """Bytes a second, fsync included: of new files, or `again` of files that are written already."""
        if self.engine is None:
            answer = self.bench.ask("write")
            return answer["bytes"] / answer["seconds"]
        how = (["--fallocate=none", "--overwrite=1", "--filename_format=again.$jobnum"] if again else
               ["--fallocate=native", "--unlink=1"])
        rate = self.fio(self.engine, "write", [f"--size={self.bytes}", f"--directory={self.folder}", *how])
        return rate or sys.exit(f"bench: fio fails in {self.folder}")

    def read(self, paths):
        """Bytes a second of `paths`, one reader each."""
        begin = time.perf_counter()
        readers = [subprocess.Popen(["dd", f"if={path}", "of=/dev/null", f"bs={BLOCK}", "iflag=direct"],
                                    stderr=subprocess.DEVNULL) for path in paths] if self.engine is None else []
        if readers:
            if any(reader.wait() for reader in readers):
                sys.exit("bench: dd iflag=direct fails; install fio (apt-get install fio)")
            return sum(os.path.getsize(p) for p in paths) / (time.perf_counter() - begin)
        jobs = [x for i, path in enumerate(paths) for x in (f"--name=job{i}", f"--filename={path}")]
        command = ["fio", "--readonly", "--rw=read", f"--bs={BLOCK}", "--direct=1", f"--ioengine={self.engine}",
                   f"--iodepth={DEPTH}", "--group_reporting", "--output-format=json", *jobs]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"bench: fio cannot read {paths[0]}: {done.stderr.strip()}")
        job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]
        return job["io_bytes"] / max(job["runtime"] / 1000, 1e-3)


def check_room(options, folder, torch):
    """Ends the program, saying what is needed, where disk or memory do not suffice."""
    state = options.ranks * options.state_mib * 2**20
    # Lazy saves: the committed one, two under way, one that is being removed. Synchronous: two, and one that is to be
    # written again. fio: new files, and its own to be written again. PyTorch: three.
    disk = state * (4 + 3 + 2 + (3 if torch else 0)) + GIB // 8
    # State and pool, twice where two of our programs run; the memory tier; PyTorch: state, staged copy, and what torch.save
    # and the cache hold meanwhile.
    tier = state + options.ranks * GIB // 16
    memory = state * (4 + (3 if torch else 0)) + tier + options.ranks * (64 << 20) + GIB // 8
    free = shutil.disk_usage(folder).free
    available = int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) * 1024
    text = (f"needs {disk / GIB:.1f} GiB of disk in {folder} ({free / GIB:.1f} free) and {memory / GIB:.1f} GiB of memory "
            f"({available / GIB:.1f} available)")
    print(f"bench: {text}", file=sys.stderr)
    if disk > free or memory > available:
        sys.exit(f"bench: {text}; give another --directory, or a smaller --state-mib")
    if shutil.disk_usage(options.memory_tier).free < tier:
        sys.exit(f"bench: {options.memory_tier} has less than {tier / GIB:.1f} GiB free; give another --memory-tier, on tmpfs, "
                 "or a smaller --state-mib")


def quartiles(values):
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * (len(ordered) - 1) + 0.5))]
    return statistics.median(ordered), at(0.25), at(0.75)


def spread(values, scale=1.0, form=".3f"):
    return "{} ({} to {})".format(*(format(scale * x, form) for x in quartiles(values)))


def storage_kind(folder):
    fields = subprocess.run(["df", "--output=source,fstype", str(folder)], capture_output=True, text=True).stdout.split()
    source, kind = fields[-2:] if len(fields) >= 2 else ("?", "?")
    rotational = pathlib.Path(f"/sys/block/{pathlib.Path(source).name}/queue/rotational")
    says = f", rotational: {rotational.read_text().strip()}" if rotational.exists() else ""
    return f"{source}, {kind}{says}"


class Rounds:
    """All samples of all rounds."""

    def __init__(self, options, ours, theirs, disk, start):
        self.options, self.ours, self.theirs, self.disk = options, ours, theirs, disk
        self.start = start  # starts another of our programs, in a folder
        self.samples = {}  # (mode, every) -> one answer a round
        self.machine = []  # one row a round

    def sample(self, workload, mode, every, warm, count, share=1.0):
        print(f"bench:   {mode}" + (f", every {every}" if mode != "none" else ""), file=sys.stderr)
        return workload.ask(f"run {mode} {every} {warm} {count} {share}")

    def block(self, workload, prefix, modes, turn):
        """One round of one program: no saves at its beginning and its end, every mode and interval in between."""
        count = self.options.iterations
        plan = [(mode, every) for mode in modes for every in self.options.every]
        plan = plan[turn % len(plan):] + plan[:turn % len(plan)]
        nothing = [self.sample(workload, "none", 1, 0, 3)]
        answers = {}
        for mode, every in plan:
            # A save that goes on in the background is measured where one before is under way already.
            background = mode in ("lazy", "async_save")
            warm = 2 if background and every <= 2 else 0
            answers[mode, every] = self.sample(workload, mode, every, warm, max(every, count if background else 2))
        nothing.append(self.sample(workload, "none", 1, 0, 3))
        base = statistics.mean(answer["iteration_seconds"] for answer in nothing)
        self.samples.setdefault((prefix + "none", 0), []).append({"iteration_seconds": base})
        for (mode, every), answer in answers.items():
            answer["slow_down"] = answer["iteration_seconds"] / base - 1
            answer["call_mean"] = statistics.mean(answer.get("call_seconds", answer["blocked_seconds"]))
            answer["blocked_mean"] = statistics.mean(answer["blocked_seconds"])
            self.samples.setdefault((mode, every), []).append(answer)

    def limited(self):
        """Iterations too short for the disk."""
        nothing = self.sample(self.ours, "none", 1, 0, self.options.iterations, LIMITED)
        answer = self.sample(self.ours, "lazy", 1, 4, 2 * self.options.iterations, LIMITED)
        return nothing["iteration_seconds"], answer["iteration_seconds"]

    def storage(self, turn):
        """Save and restore alone, beside what the disk does."""
        print("bench:   persist, restore, disk", file=sys.stderr)
        row = {}
        order = [0, 1] if turn % 2 == 0 else [1, 0]
        for files in ("new", "again"):
            for which in order:
                if which == 0:
                    saved = self.ours.ask(f"persist {files}")
                    row[f"persist_{files}_rate"] = saved["bytes"] / saved["seconds"]
                    row["storage"] = saved["storage"]
                else:
                    row[f"disk_write_{files}_rate"] = self.disk.write(files == "again")
        paths = sorted(pathlib.Path(saved["directory"]).glob("rank-*.h5"))
        for which in order:
            evict(paths)
            if which == 0:
                restored = self.ours.ask("restore disk")
                row["restore_rate"] = restored["bytes"] / restored["seconds"]
            else:
                row["disk_read_rate"] = self.disk.read(paths)
        return row

    def crash(self, folder, turn):
        """A program that has saved to disk and to memory is killed; a new one loads from either."""
        print("bench:   crash, load from disk and from memory", file=sys.stderr)
        folder.mkdir()
        try:
            saver = self.start(folder)
            saved = saver.ask("keep")
            saver.process.kill()
            saver.process.wait()
            loader = self.start(folder)
            row = {}
            for place in ("disk", "memory") if turn % 2 == 0 else ("memory", "disk"):
                evict(pathlib.Path(saved["directory"]).glob("rank-*.h5"))
                row[f"load_{place}"] = loader.ask(f"restore {place}")["seconds"]
            loader.close()
            return row
        finally:
            for tiers in folder.glob("*/tiers.json"):
                for tier in json.loads(tiers.read_text())["tiers"]:
                    shutil.rmtree(tier["directory"], ignore_errors=True)
            shutil.rmtree(folder)

    def warm_up(self):
        """Memory and page cache are touched for the first time."""
        print("bench: warming up", file=sys.stderr)
        self.storage(0)
        self.ours.ask("run synchronous 1 0 1 0")
        if self.theirs is not None:
            for mode in ("torch_save", "async_save"):
                self.theirs.ask(f"run {mode} 1 0 2 0")

    def round(self, turn):
        programs = [w.process.pid for w in (self.ours, self.theirs) if w is not None]
        own = lambda: (sum(session_seconds(pid) for pid in programs) + kernel_seconds() +
                       sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
        begin, busy, mine = time.time(), machine_busy_seconds(), own()
        self.block(self.ours, "", ("lazy", "synchronous"), turn)
        row = self.storage(turn)
        row |= self.crash(self.options.folder / "crash", turn)
        row["copy_core_seconds"] = sum(self.ours.ask("copy")["processor_seconds"])
        row["limited_none"], row["limited_lazy"] = self.limited()
        if self.theirs is not None:
            self.block(self.theirs, "torch ", ("torch_save", "async_save"), turn)
        row["others_cores"] = (machine_busy_seconds() - busy - (own() - mine)) / (time.time() - begin)
        row["load"] = os.getloadavg()[0]
        row["time"] = time.strftime("%H:%M")
        self.machine.append(row)


def targets(rounds, memory, options):
    """Rows of (what, value, relation, bound, remark)."""
    cores = len(os.sched_getaffinity(0))
    state = options.state_mib * 2**20
    column = lambda name: [row[name] for row in rounds.machine]
    base = statistics.median(x["iteration_seconds"] for x in rounds.samples["none", 0])
    copy = statistics.median(column("copy_core_seconds"))
    # What the disk sustains: files that are written again, as saves after the first few do.
    per_rank = statistics.median(column("disk_write_again_rate")) / options.ranks
    rows = []
    for every in options.every:
        answers = rounds.samples["lazy", every]
        copied = statistics.median(x for a in answers for x in a["copy_seconds"])
        update = statistics.median(x for a in answers for x in a["update_seconds"])
        holds = copied <= base - update and state <= per_rank * every * base
        remark = "" if holds else "section 2's conditions do not hold"
        rows.append((f"every {every}: blocked, ms a save", 1e3 * statistics.median(a["blocked_mean"] for a in answers),
                     "<=", 1.0, remark))
        rows.append((f"every {every}: slow-down, %", 100 * statistics.median(a["slow_down"] for a in answers), "<=",
                     2 + 100 * copy / (cores * base * every), remark))
    limit = [row["limited_lazy"] / max(row["limited_none"], state * options.ranks / row["disk_write_again_rate"])
             for row in rounds.machine]
    needed = [state * options.ranks / row["disk_write_again_rate"] / row["limited_none"] for row in rounds.machine]
    rows.append((f"storage-limited ({statistics.median(needed):.2f} of its rate wanted): run time / max(T, S/(k B_s))",
                 statistics.median(limit), "<=", 1.05,
                 "" if statistics.median(needed) > 1 else "the disk was not the limit"))
    for files, what in (("new", "new files"), ("again", "files written again")):
        rows.append((f"persisted rate / sequential O_DIRECT, {what}",
                     statistics.median(r[f"persist_{files}_rate"] / r[f"disk_write_{files}_rate"] for r in rounds.machine),
                     ">=", 0.9, ""))
    rows.append(("restore rate / sequential read, cold",
                 statistics.median(r["restore_rate"] / r["disk_read_rate"] for r in rounds.machine), ">=", 0.9, ""))
    rows.append(("load from disk, cold / from memory, after a crash",
                 statistics.median(r["load_disk"] / r["load_memory"] for r in rounds.machine), ">=", 5,
                 "" if options.state_mib >= 1024 else "asked of 1 GiB a rank"))
    rows.append(("memory over pool, MiB a rank", memory, "<=", 64, ""))
    return [(what, value, relation, bound, (value <= bound) if relation == "<=" else (value >= bound), remark)
            for what, value, relation, bound, remark in rows]


def over_pool(bench):
    """MiB a rank that saves need beside the pool, at most: of a program that makes some, and nothing else."""
    workload = Workload("memory", bench)
    workload.ask("run lazy 1 0 4 0.2")
    answer = workload.ask("memory")
    workload.close()
    return (answer["peak_bytes"] - answer["before_bytes"] - answer["pool_bytes"]) / 2**20


def report(rounds, result):
    options = rounds.options
    print("\n| mode | every | blocked a save, ms: median of rounds (quartiles) | 95th percentile, ms | worst, ms | iteration, s "
          "| slow-down |\n|---|---|---|---|---|---|---|")
    for (mode, every), answers in rounds.samples.items():
        seconds = [answer["iteration_seconds"] for answer in answers]
        row = {"mode": mode, "every": every, "iteration_seconds": seconds}
        if every == 0:
            print(f"| {mode} | | | | | {spread(seconds)} | |")
        else:
            all_blocked = sorted(x for answer in answers for x in answer["blocked_seconds"])
            tail = all_blocked[int(0.95 * (len(all_blocked) - 1))]
            slow = [answer["slow_down"] for answer in answers]
            row |= {"blocked_seconds": [answer["blocked_seconds"] for answer in answers], "slow_down": slow,
                    "call_seconds": [answer.get("call_seconds") for answer in answers],
                    "processor_seconds": [answer.get("processor_seconds") for answer in answers]}
            print(f"| {mode} | {every} | {spread([a['blocked_mean'] for a in answers], 1e3, '.2f')} | {1e3 * tail:.2f} | "
                  f"{1e3 * all_blocked[-1]:.1f} | {spread(seconds)} | {spread(slow, 100, '.1f')} % |")
        result["modes"].append(row)
    print("\n| | GB/s: median (quartiles) |\n|---|---|")
    for name, key in (("saved and committed, synced, to new files", "persist_new_rate"),
                      ("disk, writing new files", "disk_write_new_rate"),
                      ("saved and committed, synced, to files of a retired step", "persist_again_rate"),
                      ("disk, writing files again", "disk_write_again_rate"),
                      ("restored", "restore_rate"), ("disk, reading", "disk_read_rate")):
        print(f"| {name} | {spread([row[key] for row in rounds.machine], 1e-9)} |")
    print("\n| a new process loads, after a crash | seconds: median (quartiles) |\n|---|---|")
    for place in ("disk", "memory"):
        print(f"| from {place} | {spread([row[f'load_{place}'] for row in rounds.machine])} |")
    print(f"\nStorage: {rounds.machine[-1]['storage']}. Disk: {rounds.disk.name}. Copy and checksums of a save: "
          f"{spread([row['copy_core_seconds'] for row in rounds.machine])} core-seconds over {options.ranks} ranks.")
    print("\n| target | measured | wanted | |\n|---|---|---|---|")
    for what, value, relation, bound, met, remark in result["targets"]:
        print(f"| {what} | {value:.3f} | {relation} {bound:.3f} | {'met' if met else 'MISSED'}"
              f"{' (' + remark + ')' if remark else ''} |")
    others = [row["others_cores"] for row in rounds.machine]
    print(f"\nOther programs took {spread(others, 1, '.2f')} cores, at most {max(others):.2f}." +
          ("" if max(others) <= QUIET_CORES else " These timings are NOT to be relied on: measure on a quiet machine."))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", required=True, help="path of checkpoint_bench")
    parser.add_argument("--python", help="an interpreter that has PyTorch")
    parser.add_argument("--directory", required=True)
    parser.add_argument("--memory-tier", default="/dev/shm", help="on tmpfs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--state-mib", type=float, default=1024)
    parser.add_argument("--compute", type=float, default=1.0)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--every", type=lambda text: [int(x) for x in text.split(",")], default=[10, 5, 2, 1])
    parser.add_argument("--results", default=str(HERE / "results"))
    options = parser.parse_args()
    version = torch_version(options.python)

    os.makedirs(options.directory, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="checkpoint-bench-", dir=options.directory) as name:
        folder = pathlib.Path(name)
        check_room(options, folder, version)
        for sub in ("ours", "memory", "torch", "fio"):
            (folder / sub).mkdir()
        options.folder = folder
        arguments = ["--ranks", str(options.ranks), "--state-mib", str(options.state_mib), "--compute", str(options.compute)]
        start = lambda where: Workload("longspan", [options.bench, *arguments, "--memory-tier", options.memory_tier,
                                                    "--directory", str(where)], new_session=True)
        memory = over_pool([options.bench, *arguments, "--directory", str(folder / "memory")]) / options.ranks
        shutil.rmtree(folder / "memory")
        ours = start(folder / "ours")
        theirs = None
        if version:
            theirs = Workload("PyTorch", [options.python, str(HERE / "pytorch_checkpoint.py"), *arguments, "--directory",
                                          str(folder / "torch")], {"OMP_NUM_THREADS": "1"}, new_session=True)
        rounds = Rounds(options, ours, theirs, Disk(folder / "fio", options, ours), start)
        begin = time.time()
        rounds.warm_up()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background
        try:
            for turn in range(options.rounds):
                print(f"bench: round {turn + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
                rounds.round(turn)
                so_far = (time.time() - begin) / 60
                print(f"bench: {so_far:.1f} minutes; {so_far / (turn + 1) * (options.rounds - turn - 1):.0f} more to go",
                      file=sys.stderr)
        except KeyboardInterrupt:
            if not rounds.machine:
                sys.exit("bench: interrupted before the first round was complete")
            print("bench: interrupted; the rounds so far count", file=sys.stderr)
            for workload in (ours, theirs):
                if workload is not None:
                    workload.process.terminate()
        for workload in (ours, theirs):
            if workload is not None:
                workload.close()
        kind = storage_kind(folder)

    result = {"device": device_name(), "cores": len(os.sched_getaffinity(0)), "disk": kind, "date": time.strftime("%Y-%m-%d"),
              "options": {k: v for k, v in vars(options).items() if isinstance(v, (int, float, list))},  # no paths
              "pytorch": version, "rounds": rounds.machine, "modes": [],
              "memory_over_pool_mib": memory, "targets": targets(rounds, memory, options)}
    print(f"\n{result['device']}, {result['cores']} cores; {kind}; {options.ranks} ranks of {options.state_mib:g} MiB; medians "
          f"of {len(rounds.machine)} interleaved rounds; PyTorch {version or 'skipped (not importable; see --python)'}")
    report(rounds, result)
    results = pathlib.Path(options.results)
    results.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", result["device"].lower()).strip("-")
    path = results / f"checkpoint-{slug}-{options.ranks}-ranks.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written: {path}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
