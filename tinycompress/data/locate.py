"""Where the files of a data set are looked for, and which of them are there.

The folders, in order: ``data_dir``, the environment variable ``TINYCOMPRESS_DATA``, the user's
cache. In each, the files may lie in a folder named for the data set or where torchvision puts them
(``mnist``, ``MNIST/raw``), and in ``data_dir`` itself. In the two others, only MNIST's may lie in
the folder itself: Fashion-MNIST's files have the same names.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tinycompress.data.sources import SOURCES, IdxFile, Source, read_checked

Folder: TypeAlias = str | os.PathLike[str] | None
VARIABLE = "TINYCOMPRESS_DATA"


def cache_folder() -> Path:
    """The user's cache of this package: ``~/.cache/tinycompress``, or where the system has it."""
    name = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    base = os.environ.get(name, "")
    if not os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
        base = os.path.join("~", ".cache")
    return Path(base).expanduser() / "tinycompress"


def data_folders(data_dir: Folder = None) -> list[Path]:
    """The data folders, the preferred first; the first is where downloads go.

    Raises:
        NotADirectoryError: ``data_dir`` or ``TINYCOMPRESS_DATA`` names something else.
    """
    given = {"data_dir": data_dir, VARIABLE: os.environ.get(VARIABLE)}
    folders = []
    for name, value in given.items():
        if not value:
            continue
        folder = Path(value).expanduser()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{name}: {folder} is not a folder")
        folders.append(folder)
    return [*folders, cache_folder()]


def search_folders(source: Source, data_dir: Folder = None) -> list[Path]:
    """Every folder in which the files of ``source`` may lie, in the order of the search."""
    found: list[Path] = []
    for base in data_folders(data_dir):
        found += [base / below for below in source.folders]
        if data_dir and base == Path(data_dir).expanduser():
            found.append(base)
    return list(dict.fromkeys(found))


def find(source: Source, file: IdxFile, data_dir: Folder = None) -> Path | None:
    """The first file there is that has a name of ``file``, or None."""
    for folder in search_folders(source, data_dir):
        for name in file.names():
            if (folder / name).is_file():
                return folder / name
    return None


# ---------------------------------------------------------------------------------- for the reader


@dataclass(frozen=True)
class FileStatus:
    """One file of a data set: where it was found and whether it is the published one.

    ``checked`` is ``"sha256"``, ``"md5"`` or ``"shape only"`` for a good file, ``""`` for one that
    is missing or damaged; ``problem`` then says what is wrong.
    """

    name: str
    path: Path | None
    size: int | None
    checked: str
    problem: str


@dataclass(frozen=True)
class SourceStatus:
    """A data set: the folders that were searched, in order, and what was found of each file."""

    name: str
    title: str
    searched: tuple[Path, ...]
    files: tuple[FileStatus, ...]

    @property
    def complete(self) -> bool:
        """Whether all four files are there and good: nothing needs to be downloaded."""
        return all(file.checked for file in self.files)


def locate(name: str = "mnist", data_dir: Folder = None) -> SourceStatus:
    """Look for the files of ``"mnist"`` or ``"fashion-mnist"`` and check each; never downloads."""
    if name not in SOURCES:
        raise ValueError(f"no data set {name!r}; there is {' and '.join(SOURCES)}")
    source = SOURCES[name]
    files = tuple(_status(source, file, data_dir) for file in source.files)
    return SourceStatus(name, source.title, tuple(search_folders(source, data_dir)), files)


def _status(source: Source, file: IdxFile, data_dir: Folder) -> FileStatus:
    path = find(source, file, data_dir)
    if path is None:
        return FileStatus(file.name, None, None, "", "not found")
    checked, problem = "", ""
    try:
        checked = read_checked(path, file)[1]
    except (ValueError, OSError) as error:
        problem = str(error)
    return FileStatus(file.name, path, path.stat().st_size, checked, problem)
