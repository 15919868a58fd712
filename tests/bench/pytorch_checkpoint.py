#!/usr/bin/env python3
"""PyTorch's side of the checkpoint benchmark: the iteration and the state of checkpoint_bench, same commands.

    echo "run async_save 2 2 6 1" | python3 pytorch_checkpoint.py --directory /tmp/checkpoints --ranks 2

Commands: run MODE EVERY WARM COUNT SHARE, as in checkpoint_bench.cc, with the modes
    none
    torch_save   torch.save of each rank's state to a file of its own; not synced, as it is commonly used
    async_save   torch.distributed.checkpoint.async_save over gloo, which syncs its files; a save waits for the one before
Rank 0 starts the other ranks, processes of this program, and talks to them over gloo.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

TENSORS, PRODUCT_SIZE = 16, 1024
UPDATE = 1.0 - 2.0**-20


class Rank:
    def __init__(self, options):
        self.rank, self.folder = options.rank, pathlib.Path(options.directory)
        elements = int(options.state_mib * 2**20) // TENSORS // 4
        self.state = {f"rank{self.rank}.tensor{i}": 1.0 + 1e-7 * (torch.arange(elements) % 1000003).float()
                      for i in range(TENSORS)}
        self.matrices = [torch.zeros(PRODUCT_SIZE, PRODUCT_SIZE) for _ in range(3)]
        self.step, self.saved, self.under_way = 0, None, None
        # What async_save sends in the background must not meet our barriers in one group.
        self.background = dist.new_group(backend="gloo")
        fastest = 1e9
        for _ in range(20):
            dist.barrier()
            begin = time.perf_counter()
            self.compute(1)
            fastest = min(fastest, time.perf_counter() - begin)
        count = [max(1, round(options.compute / fastest))]
        dist.broadcast_object_list(count, src=0)
        self.products = count[0]

    def compute(self, products):
        for _ in range(products):
            torch.mm(self.matrices[0], self.matrices[1], out=self.matrices[2])

    def committed(self, path):
        """`path` holds a whole checkpoint; the one before is of no more use. Each rank removes what it wrote."""
        old, self.saved = self.saved, path
        if old is not None and old.is_file():
            old.unlink()
        elif old is not None and self.rank == 0:
            shutil.rmtree(old)

    def finish(self):
        if self.under_way is not None:
            future, path = self.under_way
            future.result()
            self.under_way = None
            self.committed(path)

    def save(self, mode):
        self.step += 1
        if mode == "torch_save":
            path = self.folder / f"torch-{self.step}-{self.rank}.pt"
            torch.save(self.state, path)
            self.committed(path)
        else:
            self.finish()
            path = self.folder / f"async-{self.step}"
            future = dcp.async_save(self.state, checkpoint_id=str(path), process_group=self.background)
            self.under_way = (future, path)

    def run(self, mode, every, warm, count, share):
        products = round(self.products * share)
        for i in range(-warm, count):
            if i in (-warm, 0):
                dist.barrier()
                begin, blocked, update_seconds = time.perf_counter(), [], 0.0
            if mode != "none" and (i + warm) % every == 0:
                call = time.perf_counter()
                self.save(mode)
                blocked.append(time.perf_counter() - call)
            self.compute(products)
            update = time.perf_counter()
            for tensor in self.state.values():
                tensor.mul_(UPDATE)
            update_seconds += time.perf_counter() - update
        dist.barrier()
        seconds = time.perf_counter() - begin
        self.finish()
        os.sync()  # what torch.save left in the page cache is not to burden whoever is measured next
        answers = [None] * dist.get_world_size()
        dist.all_gather_object(answers, (blocked, update_seconds / count))
        return {"seconds": seconds, "iteration_seconds": seconds / count, "iterations": count,
                "blocked_seconds": [x for b, _ in answers for x in b], "update_seconds": [u for _, u in answers]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True, help="where checkpoints go; exists")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--state-mib", type=float, default=1024, help="of a rank")
    parser.add_argument("--compute", type=float, default=1.0, help="seconds of forward and backward")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    meeting = pathlib.Path(options.directory) / "gloo"
    others = []
    if options.rank == 0:
        meeting.unlink(missing_ok=True)
        others = [subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--rank", str(r)], stdin=subprocess.DEVNULL)
                  for r in range(1, options.ranks)]
    dist.init_process_group("gloo", init_method=f"file://{meeting.resolve()}", rank=options.rank,
                            world_size=options.ranks, timeout=datetime.timedelta(hours=12))
    rank = Rank(options)
    while True:
        line = [sys.stdin.readline()] if options.rank == 0 else [None]
        dist.broadcast_object_list(line, src=0)
        words = line[0].split()
        if not line[0]:
            break
        if len(words) != 6 or words[0] != "run" or words[1] not in ("none", "torch_save", "async_save"):
            sys.exit(f"pytorch_checkpoint.py: '{line[0].strip()}' is not a command; there is: "
                     "run none|torch_save|async_save EVERY WARM COUNT SHARE")
        answer = rank.run(words[1], int(words[2]), int(words[3]), int(words[4]), float(words[5]))
        if options.rank == 0:
            print(json.dumps(answer), flush=True)
    dist.barrier()
    for process in others:
        process.wait()


if __name__ == "__main__":
    main()
