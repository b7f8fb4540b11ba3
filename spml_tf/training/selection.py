"""Which images are expected to hold a class nobody annotated: eq. 3 and the choice by score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spml_tf.labels import EXPECTED, POSITIVE, UNKNOWN
from spml_tf.training.options import Budget, check_budget

# Classes ranked at a time.
_COLUMNS = 64


def class_budgets(labels: NDArray[np.int8], positives_per_image: float) -> NDArray[np.float64]:
    """Number of expected positives of each class, p_i of eq. 3.

    p_i = K * N * (share of the annotated positives that are of class i). K must be the mean number
    of true positives over the same N images that are passed in.

    Args:
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).
        positives_per_image: K, mean number of true positives per image, > 0.

    Returns:
        [L] float64, not rounded; zeros where nothing is annotated positive.

    Examples:
        >>> labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, -1]])
        >>> class_budgets(labels, 1.5).tolist()  # 1.5 * 4 = 6 positives, 2/3 and 1/3 of them
        [4.0, 2.0]
    """
    annotated = np.sum(labels == POSITIVE, axis=0, dtype=np.float64)
    budgets: NDArray[np.float64]
    budgets = positives_per_image * len(labels) * annotated / max(annotated.sum(), 1.0)
    return budgets


def expected_positives(
    scores: NDArray[np.floating],
    labels: NDArray[np.int8],
    positives_per_image: float,
    budget: Budget = "all",
) -> NDArray[np.bool_]:
    """Marks the unannotated labels that are expected to be positive (zhat = 1).

    For each class the p_i images of highest score are expected positive. Known negatives never
    enter the ranking. Ties are broken by image index, p_i is rounded and clipped.

    Args:
        scores: [N, L] float, the score bank s.
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).
        positives_per_image: K of eq. 3 over these N images.
        budget: "all", the paper's: the annotated positives are ranked along with the others and
            p_i images are taken; "unannotated": only unknown labels are ranked and p_i - n_i of
            them taken, n_i being the number of annotated positives; "global": the unknown labels of
            all classes are ranked together and K * N - sum of n_i of them taken, which does not
            assume that labels are missing in proportion to those that were annotated; or [L]
            numbers in [0, 1], each class's share of the images: p_i is the share times N, and
            p_i - n_i unknown labels of the class are taken.

    Returns:
        [N, L] bool, True only where the label is unknown.

    Raises:
        ValueError: for an unknown budget or shapes that differ.

    Examples:
        >>> labels = np.array([[1, -1], [-1, -1], [-1, 1], [-1, -1]])
        >>> scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.9], [0.1, 0.3]])
        >>> expected_positives(scores, labels, 1.0).astype(int).tolist()  # p_i = 2 of each class
        [[0, 0], [1, 0], [0, 0], [0, 1]]
        >>> expected_positives(scores, labels, 1.0, [0.75, 0.25]).astype(int).tolist()  # 3 and 1
        [[0, 0], [1, 0], [1, 0], [0, 0]]
    """
    check_budget("budget", budget, labels.shape[1])
    if scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must have one shape")
    rule = budget if isinstance(budget, str) else "shares"
    if rule == "global":
        return _highest_of_all(scores, labels, positives_per_image)
    if rule == "shares":
        counts = np.asarray(budget, np.float64) * len(labels)
    else:
        counts = class_budgets(labels, positives_per_image)
    selected = np.zeros(labels.shape, dtype=bool)
    # ImageNet's arrays take gigabytes: nothing of their size is made on the way, and columns are
    # copied together, since to read one takes as long as to read the whole lines of its entries.
    for first in range(0, labels.shape[1], _COLUMNS):
        block = slice(first, first + _COLUMNS)
        own, own_scores = (np.ascontiguousarray(x[:, block].T) for x in (labels, scores))
        for column, (label, score) in enumerate(zip(own, own_scores, strict=True), first):
            rows = _highest(score, label, counts[column], among_annotated=rule == "all")
            selected[rows, column] = True
    return selected


def _highest(
    scores: NDArray[np.floating], labels: NDArray[np.int8], count: float, among_annotated: bool
) -> NDArray[np.intp]:
    """Images of a class's expected positives; scores and labels [N] of the class."""
    positive, unknown = labels == POSITIVE, (labels == UNKNOWN) | (labels == EXPECTED)
    if not among_annotated:
        count -= positive.sum()
    candidates = np.flatnonzero(unknown | positive if among_annotated else unknown)
    order = np.argsort(-scores[candidates].astype(np.float32), kind="stable")
    chosen = candidates[order[: int(max(np.rint(count), 0))]]
    expected: NDArray[np.intp] = chosen[unknown[chosen]]
    return expected


def _highest_of_all(
    scores: NDArray[np.floating], labels: NDArray[np.int8], positives_per_image: float
) -> NDArray[np.bool_]:
    """The budget "global"."""
    unknown = (labels == UNKNOWN) | (labels == EXPECTED)
    missing = positives_per_image * len(labels) - np.sum(labels == POSITIVE)
    count = int(np.clip(np.rint(missing), 0, unknown.sum()))
    # Image by image, so that ties go to the first image.
    order = np.argsort(-np.where(unknown, scores, -np.inf), axis=None, kind="stable")
    selected = np.zeros(labels.size, dtype=bool)
    selected[order[:count]] = True
    return selected.reshape(labels.shape)
