"""MNIST: 28×28 grey images of handwritten digits, 60,000 to learn from and 10,000 to be tested on.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998,
derived from NIST Special Databases 1 and 3. Licence: Creative Commons Attribution-ShareAlike 3.0.

A sample (the first 10,000 training images and all test images, unchanged) comes with this package,
so that everything can be tried without a network: ``mnist_sample.idx.xz``, four IDX arrays one
after the other, compressed with xz; ``tools/make_mnist_sample.py`` made it. The full set is found
on this machine (:mod:`tinycompress.data.locate`) or fetched (:mod:`tinycompress.data.download`).

Fashion-MNIST has the same form and other pictures: ten kinds of clothing.
"""

from __future__ import annotations

import lzma
import os
from importlib import resources
from pathlib import Path

import numpy as np

from tinycompress.data.dataset import Dataset
from tinycompress.data.download import DownloadError, fetch
from tinycompress.data.idx import IdxError, read_array, read_idx
from tinycompress.data.locate import VARIABLE, Folder, data_folders, find, search_folders
from tinycompress.data.sources import (
    FASHION_MNIST,
    MNIST,
    ChecksumError,
    IdxFile,
    Source,
    read_checked,
)

SAMPLE = "mnist_sample.idx.xz"
SAMPLE_TRAIN = 10_000


def mnist(
    full: bool = False,
    data_dir: Folder = None,
    download: bool = True,
    progress: bool = False,
) -> tuple[Dataset, Dataset]:
    """MNIST as ``(train, test)``: images float32 (N, 1, 28, 28) in [0, 1], labels int64 (N,).

    Args:
        full: False: the sample that comes with the package, 10,000 training and all 10,000 test
            images; True: all 60,000 training images.
        data_dir: a folder with the four IDX files (``train-images-idx3-ubyte.gz`` and so on,
            packed or not), searched before ``TINYCOMPRESS_DATA`` and the user's cache; files that
            are nowhere are downloaded into it. Needs ``full=True``.
        download: whether files that are nowhere may be downloaded.
        progress: draw a progress bar on standard error while downloading.

    Raises:
        FileNotFoundError: files are missing and ``download`` is False.
        DownloadError: files are missing and cannot be fetched; says which to put where.
        IdxError, ChecksumError: a file that was found is damaged or another one.
        ValueError: ``data_dir`` without ``full=True``.
    """
    if full:
        return _load(MNIST, data_dir, download, progress)
    if data_dir is not None:
        raise ValueError("data_dir is where the full set lies: mnist(full=True, data_dir=…)")
    return _sample()


def fashion_mnist(
    data_dir: Folder = None, download: bool = True, progress: bool = False
) -> tuple[Dataset, Dataset]:
    """Fashion-MNIST as ``(train, test)``, 60,000 and 10,000 images; arguments as :func:`mnist`."""
    return _load(FASHION_MNIST, data_dir, download, progress)


def from_idx(
    images: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    name: str = "",
    classes: int | None = None,
) -> Dataset:
    """A data set of your own from two IDX files in MNIST's form, uint8 (N, H, W) and (N,)."""
    pixels = read_idx(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise IdxError(
            f"{os.fspath(images)}: holds {pixels.dtype} of shape {pixels.shape}, expected uint8 "
            "images (N, H, W)"
        )
    return _dataset(pixels, read_idx(labels), name or os.fspath(images), classes)


# ---------------------------------------------------------------------------------------- details


def _dataset(pixels: np.ndarray, labels: np.ndarray, name: str, classes: int | None) -> Dataset:
    images = pixels[:, None].astype(np.float32)  # (N, H, W) -> (N, 1, H, W)
    images /= 255
    return Dataset(images, labels, name=name, classes=classes)


def _sample() -> tuple[Dataset, Dataset]:
    path = resources.files("tinycompress.data") / SAMPLE
    shapes = [(SAMPLE_TRAIN, *MNIST.files[0].shape[1:]), (SAMPLE_TRAIN,)]
    shapes += [MNIST.files[2].shape, MNIST.files[3].shape]
    with path.open("rb") as packed, lzma.open(packed) as stream:
        try:
            arrays = [read_array(stream, SAMPLE, shape) for shape in shapes]
            stream.read(1)  # at its end, xz compares the checksum of all that it gave
        except (lzma.LZMAError, EOFError) as error:
            raise IdxError(f"{path}: damaged ({error}); install the package again") from error
    train = _dataset(arrays[0], arrays[1], "mnist-sample-train", 10)
    return train, _dataset(arrays[2], arrays[3], "mnist-test", 10)


def _load(
    source: Source, data_dir: Folder, may_download: bool, progress: bool
) -> tuple[Dataset, Dataset]:
    missing = [file for file in source.files if find(source, file, data_dir) is None]
    if missing and not may_download:
        raise FileNotFoundError(_advice(source, missing, data_dir))
    for file in missing:
        _download(source, file, data_dir, progress)
    arrays = []
    for file in source.files:
        path = find(source, file, data_dir)
        if path is None:  # somebody removed it in the meantime
            raise FileNotFoundError(_advice(source, [file], data_dir))
        arrays.append(read_checked(path, file)[0])
    classes = len(source.class_names)
    train = _dataset(arrays[0], arrays[1], f"{source.name}-train", classes)
    return train, _dataset(arrays[2], arrays[3], f"{source.name}-test", classes)


def _download(source: Source, file: IdxFile, data_dir: Folder, progress: bool) -> None:
    def verify(path: Path) -> None:
        if read_checked(path, file)[1] == "shape only":
            raise ChecksumError(f"{path}: came unpacked, and only the packed file can be checked")

    folder = data_folders(data_dir)[0] / source.name
    limit = file.size + 65536  # gzip makes nothing much longer
    name = f"{file.name}.gz"
    try:
        fetch(name, source.mirrors, folder, verify, max_bytes=limit, progress=progress)
    except DownloadError as error:
        missing = [f for f in source.files if find(source, f, data_dir) is None]
        raise DownloadError(f"{error}\n{_advice(source, missing, data_dir)}") from None


def _advice(source: Source, missing: list[IdxFile], data_dir: Folder) -> str:
    """Which files are missing, where they were looked for, and what to do without a network."""
    names = "".join(f"\n  {file.name}.gz" for file in missing)
    folders = "".join(f"\n  {folder}" for folder in search_folders(source, data_dir))
    sample = ", or use the sample that needs no files: mnist()" if source is MNIST else ""
    return (
        f"{source.title}: these files are missing:{names}\nThey were looked for in:{folders}\n"
        f"Put them, packed or not, into {data_folders(data_dir)[0] / source.name}, or name the "
        f"folder that has them with data_dir= or the environment variable {VARIABLE}{sample}."
    )
