"""Notes: lines on standard error about what a user should know, none of which is an error."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator

from spml_tf.system.progress import beside_bar

_told = contextvars.ContextVar[set[str] | None]("told", default=None)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Within it `tell_note` prints each note once, however many parts of a command come upon it."""
    token = _told.set(set())
    try:
        yield
    finally:
        _told.reset(token)


def tell_note(text: str) -> None:
    """Prints ``note: TEXT`` on standard error.

    Args:
        text: one line.
    """
    told = _told.get()
    if told is not None:
        if text in told:
            return
        told.add(text)
    with beside_bar():
        print(f"note: {text}", file=sys.stderr)
