"""A file is written whole or not at all, whatever happens while it is written."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tinycompress import files
from tinycompress.files import atomic_write, replaceable

OLD, NEW = b"what was there", b"what comes instead" * 10_000


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


def names(folder):
    return sorted(os.listdir(folder))


def test_what_was_written_takes_the_place_of_the_file(target):
    with atomic_write(target) as file:
        file.write(NEW)
        assert target.read_bytes() == OLD, "until the block ends the old one is there"
    assert target.read_bytes() == NEW
    assert names(target.parent) == ["file.bin"]


def test_a_new_file_and_a_path_as_a_string(tmp_path):
    with atomic_write(str(tmp_path / "new.bin")) as file:
        file.write(NEW)
    assert (tmp_path / "new.bin").read_bytes() == NEW
    assert names(tmp_path) == ["new.bin"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_when_the_block_raises_the_old_file_is_left_alone(kind, target):
    def write_half():
        with atomic_write(target) as file:
            file.write(NEW[:1000])
            raise kind

    with pytest.raises(kind):
        write_half()
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_when_the_disk_refuses_the_old_file_is_left_alone(step, target, monkeypatch):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(OSError, match="No space left"), atomic_write(target) as file:
        file.write(NEW)
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["file.bin"]


KILLED = """
import importlib.util, os, signal, sys

spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
die = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] != "write":
    setattr(os, sys.argv[3], die)
with files.atomic_write(sys.argv[2]) as file:
    file.write(b"half of it")
    file.flush()
    if sys.argv[3] == "write":
        die()
"""


@pytest.mark.parametrize("step", ["write", "fsync", "chmod", "replace"])
def test_when_the_process_is_killed_the_old_file_is_whole(step, target):
    command = [sys.executable, "-c", KILLED, files.__file__, str(target), step]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert target.read_bytes() == OLD
    with atomic_write(target) as file:  # and what the killed one left is in nobody's way
        file.write(NEW)
    assert target.read_bytes() == NEW


def test_permissions_are_those_of_the_old_file_or_as_open_would_give_them(tmp_path, target):
    os.chmod(target, 0o604)
    before = os.umask(0o027)
    try:
        for path in (target, tmp_path / "new.bin"):
            with atomic_write(path) as file:
                file.write(NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert stat.S_IMODE((tmp_path / "new.bin").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path, target):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.bin"
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write(NEW)
    assert link.is_symlink()
    assert target.read_bytes() == NEW
    assert names(tmp_path / "elsewhere") == ["link.bin"]


def test_a_folder_that_is_not_there(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"cannot write .*gone/file.bin: the folder .*gone"),
        atomic_write(tmp_path / "gone" / "file.bin"),
    ):
        pass


def test_folders_and_devices_are_not_replaced(tmp_path):
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match="is not an ordinary file"), atomic_write(path):
            pass
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_whether_a_path_can_be_written_is_known_before(tmp_path, target):
    assert replaceable(target) == target.resolve()
    assert replaceable(tmp_path / "new.bin").parent == tmp_path.resolve()
    with pytest.raises(OSError, match="is not an ordinary file"):
        replaceable(tmp_path)
    assert names(tmp_path) == ["file.bin"]


def test_of_two_writers_one_wins_and_its_file_is_whole(tmp_path):
    path, contents = tmp_path / "file.bin", [bytes([i]) * 100_000 for i in range(4)]
    together = threading.Barrier(4)

    def write(content):
        together.wait()
        with atomic_write(path) as file:
            file.write(content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["file.bin"]
