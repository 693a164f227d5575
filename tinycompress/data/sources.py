"""What MNIST and Fashion-MNIST consist of: files, shapes, checksums, mirrors.

MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998;
licence CC BY-SA 3.0. Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image
dataset for benchmarking machine learning algorithms", arXiv:1708.07747; MIT licence, Zalando SE.

A file's identity is the SHA-256 of its *unpacked* bytes: the same file packed by another gzip is
still the same file. For Fashion-MNIST only the MD5 of the published .gz files is known, so there
the .gz file is what can be told for certain; an unpacked one is checked for its shape alone.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinycompress.data.idx import pack_idx, read_idx


class ChecksumError(ValueError):
    """A well-formed file that is not the one it should be."""


@dataclass(frozen=True)
class IdxFile:
    """One of the four files of a source, named as it is when unpacked."""

    name: str
    shape: tuple[int, ...]
    sha256: str | None = None
    packed_md5: str | None = None

    @property
    def size(self) -> int:
        """Bytes of the unpacked file."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    def names(self) -> list[str]:
        """The names it may have, the preferred first: dashed or dotted, plain or ``.gz``."""
        dotted = self.name.replace("-idx", ".idx")  # as the original page's own archives had it
        plain_first = ("", ".gz") if self.sha256 else (".gz", "")
        return [name + ending for ending in plain_first for name in (self.name, dotted)]


@dataclass(frozen=True)
class Source:
    """A data set of four IDX files: training images and labels, test images and labels."""

    name: str
    title: str
    folders: tuple[str, ...]  # where in a data folder its files may lie; "" is the folder itself
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    mirrors: tuple[str, ...]
    class_names: tuple[str, ...]


MNIST = Source(
    name="mnist",
    title="MNIST",
    folders=("mnist", "MNIST/raw", ""),
    files=(
        IdxFile(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    class_names=tuple("0123456789"),
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    title="Fashion-MNIST",
    folders=("fashion-mnist", "FashionMNIST/raw"),
    files=(
        IdxFile(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            packed_md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60000,),
            packed_md5="25c81989df183df01b3e8a0aad5dffbe",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            packed_md5="bef4ecab320f06d8554ea6380940ec79",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10000,),
            packed_md5="bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)

SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST)}


# --------------------------------------------------------------------------------------- identity


def read_checked(path: Path, file: IdxFile) -> tuple[np.ndarray, str]:
    """The array in ``path`` and how it is known to be ``file``: by sha256, md5 or shape only.

    Raises:
        IdxError: not a whole IDX file of that shape.
        ChecksumError: another file of the same shape.
    """
    array = read_idx(path, file.shape)
    digest = hashlib.sha256(pack_idx(array)).hexdigest()  # header and numbers: the unpacked bytes
    if file.sha256 is not None:
        _compare(path, "SHA-256 of the unpacked file", digest, file.sha256)
        return array, "sha256"
    packed = path.read_bytes()
    if file.packed_md5 is not None and packed[:2] == b"\x1f\x8b":
        md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
        _compare(path, "MD5", md5, file.packed_md5)
        return array, "md5"
    for source in SOURCES.values():
        if digest in (other.sha256 for other in source.files):
            raise ChecksumError(f"{os.fspath(path)}: this is a file of {source.title}")
    return array, "shape only"


def _compare(path: Path, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise ChecksumError(
            f"{os.fspath(path)}: well-formed, but not the published file: {what} is {found}, "
            f"expected {expected}. Remove or replace it; data of your own is read by "
            "tinycompress.data.from_idx(images, labels)"
        )
