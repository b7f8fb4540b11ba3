"""Starts the processes of a training on this machine, and joins what they print."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from spml_tf.system import child_process, gpus
from spml_tf.system.errors import Terminated, UserError

# Seconds between two looks at the workers, those left to the others when one has failed, and those
# until one that was told to end is killed: while others may be gone, and while all save together.
_PAUSE, _PATIENCE, _LAST, _SAVING = 0.1, 40.0, 10.0, 120.0


# What an error advises where the command has checkpoints.
GOES_ON = "the same command goes on from the last checkpoint"


def launch(module: str, arguments: Sequence[str], workers: int, advice: str = GOES_ON) -> None:
    """Runs a command in several processes that know of each other by TF_CONFIG.

    What the first worker prints is printed as it is; lines of the others begin with their number,
    and an error line that the first one printed too is printed once. The GPUs are dealt out.

    Args:
        module: run as `python -m MODULE`.
        arguments: of the command, the same for all.
        workers: number of processes.
        advice: what an error says to do.

    Raises:
        UserError: one of them failed; the others are ended too.
        KeyboardInterrupt, Terminated: on Ctrl-C and SIGTERM, once all have ended.
    """
    clusters = zip(_gpus(workers), local_clusters(workers), strict=True)
    environments = [{**os.environ, **cards, "TF_CONFIG": config} for cards, config in clusters]
    failed = _run(module, arguments, environments)
    if failed:
        first = min(failed, key=lambda one: one.ended)
        raise UserError(f"worker {first.number} of {workers} {first.how()}; {advice}")


def launch_one(module: str, arguments: Sequence[str], name: str) -> None:
    """Runs a command in a process of its own, which prints what it prints.

    Args:
        module: run as `python -m MODULE`.
        arguments: of the command.
        name: what an error calls it.

    Raises:
        UserError: it failed.
        KeyboardInterrupt, Terminated: on Ctrl-C and SIGTERM, once it has ended.
    """
    for failed in _run(module, arguments, [os.environ]):
        raise UserError(f"{name} {failed.how()}; {GOES_ON}")


def _run(
    module: str, arguments: Sequence[str], environments: Sequence[Mapping[str, str]]
) -> list[_Worker]:
    """Runs a process with each environment; returns those that failed."""
    running: list[_Worker] = []
    try:
        for number, environment in enumerate(environments):
            running.append(_Worker(number, module, arguments, environment))
        _wait(running)
    except (KeyboardInterrupt, Terminated) as stopped:
        # A terminal has told the workers too. They stop together, at a step that all have done.
        number = signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT
        for one in running:
            one.tell(number)
        for one in running:
            one.end(_SAVING)
        raise type(stopped)("the same command goes on") from None
    finally:
        for one in running:
            one.tell(signal.SIGTERM)
            one.end(_LAST)
        told = {line for one in running[:1] for line in one.errors}
        for one in running[1:]:
            for line in one.errors:
                if line not in told:
                    print(f"worker {one.number}: {line}", file=sys.stderr)
    return [one for one in running if one.code]


class _Worker:
    """A process and the threads that read what it prints."""

    def __init__(
        self, number: int, module: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.number, self.errors, self.ended = number, list[str](), 0.0
        self.process = subprocess.Popen(
            child_process.command(module, arguments), env=dict(environment), text=True,
            errors="replace", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        pairs = ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        self.readers = [threading.Thread(target=self._join, args=pair) for pair in pairs]
        for reader in self.readers:
            reader.start()

    @property
    def code(self) -> int | None:
        """Of the ended process, negative for a signal; None while it runs."""
        found = self.process.poll()
        if found is not None and not self.ended:
            self.ended = time.monotonic()
        return found

    def _join(self, source: IO[str], target: IO[str]) -> None:
        for line in source:
            if target is sys.stderr and line.startswith("error: "):
                self.errors.append(line.rstrip("\n"))
                if self.number:
                    continue
            print(f"worker {self.number}: " * bool(self.number) + line, end="", file=target)
            target.flush()

    def how(self) -> str:
        """How it ended."""
        code = self.process.returncode
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return "failed, as said above" if self.errors else f"ended with code {code}"

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal, if the process runs."""
        if self.code is None:
            with contextlib.suppress(OSError):
                self.process.send_signal(number)

    def end(self, patience: float) -> None:
        """Waits some seconds, ends the process by force, and reads the rest of what it printed."""
        if self.code is None:
            try:
                self.process.wait(patience)
            except (subprocess.TimeoutExpired, KeyboardInterrupt, Terminated):
                self.process.kill()  # a user may be less patient
                self.process.wait()
        for reader in self.readers:
            reader.join()
        if self.process.stdin is not None:
            self.process.stdin.close()


def _wait(running: Sequence[_Worker]) -> None:
    """Until all have ended, or a while after the first that failed."""
    until = None
    while any(one.code is None for one in running):
        if until is None and any(one.code for one in running):
            until = time.monotonic() + _PATIENCE
        if until is not None and time.monotonic() > until:
            return
        time.sleep(_PAUSE)


def local_clusters(workers: int) -> list[str]:
    """TF_CONFIG of each of some workers on this machine, at ports that are free.

    Args:
        workers: number of processes.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for one in sockets:  # all are bound at a time, so that their ports differ
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}})
        for number in range(workers)
    ]


def _gpus(workers: int) -> list[dict[str, str]]:
    """As `gpus.dealt_out`; workers of one training have as many each, and none is left over."""
    count = gpus.count()
    if count % workers:
        raise UserError(f"--workers={workers}: {count} GPUs cannot be dealt out evenly")
    return gpus.dealt_out(workers)
