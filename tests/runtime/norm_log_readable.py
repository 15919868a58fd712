#!/usr/bin/env python3
"""norms.h5 as h5py sees it. Usage: norm_log_readable.py FILE; exit status 77 without h5py."""
import sys

try:
    import h5py
    import numpy
except ImportError:
    sys.exit(77)

with h5py.File(sys.argv[1]) as file:
    updates = file["updates"]
    recorded = ~numpy.isnan(updates["rate"])
    assert recorded.any() and numpy.isfinite(updates["l1"][recorded]).all()
    assert updates.chunks is None and updates.id.get_offset() is not None
    print(updates.dtype.names, dict(updates.attrs), int(recorded.sum()), file["schedule"][()].decode())
