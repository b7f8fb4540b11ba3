"""JSON that anybody may have written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


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
