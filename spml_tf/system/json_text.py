"""JSON that anybody may have written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spml_tf.system.errors import UserError


def parse_json(text: str, object_hook: Callable[..., Any] | None = None) -> Any:
    """What `json.loads` returns; all that it cannot read is a ValueError.

    Args:
        text: JSON.
        object_hook: as for `json.loads`.

    Raises:
        json.JSONDecodeError: it is not JSON.
        ValueError: it is nested too deeply, or has a number of thousands of digits.

    Examples:
        >>> parse_json('{"a": [1, 2]}')
        {'a': [1, 2]}
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
            ...
        ValueError: it is nested too deeply
    """
    try:
        return json.loads(text, object_hook=object_hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json_or_none(path: Path) -> Any:
    """What a JSON file holds; None where there is none that can be read."""
    try:
        return parse_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def parse_document(
    path: str | os.PathLike[str],
    text: str,
    advice: str,
    object_hook: Callable[..., Any] | None = None,
) -> Any:
    """As `parse_json`, of a file that a user gave.

    Args:
        path: the file, for the message.
        text: its content.
        advice: what to do about a file that is no JSON, for the message.
        object_hook: as for `json.loads`.

    Raises:
        UserError: it cannot be read; the message gives line and column where they are known.
    """
    try:
        return parse_json(text, object_hook)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not whole JSON: {error.msg} in line {error.lineno}, column {error.colno}; "
            + advice
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: no usable JSON ({error}); {advice}") from error
