"""Lines about the results of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def summary(metrics: Mapping[str, Any]) -> str:
    """A line about the results that metrics.json holds."""
    return f"best epoch {metrics['best_epoch']}: {summary_of_maps(metrics)}"


def summary_of_maps(metrics: Mapping[str, Any]) -> str:
    """As "mAP val 34.39, test 35.81", of what metrics.json holds."""

    def text(value: float | None) -> str:
        return "undefined (no positives)" if value is None else f"{value:.2f}"

    scores = [f"{x} {text(metrics[x]['map'])}" for x in ("val", "test") if x in metrics]
    return f"mAP {', '.join(scores)}"
