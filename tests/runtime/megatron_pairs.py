"""Writes Megatron-LM .bin/.idx pairs from the public description of the format, with nothing but `struct`.

Usage: megatron_pairs.py DIRECTORY   writes u8.bin, u8.idx, i8.bin, ... there

Documents of several sequences: [[1, 2, 3], [4, 5]], [[6]], [], [[7, 8, 9, 10]], [[], [11, 12]].
tests/runtime/megatron holds what it wrote; megatron_test.cc knows the numbers.
"""

import struct
import sys

CODES = {"u8": (1, "B"), "i8": (2, "b"), "i16": (3, "h"), "i32": (4, "i"), "i64": (5, "q"), "u16": (8, "H")}
DOCUMENTS = [[[1, 2, 3], [4, 5]], [[6]], [], [[7, 8, 9, 10]], [[], [11, 12]]]


def write_pair(directory, type_name):
    code, letter = CODES[type_name]
    sequences = [sequence for document in DOCUMENTS for sequence in document]
    first_sequences = [0]
    for document in DOCUMENTS:
        first_sequences.append(first_sequences[-1] + len(document))
    with open(f"{directory}/{type_name}.bin", "wb") as file:
        pointers = []
        for sequence in sequences:
            pointers.append(file.tell())
            file.write(struct.pack(f"<{len(sequence)}{letter}", *sequence))
    with open(f"{directory}/{type_name}.idx", "wb") as file:
        file.write(b"MMIDIDX\x00\x00")
        file.write(struct.pack("<QBQQ", 1, code, len(sequences), len(first_sequences)))
        file.write(struct.pack(f"<{len(sequences)}i", *[len(sequence) for sequence in sequences]))
        file.write(struct.pack(f"<{len(pointers)}q", *pointers))
        file.write(struct.pack(f"<{len(first_sequences)}q", *first_sequences))


for name in CODES:
    write_pair(sys.argv[1], name)
