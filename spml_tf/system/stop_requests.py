"""Ctrl-C and SIGTERM, kept until a place where work can stop and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from spml_tf.system.errors import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def error_of(number: int, message: str = "") -> BaseException:
    """What a signal raises."""
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    return kind(message) if message else kind()


def _raise(number: int, frame: FrameType | None) -> None:
    raise error_of(number)


class StopRequests:
    """Which signal has asked this process to stop, while `listening`.

    Attributes:
        number: of the signal, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:  # asked again: at once
            raise error_of(number)
        self.number = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Keeps the first signal in `number`; the second one stops at once."""
        with _handled(self._note):
            yield


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM, as Python raises KeyboardInterrupt on Ctrl-C."""
    with _handled(_raise, (signal.SIGTERM,)):
        yield


@contextlib.contextmanager
def _handled(handler: Any, numbers: tuple[signal.Signals, ...] = _SIGNALS) -> Iterator[None]:
    """Handles signals, in the main thread, unless they are ignored."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
