"""Make the MNIST sample that comes with the package, from the four original IDX files.

    python tools/make_mnist_sample.py FOLDER

FOLDER has train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
t10k-labels-idx1-ubyte, packed as .gz or not; their checksums are verified.
"""

import argparse
import hashlib
import lzma
from importlib import resources
from pathlib import Path

from tinycompress.data.idx import pack_idx
from tinycompress.data.locate import find
from tinycompress.data.mnist import SAMPLE, SAMPLE_TRAIN
from tinycompress.data.sources import MNIST, read_checked

LIMIT = 4_000_000  # bytes: it is in every copy of the package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder with the four IDX files")
    target = Path(str(resources.files("tinycompress.data"))) / SAMPLE
    parser.add_argument("--output", type=Path, default=target, help="(default: %(default)s)")
    options = parser.parse_args()

    arrays = []
    for file in MNIST.files:
        path = find(MNIST, file, options.folder)
        if path is None:
            parser.error(f"{options.folder} has no {file.name} or {file.name}.gz")
        arrays.append(read_checked(path, file)[0])
    arrays[:2] = (array[:SAMPLE_TRAIN] for array in arrays[:2])

    plain = b"".join(pack_idx(array) for array in arrays)
    packed = lzma.compress(plain, check=lzma.CHECK_SHA256, preset=9 | lzma.PRESET_EXTREME)
    if len(packed) > LIMIT:
        parser.error(f"the sample would have {len(packed):,} bytes, more than {LIMIT:,}")
    options.output.write_bytes(packed)
    print(f"{options.output}: {len(packed):,} bytes")
    for array, file in zip(arrays, MNIST.files, strict=True):
        print(f"  {hashlib.sha256(pack_idx(array)).hexdigest()}  {array.shape} of {file.name}")


if __name__ == "__main__":
    main()
