"""Data: MNIST and its like, batches, augmentation."""

from tinycompress.data.augment import RandomAffine, RandomShift
from tinycompress.data.batches import batch_count, batches
from tinycompress.data.dataset import Dataset
from tinycompress.data.idx import IdxError, read_idx, write_idx

__all__ = [
    "Dataset",
    "batches",
    "batch_count",
    "RandomAffine",
    "RandomShift",
    "read_idx",
    "write_idx",
    "IdxError",
]
