"""The line that a training begins with."""

from __future__ import annotations

import os

import tensorflow as tf

from spml_tf.datasets.splits import Splits
from spml_tf.system import replicas
from spml_tf.training.options import AUTO

_NAMES = {"train": "training", "val": "validation", "test": "test"}


def start_line(data: Splits, k: float | str | None, folder: str | os.PathLike[str]) -> str:
    """What is trained on, on what, and where it goes.

    Args:
        data: of the run.
        k: mean number of positives per image that training is told, "auto": estimated, or None.
        folder: the run's.

    Returns:
        A line such as "68 training, 30 validation, 12 classes, K = 1.77, CPU x2, -> runs/mine"; the
        number after a CPU is that of its threads, after a GPU that of all workers' GPUs.
    """
    workers = replicas.this_shard().workers
    parts = [f"{len(part):,} {_NAMES[name]}" for name, part in data.parts.items()]
    parts.append(f"{len(data.train.class_names):,} classes")
    parts.append("K unknown" if k is None else "K estimated" if k == AUTO else f"K = {k:.2f}")
    if tf.config.list_logical_devices("GPU"):
        parts.append(f"GPU x{replicas.devices() * workers}")
    else:
        threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
        parts.append(f"CPU x{threads}")
    parts += [f"{workers} workers"] if workers > 1 else []
    return ", ".join([*parts, f"-> {os.fspath(folder)}"])
