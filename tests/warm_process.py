"""Commands as processes that need not import TensorFlow: forks of one that has imported it.

Importing takes seconds, most of what a short command costs. `start` therefore asks a process that
has TensorFlow, Keras and the package in memory, but has run no operation and set nothing, to fork;
the fork becomes `python -m spml_tf.COMMAND`: with its arguments, folder and output, as `__main__`,
and ending as Python ends. Environment variables that are read at an import are those of the
process that forks, and its sets of text have the order of all other forks: where those or an
import are what is tested, start a Python.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

# What commands import when they need it.
_LATER = (
    "filelock", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "matplotlib.pyplot", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "scipy.sparse",
    "sklearn.metrics", "tensorboard.summary",
)  # fmt: skip
_LONGEST_REQUEST = 1 << 17


class Process:
    """A command that was started; what it writes goes to files that `communicate` reads.

    Attributes:
        args: module and arguments.
        pid: of the process, which is no child of this one.
        returncode: None while it runs, as `subprocess.Popen` has it afterwards.
    """

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.args = [module, *words]
        self.returncode: int | None = None
        self._written = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._read: list[str] = []
        self._news, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        variables = dict(os.environ if env is None else env)
        place = str(Path(cwd or ".").absolute())
        request = json.dumps([variables, [module, *words], place]).encode()
        assert len(request) <= _LONGEST_REQUEST
        with theirs:
            given = [theirs.fileno(), *(file.fileno() for file in self._written)]
            socket.send_fds(_forking()[0], [request], given)
        self.pid = self._hear()

    def _hear(self) -> int:
        word = self._news.recv(100)
        assert word, "the process that forks has ended"
        return int(word)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._hear()
            self._news.close()
            for file in self._written:
                with file:
                    file.seek(0)
                    self._read.append(file.read().decode(errors="replace"))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self._read[0], self._read[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    module: str,
    words: Sequence[str],
    cwd: str | Path | None = None,
    timeout: float = 300,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """A command from start to end, as `subprocess.run` with `capture_output` has it.

    Args:
        module: for instance spml_tf.train.
        words: its arguments.
        cwd: the folder it is started in; None for this process'.
        timeout: seconds after which it is killed and subprocess.TimeoutExpired raised.
        env: its environment variables; None for this process'.

    Returns:
        Code, output and errors; bytes that are no UTF-8 are replaced.
    """
    process = Process(module, words, cwd, env)
    try:
        output, errors = process.communicate(timeout)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@functools.cache
def _forking() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that forks and the way to it; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        # In a session of its own, for Ctrl-C is for pytest, which then ends all of it.
        process = subprocess.Popen(
            [sys.executable, __file__, str(number)],
            pass_fds=[number],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours, process


def _import() -> None:
    import spml_tf
    from spml_tf.system.tensorflow_import import import_tensorflow

    import_tensorflow()
    for found in pkgutil.walk_packages(spml_tf.__path__, "spml_tf."):
        if found.ispkg or found.name.count(".") > 1:  # not the commands, which become __main__
            importlib.import_module(found.name)
    for name in _LATER:
        importlib.import_module(name)


def _end(code: object) -> None:
    """As Python ends, but for taking apart what is in memory, which takes a third of a second."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    if "TF_CONFIG" not in os.environ:  # else workers take leave of each other
        with contextlib.suppress(OSError, ValueError):  # Python tells what cannot be written
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit((code or 0) & 0xFF)
    sys.exit(code)


def _next_command(requests: socket.socket) -> tuple[dict[str, str], list[str], str]:
    """Forks for each request and tells its sender pid and exit code; returns in the forks."""
    waiting = select.poll()
    waiting.register(requests, select.POLLIN)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready, _ in waiting.poll():
            if ready != requests.fileno():
                waiting.unregister(ready)
                os.close(ready)
                pid, news = running.pop(ready)
                with news, contextlib.suppress(BrokenPipeError):  # the test has not waited for it
                    status = os.waitpid(pid, 0)[1]
                    news.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            request, given, *_ = socket.recv_fds(requests, _LONGEST_REQUEST, 3)
            if not request:
                for pid, _ in running.values():
                    os.kill(pid, signal.SIGKILL)
                sys.exit()
            news_number, output, errors = given
            pid = os.fork()
            if not pid:
                requests.close()
                for number in (news_number, *running):
                    os.close(number)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(output, 1)
                os.dup2(errors, 2)
                variables, words, place = json.loads(request)
                return variables, words, place
            os.close(output)
            os.close(errors)
            news = socket.socket(fileno=news_number)
            news.send(str(pid).encode())
            number = os.pidfd_open(pid)
            waiting.register(number, select.POLLIN)
            running[number] = pid, news


if __name__ == "__main__":
    _import()
    # What is there now is neither gone through nor taken apart as a fork ends: a second less.
    gc.freeze()
    variables, sys.argv, sys.path[0] = _next_command(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(sys.path[0])
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        _end(ended.code)
    else:
        _end(None)
