"""Other frameworks, one file each, run as servers: ``python -m benchmarks.peers.NAME PROBLEM.npz``.

No file here imports tinycompress, whose setting of glibc's allocator would help its neighbour.
``torch_eager.py`` knows all workloads; the others write down W by hand, as their users would.
"""
