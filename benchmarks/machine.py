"""What a figure depends on: the machine, the versions, the commit, the command. And its file.

A result without these cannot be compared with anything, so every file in ``results/`` holds them.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from benchmarks.peers.contender import cores
from benchmarks.servers import ROOT

RESULTS = ROOT / "results" / "speed"


def machine() -> dict[str, Any]:
    """The processor, its cores and caches, and the memory, as far as the system tells."""
    return {
        "cpu": _from_file("/proc/cpuinfo", "model name") or platform.processor(),
        "features": _vector_units(),
        "cores": cores(),
        "caches": caches(),
        "memory_gb": _memory_gb(),
        "system": platform.platform(),
    }


def caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, str]:
    """Size of each cache of the first core, such as {"L2": "2048K"}; empty where unknown."""
    found = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if kind != "Instruction" and size:
            found[f"L{level}"] = size
    return found


def _vector_units() -> list[str]:
    flags = _from_file("/proc/cpuinfo", "flags").split()
    return [flag for flag in flags if flag in ("avx2", "avx512f", "avx512_vnni", "amx_tile")]


def _memory_gb() -> float | None:
    total = _from_file("/proc/meminfo", "MemTotal").split()
    return round(int(total[0]) / 2**20, 1) if total else None


def _from_file(path: str, key: str) -> str:
    lines = _read(Path(path)).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def versions() -> dict[str, Any]:
    """Of Python, NumPy and the BLAS that NumPy calls, with the kernels that it chose."""
    np.ones((2, 2)) @ np.ones((2, 2))
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    told = {k: blas[0].get(k) for k in ("internal_api", "version", "architecture")} if blas else {}
    environment = {k: v for k, v in os.environ.items() if k.startswith("OPENBLAS_")}
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": told,
        **({"environment": environment} if environment else {}),
    }


def commit() -> str:
    """The commit that is checked out; with "+changes" where files differ from it."""
    try:
        revision = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "tinycompress", "benchmarks")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision + ("+changes" if changed else "")


def _git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def command() -> str:
    """The line that started this program, as it would be typed in the repository.

    Where the data lie is everybody's own: FOLDER stands for it.
    """
    module = Path(sys.argv[0]).stem
    package = "benchmarks" if module in ("__main__", "run") else f"benchmarks.{module}"
    before = ["", *sys.argv[1:]]
    words = ["FOLDER" if last == "--data-dir" else word for last, word in pairwise(before)]
    return shlex.join(["python", "-m", package, *words])


def report(name: str, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A result as it stands in its file."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "name": name,
        "what": what,
        "command": command(),
        "commit": commit(),
        "date": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        **body,
    }


def write(folder: Path | None, result: Mapping[str, Any]) -> Path | None:
    """``folder/<name>.json``; nothing without a folder."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", "utf-8")
    return path
