"""Processes and memory that a test may have left behind."""

import os
import time
from pathlib import Path


def children(pid=None):
    """The processes whose parent is ``pid`` (this one), zombies too."""
    pid = os.getpid() if pid is None else pid
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(folder.name))
    return sorted(found)


def gone(pid, seconds=10):
    """Whether the process ends (as a process or as a zombie) within these seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def named_memory():
    """What stands in the folder of named shared memory."""
    folder = Path("/dev/shm")
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
