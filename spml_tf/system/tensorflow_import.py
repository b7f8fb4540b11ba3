"""TensorFlow's import without its start-up messages, and libraries kept quiet."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from spml_tf.system.keras_import import require_tensorflow_backend, without_extras


class _Passing(io.TextIOBase):
    """Standard error, for loggers that keep the one they find when they are made.

    Attributes:
        stream: where text goes, None for what is standard error then.
    """

    stream: TextIO | None = None

    def write(self, text: str) -> int:
        return (self.stream or sys.stderr).write(text)

    def flush(self) -> None:
        (self.stream or sys.stderr).flush()

    def isatty(self) -> bool:
        return (self.stream or sys.stderr).isatty()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drops what libraries print on standard error, past Python; what Python prints passes."""
    passing = _Passing()
    sys.stderr.flush()
    kept, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    try:
        with open(kept, "w", closefd=False) as stream, contextlib.redirect_stderr(passing):
            passing.stream = stream
            yield
    finally:
        passing.stream = None
        os.dup2(kept, 2)
        os.close(kept)


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, which would drown a one-line error.

    It prints some before its logging can be told not to.

    Raises:
        BackendError: Keras, which TensorFlow imports, has another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_libraries(), without_extras():
        importlib.import_module("tensorflow")
        require_tensorflow_backend()
