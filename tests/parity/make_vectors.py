#!/usr/bin/env python3
"""Records what PyTorch computes for two small models: tests/parity/{llama,gpt2}.h5.

The models are written here in plain PyTorch, in FP64, and share nothing with the C++ code but the names of their tensors.
Recorded: initial weights, tokens of ten steps, logits and gradients of the first step, losses and gradient norms of all
ten AdamW steps, weights after them.

    python3 tests/parity/make_vectors.py OUTPUT_DIRECTORY
"""

import hashlib
import math
import os
import sys

import h5py
import numpy as np
import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

STEPS = 10
OPTIMIZER = dict(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-6, weight_decay=0.1, clip=1.0)
# Inputs of each document; a document of one input, odd ones, and one that does not fill a tile.
LENGTHS = [37, 12, 1, 50]
LLAMA = dict(family="llama", layers=2, width=32, heads=4, kv_heads=2, ffn=48, vocab=61, rope_base=10000.0, norm_eps=1e-5)
GPT2 = dict(family="gpt2", layers=2, width=32, heads=4, kv_heads=4, ffn=128, vocab=61, positions=64, norm_eps=1e-5)


def llama_shapes(c):
    kv = c["width"] // c["heads"] * c["kv_heads"]
    shapes = {"model.embed_tokens.weight": (c["vocab"], c["width"])}
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        shapes[p + "input_layernorm.weight"] = (c["width"],)
        shapes[p + "self_attn.q_proj.weight"] = (c["width"], c["width"])
        shapes[p + "self_attn.k_proj.weight"] = (kv, c["width"])
        shapes[p + "self_attn.v_proj.weight"] = (kv, c["width"])
        shapes[p + "self_attn.o_proj.weight"] = (c["width"], c["width"])
        shapes[p + "post_attention_layernorm.weight"] = (c["width"],)
        shapes[p + "mlp.gate_proj.weight"] = (c["ffn"], c["width"])
        shapes[p + "mlp.up_proj.weight"] = (c["ffn"], c["width"])
        shapes[p + "mlp.down_proj.weight"] = (c["width"], c["ffn"])
    shapes["model.norm.weight"] = (c["width"],)
    shapes["lm_head.weight"] = (c["vocab"], c["width"])
    return shapes


