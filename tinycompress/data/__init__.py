"""Data: MNIST and its like, data sets in memory, batches, augmentation.

Read in this order: :mod:`~tinycompress.data.dataset`, ``batching``, ``augment``; then where the
numbers come from: ``idx`` (the file format), ``sources``, ``locate``, ``download``, ``mnist``.
"""

from tinycompress.data.augment import RandomAffine, RandomShift
from tinycompress.data.batching import batch_count, batches
from tinycompress.data.dataset import Dataset
from tinycompress.data.download import DownloadError
from tinycompress.data.idx import IdxError, read_idx, write_idx
from tinycompress.data.locate import FileStatus, SourceStatus, locate
from tinycompress.data.mnist import fashion_mnist, from_idx, mnist
from tinycompress.data.sources import ChecksumError

__all__ = [
    "mnist",
    "fashion_mnist",
    "from_idx",
    "Dataset",
    "batches",
    "batch_count",
    "RandomAffine",
    "RandomShift",
    "locate",
    "SourceStatus",
    "FileStatus",
    "read_idx",
    "write_idx",
    "IdxError",
    "ChecksumError",
    "DownloadError",
]
