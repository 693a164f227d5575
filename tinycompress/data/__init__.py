"""Data: MNIST and its like, batches, augmentation."""

from tinycompress.data.idx import IdxError as IdxError
from tinycompress.data.idx import read_idx as read_idx
from tinycompress.data.idx import write_idx as write_idx