def gpt2_shapes(c):
    w, f = c["width"], c["ffn"]
    shapes = {"transformer.wte.weight": (c["vocab"], w), "transformer.wpe.weight": (c["positions"], w)}
    for i in range(c["layers"]):
        p = f"transformer.h.{i}."
        for name, shape in {
            "ln_1.weight": (w,), "ln_1.bias": (w,), "attn.c_attn.weight": (w, 3 * w), "attn.c_attn.bias": (3 * w,),
            "attn.c_proj.weight": (w, w), "attn.c_proj.bias": (w,), "ln_2.weight": (w,), "ln_2.bias": (w,),
            "mlp.c_fc.weight": (w, f), "mlp.c_fc.bias": (f,), "mlp.c_proj.weight": (f, w), "mlp.c_proj.bias": (w,),
        }.items():
            shapes[p + name] = shape
    shapes["transformer.ln_f.weight"] = (w,)
    shapes["transformer.ln_f.bias"] = (w,)
    return shapes


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, base):
    """Rotary embedding of (heads, length, d), Hugging Face's layout: dimension i pairs with i + d/2."""
    length, d = x.shape[1], x.shape[2]
    frequency = base ** (-torch.arange(0, d, 2) / d)
    angle = torch.outer(torch.arange(length).double(), frequency)
    angle = torch.cat([angle, angle], dim=1)
    turned = torch.cat([-x[..., d // 2:], x[..., : d // 2]], dim=-1)
    return x * angle.cos() + turned * angle.sin()


def attention(q, k, v):
    """Causal softmax attention of one document, (heads, length, d), by the full score matrix."""
    length = q.shape[1]
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])
    mask = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    return torch.softmax(scores.masked_fill(mask, float("-inf")), dim=-1) @ v


def heads_of(x, heads):
    return x.view(x.shape[0], heads, -1).transpose(0, 1)


def llama_logits(w, c, ids):
    x = w["model.embed_tokens.weight"][ids]
    group = c["heads"] // c["kv_heads"]
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        h = rms_norm(x, w[p + "input_layernorm.weight"], c["norm_eps"])
        q = rotate(heads_of(h @ w[p + "self_attn.q_proj.weight"].T, c["heads"]), c["rope_base"])
        k = rotate(heads_of(h @ w[p + "self_attn.k_proj.weight"].T, c["kv_heads"]), c["rope_base"])
        v = heads_of(h @ w[p + "self_attn.v_proj.weight"].T, c["kv_heads"])
        o = attention(q, k.repeat_interleave(group, 0), v.repeat_interleave(group, 0))
        x = x + o.transpose(0, 1).reshape(len(ids), -1) @ w[p + "self_attn.o_proj.weight"].T
        h = rms_norm(x, w[p + "post_attention_layernorm.weight"], c["norm_eps"])
        gate = F.silu(h @ w[p + "mlp.gate_proj.weight"].T)
        x = x + (gate * (h @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    return rms_norm(x, w["model.norm.weight"], c["norm_eps"]) @ w["lm_head.weight"].T


def gpt2_logits(w, c, ids):
    def norm(x, name):
        return F.layer_norm(x, (c["width"],), w[name + ".weight"], w[name + ".bias"], c["norm_eps"])

    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: len(ids)]
    for i in range(c["layers"]):
        p = f"transformer.h.{i}."
        qkv = norm(x, p + "ln_1") @ w[p + "attn.c_attn.weight"] + w[p + "attn.c_attn.bias"]
        q, k, v = (heads_of(part, c["heads"]) for part in qkv.split(c["width"], dim=1))
        o = attention(q, k, v).transpose(0, 1).reshape(len(ids), -1)
        x = x + o @ w[p + "attn.c_proj.weight"] + w[p + "attn.c_proj.bias"]
        h = F.gelu(norm(x, p + "ln_2") @ w[p + "mlp.c_fc.weight"] + w[p + "mlp.c_fc.bias"], approximate="tanh")
        x = x + h @ w[p + "mlp.c_proj.weight"] + w[p + "mlp.c_proj.bias"]
    return norm(x, "transformer.ln_f") @ w["transformer.wte.weight"].T


def initial_weights(shapes, generator):
    weights = {}
    for name, shape in shapes.items():
        values = 0.2 * torch.randn(shape, generator=generator)
        if len(shape) == 1 and name.endswith("weight"):
            values += 1.0
        # What is recorded is FP32, so both sides start from the same numbers.
        weights[name] = values.float().double().requires_grad_(True)
    return weights


def record(path, config, shapes, logits_of):
    generator = torch.Generator().manual_seed(7)
    weights = initial_weights(shapes, generator)
    groups = [
        {"params": [w for w in weights.values() if w.dim() >= 2], "weight_decay": OPTIMIZER["weight_decay"]},
        {"params": [w for w in weights.values() if w.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER["lr"], betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]),
                                  eps=OPTIMIZER["eps"])
    # n + 1 tokens a document: inputs are the first n, targets the last n.
    stored = sum(n + 1 for n in LENGTHS)
    tokens = torch.randint(0, config["vocab"], (STEPS, stored), generator=generator)
    targets = sum(LENGTHS)
    with h5py.File(path, "w") as file:
        for key, value in {**config, **OPTIMIZER}.items():
            file.attrs[key] = value
        file.attrs["torch"] = str(torch.__version__)
        with open(__file__, "rb") as script:
            file.attrs["script_sha256"] = hashlib.sha256(script.read()).hexdigest()
        file["lengths"] = np.array(LENGTHS, dtype=np.int64)
        file["tokens"] = tokens.numpy().astype(np.int32)
        for name, w in weights.items():
            file["initial/" + name] = w.detach().numpy().astype(np.float32)
        losses, norms = [], []
        for step in range(STEPS):
            optimizer.zero_grad()
            loss, begin, all_logits = 0.0, 0, []
            for n in LENGTHS:
                document = tokens[step, begin : begin + n + 1]
                logits = logits_of(weights, config, document[:-1])
                loss = loss + F.cross_entropy(logits, document[1:], reduction="sum")
                all_logits.append(logits.detach())
                begin += n + 1
            loss = loss / targets
            loss.backward()
            if step == 0:
                file["logits"] = torch.cat(all_logits).numpy()
                for name, w in weights.items():
                    file["gradients/" + name] = w.grad.numpy()
            losses.append(loss.item())
            norms.append(torch.nn.utils.clip_grad_norm_(weights.values(), OPTIMIZER["clip"]).item())
            optimizer.step()
        file["losses"] = np.array(losses)
        file["gradient_norms"] = np.array(norms)
        for name, w in weights.items():
            file["final/" + name] = w.detach().numpy()


def main():
    directory = sys.argv[1] if len(sys.argv) == 2 else os.path.dirname(os.path.abspath(__file__))
    record(os.path.join(directory, "llama.h5"), LLAMA, llama_shapes(LLAMA), llama_logits)
    record(os.path.join(directory, "gpt2.h5"), GPT2, gpt2_shapes(GPT2), gpt2_logits)
    print(f"wrote {directory}/llama.h5 and gpt2.h5 with torch {torch.__version__}")


if __name__ == "__main__":
    main()
