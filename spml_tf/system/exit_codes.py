"""How a command ends that was not done: its exit code, and the line that tells why."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import spml_tf
from spml_tf.system import machine_faults
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import flag_fields
from spml_tf.system.keras_import import BackendError

_MISTAKE, _FAULT = 1, 2
# What takes less memory when it is a smaller number, the first to be lowered first.
_COSTLY = ("batch_size", "image_size", "heatmap_size", "images", "top", "processes", "threads")


def told(error: Exception, given: Any, words: Sequence[str], debugging: bool) -> tuple[int, str]:
    """The exit code after an error, and the line that tells of it.

    Args:
        error: what ended the command.
        given: its options, None where they could not be read.
        words: its command line.
        debugging: whether the traceback is printed; else that of an error that nobody expected goes
            to a file.
    """
    if isinstance(error, UserError | BackendError):
        return _MISTAKE, str(error)
    if machine_faults.out_of_memory(error):
        return _MISTAKE, f"memory is used up; {_less_memory(given)}"
    refused = machine_faults.os_error(error)
    if refused is not None:
        return _MISTAKE, machine_faults.line(refused)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return _FAULT, (
        f"unexpected {reason}; this is a fault of spml_tf: please report it to those who maintain "
        f"it, with {_traceback_file(words, debugging)}"
    )


def _less_memory(given: Any) -> str:
    """Which of a command's flags to change when memory is used up."""
    fields = {} if given is None else {x.name: x for x in flag_fields(type(given))}
    advice = []
    for name in _COSTLY:
        if name in fields and fields[name].metadata["kind"] is int:
            value = getattr(given, name)
            advice.append(f"--{name}" if value is None else f"--{name}={value}")
    others = [
        f"--{name}={value}"
        for name, value in (("bank_dtype", "uint8"), ("heatmap_classes", 8), ("bank_dir", "DIR"))
        if name in fields and getattr(given, name) in (None, fields[name].default)
    ]
    told = [f"lower {' or '.join(advice)}"] if advice else []
    told += [f"give {' or '.join(others)}"] if others else []
    return ", or ".join(told) or "end other programs or use a machine with more"


def _traceback_file(words: Sequence[str], debugging: bool) -> str:
    """Writes the traceback of the current exception; what to report."""
    if debugging:
        return "the command and the traceback above"
    text = (
        f"spml_tf {spml_tf.__version__}, Python {platform.python_version()}, "
        f"{platform.platform()}\n"
        f"{shlex.join([sys.argv[0], *words])}\n\n{traceback.format_exc()}"
    )
    try:
        number, path = tempfile.mkstemp(prefix="spml_tf_error_", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return "what --debug prints"
    return path


def drop_output() -> None:
    """Lets Python end without another attempt to write what cannot be written."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.close(silent)


def drop_unwritable_output() -> None:
    """The same where standard output cannot be written any more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        drop_output()
