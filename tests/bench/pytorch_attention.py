#!/usr/bin/env python3
"""Attention alone through PyTorch on a GPU, in BF16, driven by the lines of attention_bench.cc:

    causal LENGTH DOCUMENTS HEADS KV_HEADS HEAD_DIM COUNT

Answers with the seconds of one forward and of one backward pass, means of COUNT, by the kernel that is asked for.
"""

import argparse
import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def seconds_of(work, count):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    work()  # plans, caches
    begin.record()
    for _ in range(count):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1e-3 / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=KERNELS, default="cudnn")
    options = parser.parse_args()
    for line in sys.stdin:
        name, *numbers = line.split()
        if name != "causal" or len(numbers) != 6:
            sys.exit(f"pytorch_attention.py: '{line.strip()}' is not a command; there is: "
                     "causal LENGTH DOCUMENTS HEADS KV_HEADS HEAD_DIM COUNT")
        length, documents, heads, kv_heads, head, count = map(int, numbers)
        q, k, v = (torch.randn(documents, n, length, head, device="cuda", dtype=torch.bfloat16, requires_grad=True)
                   for n in (heads, kv_heads, kv_heads))
        gradient = torch.randn_like(q)
        with sdpa_kernel(KERNELS[options.kernel]):
            def forward():
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)

            with torch.no_grad():
                forward_seconds = seconds_of(forward, count)
            y = forward()
            backward_seconds = seconds_of(lambda: torch.autograd.grad(y, (q, k, v), gradient, retain_graph=True), count)
        print(json.dumps({"forward_seconds": forward_seconds, "backward_seconds": backward_seconds}), flush=True)


if __name__ == "__main__":
    main()
