"""Precision, recall and F1 of decisions, by class and in the mean. NumPy in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.evaluation.average_precision import average_precision
from spml_tf.labels import POSITIVE, counted_labels

# What is said of a class, in the order of columns.
MEASURES = ("precision", "recall", "f1")


def decision_report(
    labels: ArrayLike,
    scores: ArrayLike,
    thresholds: ArrayLike,
    class_names: Sequence[str],
    absent_classes: str = "skip",
    unknown_counts_as: str = "nothing",
) -> dict[str, Any]:
    """Precision, recall and F1 in percent, where score >= threshold decides for a class.

    The macro mean is that of the classes' values, the micro mean is of all labels together. Without
    a decision the precision is 0.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float.
        thresholds: [L] float.
        class_names: L names.
        absent_classes: "skip" leaves classes without positives out of the macro means, "zero"
            counts them as 0.
        unknown_counts_as: "nothing" or "negative", see `labels.counted_labels`.

    Returns:
        {"precision", "recall", "f1": {class: float, or None for a class without positives},
        "threshold": {class: float}, "macro" and "micro": {"precision", "recall", "f1", and for
        micro "ap"}: None where no class has positives}.

    Examples:
        Two decisions, one of them right, and two positives, one of them found:

        >>> labels, scores = [[1], [0], [1]], [[0.9], [0.8], [0.1]]
        >>> report = decision_report(labels, scores, [0.5], ["cat"])
        >>> report["precision"], report["recall"], report["f1"]
        ({'cat': 50.0}, {'cat': 50.0}, {'cat': 50.0})
    """
    counted = counted_labels(labels, unknown_counts_as)
    positive, scores = (np.asarray(labels) == POSITIVE) & counted, np.asarray(scores)
    decided = (scores >= np.asarray(thresholds)) & counted
    counts = np.stack([(positive & decided), decided, positive]).sum(axis=1)
    by_class, micro = _measures(counts), _measures(counts.sum(axis=1, keepdims=True))[:, 0]
    present = positive.any(axis=0)
    named = {
        name: _named(class_names, np.where(present, row, np.nan))
        for name, row in zip(MEASURES, by_class, strict=True)
    }
    looked = by_class[:, present] if absent_classes == "skip" else by_class * present
    macro = looked.mean(axis=1) if present.any() else np.full(len(MEASURES), np.nan)
    if not present.any():
        micro = np.full(len(MEASURES), np.nan)
    ap = average_precision(positive[counted][:, None], scores[counted][:, None])[0]
    return {
        **named,
        "threshold": _named(class_names, np.asarray(thresholds, np.float64)),
        "macro": _named(MEASURES, macro),
        "micro": _named(("ap", *MEASURES), np.array([100 * ap, *micro])),
    }


def _measures(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[3, n] percent, of counts [3, n]: decisions that are right, decisions, positives."""
    right, decided, positive = counts
    found: NDArray[np.float64] = np.stack([
        100 * right / np.maximum(decided, 1),
        100 * right / np.maximum(positive, 1),
        200 * right / np.maximum(decided + positive, 1),
    ])  # fmt: skip
    return found


def _named(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(names, values, strict=True)
    }
