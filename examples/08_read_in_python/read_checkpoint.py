#!/usr/bin/env python3
"""Puts tensors together from the rank files of a checkpoint: h5py and numpy, nothing of Longspan.

Usage: read_checkpoint.py RUN/checkpoints/step-NNNNNNNN.gNNNN [--tensor /parameters/NAME] [--npz FILE]

Without options it lists the tensors. checkpoint/FORMAT.md describes the files.
"""
import argparse
import pathlib
import sys

import h5py
import numpy


def read_tensors(step_directory):
    """{"/group/name": array}, whole, from however many ranks."""
    directory = pathlib.Path(step_directory)
    if not (directory / "COMMIT").exists():
        sys.exit(f"{directory}: no COMMIT, so this save does not count")
    tensors, held = {}, {}
    for path in sorted(directory.glob("rank-*.h5")):
        with h5py.File(path, "r") as file:

            def visit(name, dataset):
                # Each data set is elements [flat_begin, flat_end) of one tensor in row-major order.
                if not isinstance(dataset, h5py.Dataset):
                    return
                name = "/" + name
                shape = tuple(int(dim) for dim in dataset.attrs["global_shape"])
                begin, end = int(dataset.attrs["flat_begin"]), int(dataset.attrs["flat_end"])
                if name not in tensors:
                    tensors[name] = numpy.empty(shape, dataset.dtype)
                    held[name] = 0
                tensors[name].reshape(-1)[begin:end] = dataset[...]
                held[name] += end - begin

            file.visititems(visit)
    for name, array in tensors.items():
        if held[name] != array.size:
            sys.exit(f"{name}: {held[name]} of {array.size} elements are there; a rank file is missing")
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--tensor", help="prints this one")
    parser.add_argument("--npz", help="writes all of them to this file")
    options = parser.parse_args()
    tensors = read_tensors(options.directory)
    if options.tensor:
        if options.tensor not in tensors:
            sys.exit(f"no tensor {options.tensor}")
        print(tensors[options.tensor])
    elif options.npz:
        numpy.savez(options.npz, **{name.lstrip("/"): array for name, array in tensors.items()})
    else:
        for name, array in sorted(tensors.items()):
            print(f"{name}  {array.dtype}  {array.shape}")


if __name__ == "__main__":
    main()
