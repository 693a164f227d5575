"""Writing a file so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write to; when the block ends well, it takes the place of ``path`` at once.

    The bytes go to a temporary file in the same folder, reach the disk, and are then renamed. If
    the block raises, the temporary file is removed and ``path`` is as it was. A process that is
    killed in the block leaves its temporary file (``.name.….part``) behind, which nothing reads.
    Where ``path`` is a link, the file that it points to is replaced.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: ``path`` is a folder, a device or anything else that is not an ordinary file.
    """
    target = replaceable(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, target.stat().st_mode & 0o777)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replaceable(path: str | os.PathLike[str]) -> Path:
    """Where ``path`` leads, if a file can be put there; called early, it saves a long run in vain.

    Raises:
        FileNotFoundError, OSError: as :func:`atomic_write`.
    """
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {target.parent} does not exist")
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write {path}: it exists and is not an ordinary file")
    return target
