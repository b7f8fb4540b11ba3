"""The machine and the versions that results may depend on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from spml_tf.system import processor
from spml_tf.system.notes import tell_note


def machine() -> dict[str, Any]:
    """What the results may depend on: processor, cores, system and versions."""
    import keras
    import numpy
    import tensorflow as tf

    import spml_tf

    return {
        "versions": {
            "spml_tf": spml_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "system": platform.platform(),
            "processor": processor.name(),
            "cores": os.cpu_count(),
            "threads": tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count(),
            "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        },
    }


def other_machine(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What the last digits of results depend on and has changed, as "cores 2, now 4".

    Args:
        before: what `machine` returned there.
        now: what it returns here.
    """
    parts = (
        ("versions", ("tensorflow", "keras", "numpy")),
        ("machine", ("processor", "gpus", "threads")),
    )
    old_new = [
        (name, before.get(part, {}).get(name), now[part][name])
        for part, names in parts
        for name in names
    ]
    return [f"{name} {old}, now {new}" for name, old, new in old_new if old != new]


def note_other_machine(before: Mapping[str, Any]) -> None:
    """Tells where a resumed run may differ from one that was not interrupted.

    Args:
        before: what `machine` returned where it was interrupted.
    """
    changed = other_machine(before, machine())
    if changed:
        tell_note(
            f"the run went on so far with {'; '.join(changed)}: numbers may differ in their "
            "last digits from those of a run that was not interrupted",
        )
