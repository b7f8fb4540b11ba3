"""Runs a module as a program that ends with its standard input.

`python -m spml_tf.system.child_process MODULE ARG...` is `python -m MODULE ARG...` in a process
that does not outlive the one that started it, even where that was killed: then nobody holds the
other end of its standard input any more.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Sequence


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line; the process must be given a pipe as its standard input."""
    return [sys.executable, "-m", "spml_tf.system.child_process", module, *arguments]


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
