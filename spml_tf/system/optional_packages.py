"""Packages that only some flags need."""

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
    found = importlib.util.find_spec(module)
    # A folder of the same name in the working directory, such as wandb's own, has no origin.
    if found is None or found.origin is None:
        raise UserError(
            f"{wanted}: needs {module}, which is not installed: "
            f"python -m pip install 'spml_tf[{extra}]' (in a checkout '.[{extra}]')"
        )
