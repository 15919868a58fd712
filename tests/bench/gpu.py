#!/usr/bin/env python3
"""Runs the rows of the GPU benchmark that have no result yet, one by one. Called by gpu.sh; standard library alone."""

import argparse
import json
import pathlib
import re
import statistics
import sys
import time

from measure import Workload, torch_version

HERE = pathlib.Path(__file__).resolve().parent


class AttentionRow:
    """One shape of attention, ours beside cuDNN's and flash attention through PyTorch."""

    def __init__(self, length, documents, heads, kv_heads, head_dim):
        self.name = f"attention {documents} x {length}, {heads}:{kv_heads} heads of {head_dim}"
        self.shape = (length, documents, heads, kv_heads, head_dim)
        # Causal: half of the square; two products forward, five backward.
        pairs = documents * length * length / 2
        self.forward_flops = 4 * pairs * heads * head_dim
        self.backward_flops = 2.5 * self.forward_flops

    def measure(self, options, rounds):
        ours = Workload("longspan", [options.attention_bench, "--device", options.device])
        rivals = {}
        if options.pytorch and options.device == "cuda":
            for kernel in ("cudnn", "flash"):
                rivals[f"PyTorch {kernel}"] = Workload(
                    kernel, [options.python, str(HERE / "pytorch_attention.py"), "--kernel", kernel])
        everyone = {"Longspan": ours, **rivals}
        samples = {name: [] for name in everyone}
        ring, peaks = [], []
        command = " ".join(str(x) for x in (*self.shape, options.count))
        for number in range(rounds + 1):  # the first warms up
            answers = {name: workload.ask("causal " + command) for name, workload in everyone.items()}
            full, peak = ours.ask("full " + command), ours.ask(options.peak)
            if number == 0:
                continue
            for name, answer in answers.items():
                samples[name].append(answer)
            ring.append(full)
            peaks.append(peak["flops"] / peak["seconds"])
        for workload in everyone.values():
            workload.close()
        result = {"peak_flops_per_second": statistics.median(peaks), "programs": {}}
        for name, answers in {**samples, "Longspan, a ring step": ring}.items():
            work = 2 if name == "Longspan, a ring step" else 1  # a full block has all pairs, not half of them
            entry = {}
            for part, flops in (("forward", self.forward_flops), ("backward", self.backward_flops)):
                seconds = [answer[f"{part}_seconds"] for answer in answers]
                entry[part] = {"seconds": seconds, "flops_per_second": work * flops / statistics.median(seconds)}
            result["programs"][name] = entry
        return result

    @staticmethod
    def table(results):
        lines = ["| attention, causal | program | forward TFLOP/s | backward TFLOP/s |", "|---|---|---|---|"]
        for name, result in results.items():
            for program, entry in result["programs"].items():
                lines.append(f"| {name} | {program} | " + " | ".join(
                    f"{entry[part]['flops_per_second'] * 1e-12:.3g}" for part in ("forward", "backward")) + " |")
        return lines


class TrainingRow:
    """One model at one length, ours beside PyTorch (compiled) on the same batch."""

    def __init__(self, model, length, tokens, at_once=True):
        self.name = f"{model}, {length}"
        self.model, self.length, self.tokens = model, length, tokens
        self.at_once = at_once  # both programs fit the memory at a time

    def ours(self, options):
        return Workload("Longspan", [options.train_bench, "--device", options.device, "--model", self.model,
                                     "--length", str(self.length), "--tokens", str(self.tokens), *options.bench_options])

    def theirs(self, options, shape):
        return Workload("PyTorch", [
            options.python, str(HERE / "pytorch_train.py"), "--device", options.device, "--length", str(self.length),
            "--tokens", str(self.tokens), "--shape", json.dumps(shape), *(["--compile"] if options.compile else [])])

    def measure(self, options, rounds):
        # A round: the peak, our step, their step. Where both do not fit at a time, each in turns of a few steps.
        turns, steps = (1, rounds) if self.at_once else (rounds, 3)
        ours, theirs, peaks = [], [], []
        for _ in range(turns):
            longspan = self.ours(options)
            shape = longspan.ask("shape")
            pytorch = None

            def rival():
                workload = self.theirs(options, shape)
                for _ in range(2):
                    workload.ask("step")
                return workload

            for _ in range(2):
                longspan.ask("step")
            if options.pytorch and self.at_once:
                pytorch = rival()
            for _ in range(steps):
                before = longspan.ask(options.peak)
                ours.append(longspan.ask("step"))
                after = longspan.ask(options.peak)
                peaks.append((before["flops"] + after["flops"]) / (before["seconds"] + after["seconds"]))
                if pytorch:
                    theirs.append(pytorch.ask("step"))
            longspan.close()
            if options.pytorch and not self.at_once:
                pytorch = rival()
                theirs += [pytorch.ask("step") for _ in range(steps)]
            if pytorch:
                pytorch.close()
        median = statistics.median
        seconds = [answer["seconds"] for answer in ours]
        result = {"tokens": self.tokens, "seconds": seconds, "tokens_per_second": self.tokens / median(seconds),
                  "flops_per_second": ours[0]["flops"] / median(seconds), "peak_flops_per_second": median(peaks),
                  "share_of_peak": median(answer["flops"] / answer["seconds"] / peak for answer, peak in zip(ours, peaks)),
                  "first_loss": ours[0]["loss"], "last_loss": ours[-1]["loss"]}
        if theirs:
            rival_seconds = [answer["seconds"] for answer in theirs]
            ratio = (median(t / s for s, t in zip(seconds, rival_seconds)) if self.at_once
                     else median(rival_seconds) / median(seconds))
            result["pytorch"] = {"seconds": rival_seconds, "tokens_per_second": self.tokens / median(rival_seconds),
                                 "attention": theirs[0].get("attention"), "last_loss": theirs[-1]["loss"]}
            result["times_pytorch"] = ratio
        return result

    @staticmethod
    def table(results):
        lines = ["| model, length | tokens/s | TFLOP/s (causal) | of the measured peak | PyTorch tokens/s | times PyTorch |",
                 "|---|---|---|---|---|---|"]
        for name, r in results.items():
            rival = r.get("pytorch")
            lines.append(f"| {name} | {r['tokens_per_second']:.0f} | {r['flops_per_second'] * 1e-12:.3g} | "
                         f"{r['share_of_peak']:.0%} | " +
                         (f"{rival['tokens_per_second']:.0f} | {r['times_pytorch']:.2f} |" if rival else "| |"))
        return lines


