#!/usr/bin/env python3
"""The model of train_bench in plain PyTorch on the CPU, FP32, driven by the same lines (see train_bench.cc).

    python3 pytorch_train.py --length 512 --threads 2 [--compile]

It is written as one would for speed: queries, keys and values in one product, gate and up in one product,
F.scaled_dot_product_attention with is_causal (PyTorch's flash kernel on the CPU), documents as a batch, fused AdamW.
"""

import argparse
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, WIDTH, HEADS, FFN, VOCABULARY = 6, 384, 6, 1024, 4096
HEAD = WIDTH // HEADS
EPS, ROPE_BASE = 1e-5, 10000.0


def rotate(x, cosine, sine):
    """x: (batch, heads, length, HEAD); dimension i pairs with i + HEAD/2, as in Hugging Face's Llama."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm = nn.Parameter(torch.ones(WIDTH))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.ffn_norm = nn.Parameter(torch.ones(WIDTH))
        self.gate_up = nn.Linear(WIDTH, 2 * FFN, bias=False)
        self.down = nn.Linear(FFN, WIDTH, bias=False)

    def forward(self, x, cosine, sine):
        batch, length, _ = x.shape
        qkv = self.qkv(F.rms_norm(x, (WIDTH,), self.attention_norm, EPS))
        q, k, v = (t.view(batch, length, HEADS, HEAD).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, WIDTH))
        gate, up = self.gate_up(F.rms_norm(x, (WIDTH,), self.ffn_norm, EPS)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.final_norm = nn.Parameter(torch.ones(WIDTH))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / ((2 * LAYERS) ** 0.5 if residual else 1))
        frequency = ROPE_BASE ** (-torch.arange(0, HEAD, 2).double() / HEAD)
        angle = torch.outer(torch.arange(length).double(), frequency)
        self.register_buffer("cosine", angle.cos().float())
        self.register_buffer("sine", angle.sin().float())

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cosine, self.sine)
        logits = self.head(F.rms_norm(x, (WIDTH,), self.final_norm, EPS))
        return F.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))


def tokens(documents, length):
    """The same pseudo-random tokens as train_bench.cc."""
    index = torch.arange(documents * length + 1, dtype=torch.int64)
    return (((index * 2654435761 + 12345) & 0xFFFFFFFF) >> 12) % VOCABULARY


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512, help="tokens of each document")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--threads", type=int, default=0, help="threads; by default PyTorch's own choice")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--version", action="store_true", help="prints PyTorch's version and ends")
    options = parser.parse_args()
    if options.version:
        print(torch.__version__)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    documents = options.tokens // options.length
    stream = tokens(documents, options.length)
    ids = stream[:-1].view(documents, options.length)
    targets = stream[1:].view(documents, options.length)
    model = Llama(options.length)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                                  lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    run = torch.compile(model) if options.compile else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = run(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    for line in sys.stdin:
        command = line.strip()
        if command not in ("step", "profile"):
            sys.exit(f"pytorch_train.py: '{command}' is not a command; there are: step, profile")
        if command == "profile":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                begin = time.perf_counter()
                loss = step()
                seconds = time.perf_counter() - begin
            operators = {e.key: e.self_cpu_time_total * 1e-6 for e in profiler.key_averages()}
        else:
            begin = time.perf_counter()
            loss = step()
            seconds = time.perf_counter() - begin
        answer = {"seconds": seconds, "tokens": options.tokens, "loss": loss,
                  "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        if command == "profile":
            answer["operators"] = operators
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
