"""Fetch one file from the first mirror that gives it whole.

The bytes go to a temporary name in the folder where the file will be, are checked there, and get
their name by ``os.replace``: a file that has its name is a whole one, whatever happened in between.
Mirrors are tried in turn, and all of them again after a pause that doubles; a mirror that says no
for good (404, unknown host) is not asked twice.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

Draw: TypeAlias = Callable[[int, int | None], None]
"""``draw(bytes received, bytes announced or None)``."""

CHUNK = 1 << 16


class DownloadError(OSError):
    """No mirror gave the file."""


class _MirrorError(Exception):
    """One attempt at one mirror failed; ``final`` where another would, too."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def fetch(
    name: str,
    mirrors: Sequence[str],
    folder: Path,
    verify: Callable[[Path], object],
    *,
    max_bytes: int,
    progress: bool = False,
    timeout: float = 10.0,
    rounds: int = 3,
    pause: float = 1.0,
) -> Path:
    """Fetch ``name`` into ``folder`` and return its path.

    Args:
        name: the file's name, at the mirrors and in the folder. A name in ``.gz`` whose content
            comes unpacked is stored without that ending.
        mirrors: addresses that ``name`` is appended to, the preferred first.
        folder: made when missing.
        verify: is given the path of what came and raises ValueError where it is not the file.
        max_bytes: more than this is not the file, and is not stored.
        progress: draw a bar on standard error.
        timeout: seconds without an answer or without a byte after which a mirror has failed.
        rounds: how often each mirror is asked.
        pause: seconds before the second round; doubles from there.

    Raises:
        DownloadError: no mirror gave it. Names each mirror and why.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    urls = [mirror.rstrip("/") + "/" + name for mirror in mirrors]
    reasons: dict[str, str] = {}
    for attempt in range(rounds):
        if attempt and urls:
            time.sleep(pause * 2 ** (attempt - 1))
        for url in list(urls):
            try:
                with _bar(name, progress) as draw:
                    return _attempt(url, folder / name, verify, max_bytes, timeout, draw)
            except _MirrorError as error:
                reasons[url] = str(error)
                if error.final:
                    urls.remove(url)
    tried = "".join(f"\n  {url}: {reason}" for url, reason in reasons.items())
    raise DownloadError(f"could not download {name}:{tried}")


def _attempt(
    url: str,
    target: Path,
    verify: Callable[[Path], object],
    max_bytes: int,
    timeout: float,
    draw: Draw,
) -> Path:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as out:
            for piece in _receive(url, max_bytes, timeout, draw):
                out.write(piece)
        try:
            verify(temporary)
        except ValueError as error:
            raise _MirrorError(str(error).replace(os.fspath(temporary), "what came")) from error
        with open(temporary, "rb") as came:
            packed = came.read(2) == b"\x1f\x8b"
        if target.suffix == ".gz" and not packed:
            target = target.with_suffix("")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _receive(url: str, max_bytes: int, timeout: float, draw: Draw) -> Iterator[bytes]:
    """The body of ``url``, piece by piece; whatever the network does is a ``_MirrorError``."""
    request = urllib.request.Request(url, headers={"User-Agent": "tinycompress"})
    received = 0
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            while piece := response.read(CHUNK):
                received += len(piece)
                if received > max_bytes:
                    raise _MirrorError(f"sends more than {max_bytes:,} bytes: another file")
                draw(received, total)
                yield piece
    except (OSError, http.client.HTTPException) as error:
        raise _MirrorError(*_explain(error, timeout)) from error
    if total is not None and received < total:
        raise _MirrorError(f"the connection ended after {received:,} of {total:,} bytes")


def _explain(error: Exception, timeout: float) -> tuple[str, bool]:
    """What went wrong, and whether it would again."""
    if isinstance(error, urllib.error.HTTPError):
        final = 400 <= error.code < 500 and error.code not in (408, 429)
        error.close()
        return f"HTTP {error.code} {error.reason}", final
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout:g} seconds", False
    if isinstance(cause, socket.gaierror):
        return "its address cannot be looked up (no network?)", True
    return f"{type(cause).__name__}: {cause}", False


@contextmanager
def _bar(name: str, show: bool) -> Iterator[Draw]:
    """A progress bar on standard error, or none."""
    if not show:
        yield lambda received, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, TransferSpeedColumn(), console=console) as progress:
        task = progress.add_task(name, total=None)
        yield lambda received, total: progress.update(task, completed=received, total=total)
