"""Checks of the numbers that flags are given."""

from __future__ import annotations

from typing import Any

from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import flag_fields, name_of


def check_bounds(options: Any) -> None:
    """Refuses numbers outside the bounds that their flags declare; those not given pass.

    Args:
        options: of a command, a dataclass of `flag_field`s.

    Raises:
        UserError: naming the first such flag and its bounds.
    """
    for field in flag_fields(type(options)):
        value = getattr(options, field.name)
        if value not in field.metadata["words"]:
            check_range(name_of(field), value, field.metadata["low"], field.metadata["high"])


def check_range(name: str, value: float | None, low: float | None, high: float | None) -> None:
    """Refuses a flag's value outside [low, high].

    Args:
        name: the flag's.
        value: None passes.
        low: None for any.
        high: None for any.

    Raises:
        UserError: naming flag and bounds.
    """
    if value is None:
        return
    told = f"--{name}={value}: must"
    if low is None:
        if high is not None and not value <= high:
            raise UserError(f"{told} be at most {high:g}")
    elif high is None:
        if not value >= low:
            raise UserError(f"{told} be at least {low}")
    elif not low <= value <= high:
        raise UserError(f"{told} lie between {low} and {high:g}")
