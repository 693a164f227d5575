"""The program as a person or a script starts it: in a process of its own, or in a terminal."""

import os
import re
import signal
import struct
import subprocess
import sys
from typing import NamedTuple

COMMAND = [sys.executable, "-m", "tinycompress"]
# A test run in the background ignores Ctrl-C, and so would what it starts.
LISTENING = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from tinycompress.cli import main; main()",
]


class Result(NamedTuple):
    code: int
    out: str
    err: str


def start(*args, command=COMMAND, **kwargs):
    """A process with pipes for its output."""
    pipe = subprocess.PIPE
    options = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "text": True, **kwargs}
    return subprocess.Popen([*command, *map(str, args)], **options)


def finish(process, timeout=60):
    out, err = process.communicate(timeout=timeout)
    return Result(process.returncode, out, err)


def interrupt(process):
    process.send_signal(signal.SIGINT)
    return finish(process)


def in_terminal(*args, columns=80, pipe_out=False):
    """Run in a terminal; with ``pipe_out`` only standard error is one.

    ``out`` is what was piped, ``err`` what the terminal received.
    """
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    stdout = subprocess.PIPE if pipe_out else slave
    process = start(*args, stdin=slave, stdout=stdout, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(master)
    out = process.stdout.read() if pipe_out else ""
    if pipe_out:
        process.stdout.close()
    return Result(process.wait(60), out, shown.decode())


def lines_of(shown):
    """The lines of a terminal's output: without colours, cursor movements and overwritten text."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    return [line for row in plain.split("\n") for line in row.rstrip("\r").split("\r")]
