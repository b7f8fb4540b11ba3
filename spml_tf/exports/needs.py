"""Packages that only some formats need."""

from __future__ import annotations

import importlib.util

from spml_tf.system.errors import UserError


def needed(module: str, extra: str, wanted: str) -> None:
    """Raises UserError where a module cannot be imported.

    Args:
        module: its name.
        extra: of spml_tf, which brings it.
        wanted: the flag that asks for it.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"{wanted}: needs {module}, which is not installed: "
            f"python -m pip install 'spml_tf[{extra}]' (in a checkout '.[{extra}]')"
        )
