"""Lines about the results of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def has_best_epoch(metrics: Mapping[str, Any]) -> bool:
    """Whether validation chose the epoch whose network a run keeps.

    Where no validation image shows a class it could not, and the last epoch was taken.

    Args:
        metrics: what metrics.json holds.

    Examples:
        >>> has_best_epoch({"best_epoch": 4, "val": {"map": None}})
        False
    """
    return metrics["val"]["map"] is not None


def summary(metrics: Mapping[str, Any]) -> str:
    """A line about the results that metrics.json holds.

    Examples:
        >>> summary({"best_epoch": 2, "val": {"map": 34.389}})
        'best epoch 2: mAP val 34.39'
        >>> summary({"best_epoch": 4, "val": {"map": None}})
        'last epoch 4, none could be chosen: mAP val undefined (no positives)'
    """
    number = metrics["best_epoch"]
    known = has_best_epoch(metrics)
    epoch = f"best epoch {number}" if known else f"last epoch {number}, none could be chosen"
    return f"{epoch}: {summary_of_maps(metrics)}"


def summary_of_maps(metrics: Mapping[str, Any]) -> str:
    """As "mAP val 34.39, test 35.81", of what metrics.json holds."""

    def text(value: float | None) -> str:
        return "undefined (no positives)" if value is None else f"{value:.2f}"

    scores = [f"{x} {text(metrics[x]['map'])}" for x in ("val", "test") if x in metrics]
    return f"mAP {', '.join(scores)}"
