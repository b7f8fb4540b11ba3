"""Ctrl-C and SIGTERM, kept until a place where work can stop and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from spml_tf.system.errors import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds in which signals are one request: a terminal, and what ends a group of processes, tell
# each of them, and the one that started the others tells these again.
_ONE_REQUEST = 1.0


def error_of(number: int, message: str = "") -> BaseException:
    """What a signal raises."""
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    return kind(message) if message else kind()


class StopRequests:
    """Which signal has asked this process to stop, while `listening`.

    Attributes:
        number: of the signal, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0

    def _note(self, number: int) -> None:
        if self.number:  # asked again: at once
            raise error_of(number)
        self.number = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Keeps the first request in `number`; the second one stops at once."""
        with _handled(self._note):
            yield


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM and KeyboardInterrupt on Ctrl-C, once a request."""

    def stop(number: int) -> None:
        raise error_of(number)

    with _handled(stop):
        yield


@contextlib.contextmanager
def _handled(asked: Callable[[int], None]) -> Iterator[None]:
    """Handles signals, in the main thread, unless they are ignored.

    Args:
        asked: called with the number of each request's first signal.
    """
    until = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal until
        if time.monotonic() > until:
            until = time.monotonic() + _ONE_REQUEST
            asked(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