ROWS = [
    AttentionRow(8192, 2, 16, 16, 128), AttentionRow(8192, 2, 32, 8, 64), AttentionRow(32768, 1, 32, 8, 64),
    AttentionRow(1024, 16, 12, 12, 64),
    TrainingRow("gpt2-124m", 1024, 32768), TrainingRow("gpt2-1.5b", 1024, 8192, at_once=False),
    TrainingRow("llama3.2-1b", 8192, 16384, at_once=False), TrainingRow("llama3.2-1b", 32768, 32768, at_once=False),
    TrainingRow("qwen2.5-0.5b", 1024, 16384), TrainingRow("qwen2.5-1.5b", 1024, 16384, at_once=False),
]
# To see that everything answers, on any machine.
QUICK_ROWS = [AttentionRow(64, 2, 2, 1, 32), TrainingRow("tiny", 32, 64), TrainingRow("tiny", 64, 64, at_once=False)]


def print_tables(results):
    for kind in (AttentionRow, TrainingRow):
        rows = {row.name: results[row.name] for row in ROWS + QUICK_ROWS if isinstance(row, kind) and row.name in results}
        if rows:
            print("\n" + "\n".join(kind.table(rows)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-bench", required=True)
    parser.add_argument("--attention-bench", required=True)
    parser.add_argument("--python", help="an interpreter that has PyTorch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--again", action="store_true", help="rows that have a result too")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", default=str(HERE / "results"))
    options = parser.parse_args()
    options.pytorch = torch_version(options.python)
    options.compile = not options.quick
    options.count = 1 if options.quick else 20
    # Cores enough: the GPU does the work.
    options.bench_options = ["--threads", "1"]
    options.peak = "gemm 64 2" if options.quick else "gemm 8192 20"

    probe = Workload("device", [options.train_bench, "--device", options.device, "--length", "64", "--tokens", "64",
                                *options.bench_options])
    try:
        device = probe.ask("device")["device"]
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
    probe.close()
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    path = pathlib.Path(options.results) / f"gpu-{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = json.loads(path.read_text()) if path.exists() else {"device": device, "results": {}}

    rows = [row for row in (QUICK_ROWS if options.quick else ROWS) if options.rows in row.name]
    if not rows:
        sys.exit(f"bench: no row has '{options.rows}' in its name; there are: " + "; ".join(row.name for row in ROWS))
    failed = []
    for number, row in enumerate(rows, 1):
        if row.name in file["results"] and not options.again:
            print(f"bench: row {number} of {len(rows)}: {row.name}: has a result (--again for another)", file=sys.stderr)
            continue
        print(f"bench: row {number} of {len(rows)}: {row.name}", file=sys.stderr)
        begin = time.time()
        try:
            result = row.measure(options, 1 if options.quick else options.rounds)
        except RuntimeError as error:  # the other rows are worth having all the same
            print(f"bench: {row.name}: {error}", file=sys.stderr)
            failed.append(row.name)
            continue
        result.update(date=time.strftime("%Y-%m-%d"), pytorch_version=options.pytorch, took_seconds=time.time() - begin)
        file["results"][row.name] = result
        path.write_text(json.dumps(file, indent=1) + "\n")
    print(f"{device}; PyTorch {options.pytorch or 'skipped (not importable; see --python)'}")
    print_tables(file["results"])
    print(f"\nWritten: {path}")
    if failed:
        sys.exit("bench: without a result: " + "; ".join(failed))


if __name__ == "__main__":
    main()
