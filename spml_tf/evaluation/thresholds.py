"""Decision thresholds per class, chosen on validation scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.labels import POSITIVE, counted_labels

DEFAULT = 0.5


def best_f1_thresholds(
    labels: ArrayLike, scores: ArrayLike, unknown_counts_as: str = "nothing"
) -> NDArray[np.float64]:
    """The threshold of highest F1 for each class; score >= threshold decides for the class.

    Between two neighbouring scores any threshold decides alike: the middle is taken, which leaves
    the largest margin for rounding. Below the lowest score, the middle between it and 0. Of several
    thresholds of equal F1 the highest is taken. A class without positives gets 0.5.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float in [0, 1].
        unknown_counts_as: "nothing" or "negative", see `labels.counted_labels`.

    Returns:
        [L] float64.

    Examples:
        >>> best_f1_thresholds([[1], [1], [0]], [[0.75], [0.5], [0.25]]).tolist()  # halfway to 0.25
        [0.375]
    """
    counted = counted_labels(labels, unknown_counts_as)
    positive, scores = np.asarray(labels) == POSITIVE, np.asarray(scores, np.float64)
    columns = zip(positive.T, scores.T, counted.T, strict=True)
    return np.array([_best(own[kept], column[kept]) for own, column, kept in columns])


def _best(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    if not positive.any():
        return DEFAULT
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(positive[order])[ends]
    f1 = 2 * hits / (ends + 1 + positive.sum())
    chosen = ends[int(np.argmax(f1))]
    below = ranked[chosen + 1] if chosen + 1 < len(ranked) else 0.0
    return float((ranked[chosen] + below) / 2)
