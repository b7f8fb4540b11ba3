"""The GPUs of a machine, dealt out to processes."""

from __future__ import annotations

import os


def share(processes: int) -> int | None:
    """How many GPUs each of some processes sees alone, 0 where they share; None without GPUs."""
    import tensorflow as tf

    count = len(tf.config.list_physical_devices("GPU"))
    return count // processes if count else None


def dealt_out(processes: int) -> list[dict[str, str]]:
    """Which GPUs each of some processes sees, as variables of its environment.

    As many for each, what is left over for none. Where there are fewer GPUs than processes, they
    take turns, and those that share one take memory as they need it, not all at once.

    Args:
        processes: how many there are at a time.

    Returns:
        Variables for each; none on a machine without GPUs, and for one process alone.
    """
    import tensorflow as tf

    count = len(tf.config.list_physical_devices("GPU"))
    if not count or processes == 1:
        return [{} for _ in range(processes)]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = named.split(",")[:count] if named else [str(number) for number in range(count)]
    each = count // processes
    if each:
        parts = [cards[each * place : each * (place + 1)] for place in range(processes)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
    return [
        {"CUDA_VISIBLE_DEVICES": cards[place % count], "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        for place in range(processes)
    ]
