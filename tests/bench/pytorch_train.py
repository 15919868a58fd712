#!/usr/bin/env python3
"""The models of train_bench in plain PyTorch, driven by the same lines (see train_bench.cc).

    python3 pytorch_train.py --length 512 --threads 2 [--compile]
    python3 pytorch_train.py --device cuda --shape '{"family": "gpt2", "layers": 12, ...}' --length 1024 --compile

It is written as one would for speed: queries, keys and values in one product, gate and up in one product,
F.scaled_dot_product_attention with is_causal, documents as a batch, fused AdamW. On the CPU all is FP32; on a GPU
parameters and moments are FP32, products and attention BF16 (autocast), and attention takes the faster of PyTorch's
kernels (cuDNN, flash), by trial. --shape is what train_bench answers to `shape`.
"""

import argparse
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

BENCHMARK_SHAPE = {"family": "llama", "layers": 6, "width": 384, "heads": 6, "kv_heads": 6, "ffn": 1024, "vocab": 4096,
                   "rope_base": 10000.0, "norm_eps": 1e-5, "tied": False}
GPU_ATTENTION = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def rotate(x, cosine, sine):
    """x: (batch, heads, length, head); dimension i pairs with i + head/2, as in Hugging Face's Llama."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


class Attention(nn.Module):
    """Of both families: `bias` and learned positions are GPT-2's, rotation is Llama's."""

    def __init__(self, shape, bias):
        super().__init__()
        self.heads, self.kv_heads, self.width = shape["heads"], shape["kv_heads"], shape["width"]
        self.head = self.width // self.heads
        self.qkv = nn.Linear(self.width, self.width + 2 * self.kv_heads * self.head, bias=bias)
        self.out = nn.Linear(self.width, self.width, bias=bias)

    def forward(self, x, rotation):
        batch, length, _ = x.shape
        kv_width = self.kv_heads * self.head
        q, k, v = self.qkv(x).split([self.width, kv_width, kv_width], dim=-1)
        q, k, v = (t.view(batch, length, -1, self.head).transpose(1, 2) for t in (q, k, v))
        if rotation is not None:
            cosine, sine = (t.to(q.dtype) for t in rotation)
            q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.transpose(1, 2).reshape(batch, length, self.width))


class LlamaLayer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, ffn = shape["width"], shape["ffn"]
        self.attention_norm = nn.RMSNorm(width, eps=shape["norm_eps"])
        self.attention = Attention(shape, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=shape["norm_eps"])
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x, rotation):
        x = x + self.attention(self.attention_norm(x), rotation)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Gpt2Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, ffn = shape["width"], shape["ffn"]
        self.attention_norm = nn.LayerNorm(width, eps=shape["norm_eps"])
        self.attention = Attention(shape, bias=True)
        self.ffn_norm = nn.LayerNorm(width, eps=shape["norm_eps"])
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)

    def forward(self, x, rotation):
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.down(F.gelu(self.up(self.ffn_norm(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self, shape, length):
        super().__init__()
        llama = shape["family"] == "llama"
        width, vocabulary, layers = shape["width"], shape["vocab"], shape["layers"]
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = None if llama else nn.Embedding(length, width)
        self.layers = nn.ModuleList((LlamaLayer if llama else Gpt2Layer)(shape) for _ in range(layers))
        self.final_norm = (nn.RMSNorm if llama else nn.LayerNorm)(width, eps=shape["norm_eps"])
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / ((2 * layers) ** 0.5 if residual else 1))
        if shape["tied"]:
            self.head.weight = self.embedding.weight
        if llama:
            head = width // shape["heads"]
            frequency = shape["rope_base"] ** (-torch.arange(0, head, 2).double() / head)
            angle = torch.outer(torch.arange(length).double(), frequency)
            self.register_buffer("cosine", angle.cos().float())
            self.register_buffer("sine", angle.sin().float())

    def forward(self, ids, targets):
        x = self.embedding(ids)
        rotation = None
        if self.positions is None:
            rotation = self.cosine, self.sine
        else:
            x = x + self.positions.weight
        for layer in self.layers:
            x = layer(x, rotation)
        logits = self.head(self.final_norm(x))
        return F.cross_entropy(logits.view(-1, self.vocabulary), targets.view(-1))


def tokens(documents, length, vocabulary):
    """The same pseudo-random tokens as train_bench.cc."""
    index = torch.arange(documents * length + 1, dtype=torch.int64)
    return (((index * 2654435761 + 12345) & 0xFFFFFFFF) >> 12) % vocabulary


class Training:
    """One model, and its steps on always the same batch."""

    def __init__(self, options):
        self.options, shape = options, options.shape
        self.cuda = options.device == "cuda"
        torch.manual_seed(1)
        documents = options.tokens // options.length
        stream = tokens(documents, options.length, shape["vocab"]).to(options.device)
        self.ids = stream[:-1].view(documents, options.length)
        self.targets = stream[1:].view(documents, options.length)
        self.model = Transformer(shape, options.length).to(options.device)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
        self.attention = self.faster_attention() if self.cuda else None
        self.run = torch.compile(self.model) if options.compile else self.model

    def faster_attention(self):
        shape, length = self.options.shape, self.options.length
        head = shape["width"] // shape["heads"]
        documents = self.options.tokens // length
        seconds = {}
        for name, kernel in GPU_ATTENTION.items():
            q, k, v = (torch.randn(documents, n, length, head, device="cuda", dtype=torch.bfloat16, requires_grad=True)
                       for n in (shape["heads"], shape["kv_heads"], shape["kv_heads"]))
            try:
                with sdpa_kernel(kernel):
                    for trial in range(4):
                        if trial == 1:
                            torch.cuda.synchronize()
                            begin = time.perf_counter()
                        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
                        y.backward(y.detach())
                    torch.cuda.synchronize()
                seconds[name] = time.perf_counter() - begin
            except RuntimeError as error:
                print(f"pytorch_train.py: {name} attention is left out: {error}", file=sys.stderr)
        if not seconds:
            sys.exit("pytorch_train.py: neither cuDNN nor flash attention serves this shape")
        return min(seconds, key=seconds.get)

    def loss(self):
        if not self.cuda:
            return self.run(self.ids, self.targets)
        with torch.autocast("cuda", torch.bfloat16), sdpa_kernel(GPU_ATTENTION[self.attention]):
            return self.run(self.ids, self.targets)

    def step(self):
        """Seconds and loss."""
        if self.cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        if self.cuda:
            with sdpa_kernel(GPU_ATTENTION[self.attention]):
                loss.backward()
        else:
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        value = loss.item()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begin, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512, help="tokens of each document")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--threads", type=int, default=0, help="threads; by default PyTorch's own choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", type=json.loads, default=BENCHMARK_SHAPE, help="JSON: the model; default: train_bench's own")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--version", action="store_true", help="prints PyTorch's version and ends")
    options = parser.parse_args()
    if options.version:
        print(torch.__version__)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    training = Training(options)

    for line in sys.stdin:
        command = line.strip()
        if command not in ("step", "profile"):
            sys.exit(f"pytorch_train.py: '{command}' is not a command; there are: step, profile")
        if command == "profile":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                seconds, loss = training.step()
            operators = {e.key: e.self_cpu_time_total * 1e-6 for e in profiler.key_averages()}
        else:
            seconds, loss = training.step()
        answer = {"seconds": seconds, "tokens": options.tokens, "loss": loss,
                  "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        if training.cuda:
            answer["peak_device_bytes"] = torch.cuda.max_memory_allocated()
            answer["attention"] = training.attention
        if command == "profile":
            answer["operators"] = operators
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
