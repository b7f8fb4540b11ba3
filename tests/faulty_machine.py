"""A command on a machine that refuses something: `python faulty_machine.py FAULT MODULE ARG...`.

`run` starts it in a fork as `warm_process` does, whose folder is then that of the tests.
"""

from __future__ import annotations

import atexit
import errno
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import warm_process


def run(fault: str, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of spml_tf with a fault.

    Args:
        fault: see the functions of this module; what stands after a colon is given to one.
        module: the command's name.
        words: its arguments, paths absolute.
    """
    words = (fault, f"spml_tf.{module}", *words)
    return warm_process.run("faulty_machine", words, cwd=Path(__file__).parent)


def largest_file(bytes_: str) -> None:
    """No file may grow beyond this once a result is begun; what is written past it fails."""
    limit = int(bytes_), resource.RLIM_INFINITY
    # Standard error is a file too; a pipe has no size.
    reading, writing = os.pipe()
    pipe = subprocess.Popen(["cat"], stdin=reading, stdout=2)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)

    def end() -> None:
        os.close(2)
        pipe.wait()

    atexit.register(end)

    def look(event: str, given: tuple) -> None:
        if event in ("open", "os.mkdir") and ".unfinished-" in str(given[0]):
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    sys.addaudithook(look)


def full_output(_: str) -> None:
    """Standard output goes to a full disk."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def unread_output(_: str) -> None:
    """Standard output goes to a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(reading)
    os.close(writing)


def little_memory(_: str) -> None:
    """4 GB of addresses beyond those in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (4 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def no_locks(_: str) -> None:
    """flock says that there are none, as some network file systems do."""
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = refuse


def no_swap(_: str) -> None:
    """The C library does not know how to swap two names."""

    def refuse(event: str, given: tuple) -> None:
        if event == "ctypes.dlsym" and given[1] == "renameat2":
            raise AttributeError("renameat2")

    sys.addaudithook(refuse)


def killed(which: str) -> None:
    """kill -9 before the n-th thing done to names beside a folder: NUMBER:FOLDER[:no_swap]."""
    number, folder, *others = which.split(":")
    for other in others:
        globals()[other]("")
    count = 0
    beside = [f".{kind}-{os.path.basename(folder)}" for kind in ("unfinished", "old")]
    moments = ("os.rename", "shutil.rmtree", "os.rmdir", "ctypes.dlsym")

    def look(event: str, given: tuple) -> None:
        nonlocal count
        named = [os.path.basename(os.fspath(x)) for x in given[:2] if isinstance(x, str | Path)]
        if event in moments and {"renameat2", *beside} & set(named):
            count += 1
            if count == int(number):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def unexpected(_: str) -> None:
    """A fault of the program."""
    from spml_tf.datasets import splits

    def fail(*_: object) -> None:
        raise KeyError("an\nentry")

    splits.load_splits = fail


def folder_goes(folder: str) -> None:
    """The folder is removed while the command works, before its history.csv."""

    def look(event: str, given: tuple) -> None:
        if event == "open" and str(given[0]).endswith(".unfinished-history.csv"):
            shutil.rmtree(folder)

    sys.addaudithook(look)


if __name__ == "__main__":
    fault, *sys.argv = sys.argv[1:]
    name, _, given = fault.partition(":")
    globals()[name](given)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
