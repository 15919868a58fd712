#!/usr/bin/env python3
"""Records PyTorch's own learning rates and SGD steps in torch_rates.json, beside this file.

Usage: torch_rates.py          (needs PyTorch; schedule_torch_test.cc and sharded_sgd_test.cc read the file)

A scheduler's rate is the one that the optimizer uses in update t = 0, 1, ...; PyTorch counts epochs the same way
when step() follows each update.
"""
import json
import math
import pathlib

import torch
from torch.optim import SGD, lr_scheduler as schedulers

STEPS, WARMUP, PEAK = 60, 12, 0.3


def rates(make, steps=STEPS):
    optimizer = SGD([torch.zeros(1, dtype=torch.float64, requires_grad=True)], lr=PEAK)
    scheduler = make(optimizer)
    recorded = []
    for _ in range(steps):
        recorded.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return recorded


def after_warm_up(make):
    """PyTorch's warm-up: from the first update's rate, start_factor * peak, up to the peak in total_iters updates."""
    return lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, start_factor=1 / WARMUP, end_factor=1, total_iters=WARMUP - 1), make(o)],
        milestones=[WARMUP])


def multiplied(shape):
    return lambda o: schedulers.LambdaLR(o, shape)


def sgd():
    generator = torch.Generator().manual_seed(5)
    config = {"momentum": 0.9, "weight_decay": 0.1, "rates": [0.05, 0.04, 0.03, 0.02, 0.01]}
    initial = torch.randn(96, generator=generator, dtype=torch.float64)
    parameters = torch.nn.ParameterList(
        [torch.nn.Parameter(part.clone()) for part in (initial[:40], initial[40:66], initial[66:])])
    optimizer = SGD([{"params": [parameters[0], parameters[2]], "weight_decay": config["weight_decay"]},
                     {"params": [parameters[1]], "weight_decay": 0.0}], lr=1, momentum=config["momentum"])
    config |= {"initial": initial.tolist(), "gradients": [], "parameters": []}
    for rate in config["rates"]:
        gradient = torch.randn(96, generator=generator, dtype=torch.float64)
        for parameter, part in zip(parameters, (gradient[:40], gradient[40:66], gradient[66:])):
            parameter.grad = part.clone()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        config["gradients"].append(gradient.tolist())
        config["parameters"].append(torch.cat([p.detach() for p in parameters]).tolist())
    config["momenta"] = torch.cat([optimizer.state[p]["momentum_buffer"] for p in parameters]).tolist()
    return config


def main():
    record = {
        "about": f"PyTorch {torch.__version__}: rates of updates 0, 1, ... with peak {PEAK}; and SGD in FP64",
        "steps": STEPS, "warmup": WARMUP, "peak": PEAK,
        "rates": {
            "constant": rates(lambda o: schedulers.ConstantLR(o, factor=1)),
            # Ends at 0 after the last update, like ours.
            "linear": rates(lambda o: schedulers.LinearLR(o, 1, 0, total_iters=STEPS)),
            "cosine": rates(lambda o: schedulers.CosineAnnealingLR(o, T_max=STEPS)),
            "cosine, floor 0.1": rates(lambda o: schedulers.CosineAnnealingLR(o, T_max=STEPS, eta_min=0.1 * PEAK)),
            "polynomial, power 1.7": rates(lambda o: schedulers.PolynomialLR(o, total_iters=STEPS, power=1.7)),
            "exponential": rates(lambda o: schedulers.ExponentialLR(o, gamma=math.exp(-3 / STEPS))),
            "step": rates(lambda o: schedulers.MultiStepLR(o, milestones=[STEPS // 2, STEPS * 3 // 4])),
            "linear after a warm-up": rates(after_warm_up(
                lambda o: schedulers.LinearLR(o, 1, 0, total_iters=STEPS - WARMUP))),
            "cosine after a warm-up": rates(after_warm_up(
                lambda o: schedulers.CosineAnnealingLR(o, T_max=STEPS - WARMUP))),
            # No scheduler of PyTorch's own: the formulas of their papers and of other libraries, through LambdaLR.
            "rex": rates(multiplied(lambda t: (1 - t / STEPS) / (0.5 + 0.5 * (1 - t / STEPS)))),
            "inverse-sqrt, shift 1": rates(multiplied(lambda t: 1 / math.sqrt(1 + t))),
            "wsd": rates(multiplied(lambda t: min(1.0, (STEPS - t) / (0.2 * STEPS)))),
        },
        "sgd": sgd(),
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(record, indent=1).replace("\n   ", " ").replace("\n  ]", "]") + "\n")


if __name__ == "__main__":
    main()
