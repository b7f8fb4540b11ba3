"""Notes: lines on standard error about what a user should know, none of which is an error."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import warnings
from collections.abc import Iterator

from spml_tf.system.errors import printable
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
        text: one line. It is made `printable`: names of files and classes may be anybody's.
    """
    text = printable(text)
    told = _told.get()
    if told is not None:
        if text in told:
            return
        told.add(text)
    with beside_bar():
        print(f"note: {text}", file=sys.stderr)


@contextlib.contextmanager
def of_warnings() -> Iterator[None]:
    """Shows warnings that are meant for users as notes, without a place in the code."""
    usual = warnings.formatwarning

    def as_note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if category is not UserWarning:
            return usual(message, category, filename, lineno, line)
        return f"note: {printable(' '.join(str(message).split()))}\n"

    warnings.formatwarning = as_note
    try:
        yield
    finally:
        warnings.formatwarning = usual
