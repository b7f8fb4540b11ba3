"""Checks of what flags are given."""

from __future__ import annotations

from typing import Any

from spml_tf.system.errors import UserError


def check_least(options: Any, **lows: int) -> None:
    """Refuses numbers that are too small.

    Args:
        options: the command's.
        lows: the smallest number allowed by a flag's name; flags that are not given pass.

    Raises:
        UserError: naming the first one.
    """
    for name, low in lows.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise UserError(f"--{name}={value}: must be at least {low}")


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Refuses a flag's value outside [low, high]; None passes.

    Raises:
        UserError: naming flag and range.
    """
    if value is not None and not low <= value <= high:
        raise UserError(f"--{name}={value}: must lie between {low} and {high:g}")
