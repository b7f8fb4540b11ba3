"""The GPUs of a machine, dealt out to processes."""

from __future__ import annotations

import os


def count() -> int:
    """How many GPUs this process sees."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def dealt_out(processes: int) -> list[dict[str, str]]:
    """Which GPUs each of some processes sees, as variables of its environment.

    As many for each, what is left over for none. Where there are fewer GPUs than processes, they
    take turns, and those that share one take memory as they need it, not all at once.

    Args:
        processes: how many there are at a time.

    Returns:
        Variables for each; none on a machine without GPUs, and for one process alone.
    """
    found = count()
    if not found or processes == 1:
        return [{} for _ in range(processes)]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = named.split(",")[:found] if named else [str(number) for number in range(found)]
    share = found // processes
    if share:
        parts = [cards[share * place : share * (place + 1)] for place in range(processes)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
    return [
        {"CUDA_VISIBLE_DEVICES": cards[place % found], "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        for place in range(processes)
    ]
