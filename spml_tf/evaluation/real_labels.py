"""What ImageNet's ReaL labels say about a classifier (Beyer et al., 2020). NumPy in, NumPy out.

The measures of Table 3 of Verelst et al. (WACV 2023).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.evaluation.average_precision import average_precision, mean_of_classes
from spml_tf.labels import POSITIVE

# Images by their number of labels: (name, lowest, highest).
_GROUPS = (("all", 1, None), ("1", 1, 1), ("2", 2, 2), ("3", 3, 3), (">=4", 4, None))


def top1(labels: ArrayLike, scores: ArrayLike) -> float:
    """Share of images whose class of highest score is one of their labels.

    Args:
        labels: [N, L]; 1 is a label of the image. Images without one are left out.
        scores: [N, L] float; of equal scores the first class counts.

    Returns:
        float in [0, 1], NaN where no image has a label.
    """
    positive, scores = np.asarray(labels) == POSITIVE, np.asarray(scores)
    kept = positive.any(axis=1)
    if not kept.any():
        return float("nan")
    chosen = scores.argmax(axis=1)
    return float(positive[np.arange(len(chosen)), chosen][kept].mean())


def average_precision_by_count(
    labels: ArrayLike, scores: ArrayLike
) -> dict[str, NDArray[np.float64]]:
    """Average precision over all images and over those with k labels.

    Args:
        labels: [N, L]; 1 is a label of the image. Images without one are left out.
        scores: [N, L] float.

    Returns:
        {"all", "1", "2", "3", ">=4"}: float64 [L] in [0, 1], NaN for a class without positives
        among these images.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    return {
        name: average_precision(labels[rows], scores[rows])
        for name, rows in images_by_count(labels).items()
    }


def images_by_count(labels: ArrayLike) -> dict[str, NDArray[np.int64]]:
    """The images with k labels: positions under "all" (at least one), "1", "2", "3", ">=4"."""
    counts = (np.asarray(labels) == POSITIVE).sum(axis=1)
    return {
        name: np.flatnonzero((counts >= low) & (counts <= (high or counts.max(initial=0))))
        for name, low, high in _GROUPS
    }


def softmax(logits: ArrayLike) -> NDArray[np.floating]:
    """Probabilities of classes that exclude one another.

    Args:
        logits: [N, L] float.

    Returns:
        [N, L] in [0, 1], rows sum to 1, in the logits' type.
    """
    logits = np.asarray(logits)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.floating] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def real_report(
    labels: ArrayLike, scores: ArrayLike, absent_classes: str = "skip"
) -> dict[str, Any]:
    """The ReaL numbers of Table 3.

    Args:
        labels: [N, L] ReaL labels; images without one are left out.
        scores: [N, L] float: what the network gives each class, in any increasing scale.
        absent_classes: what a class without positives counts in a mean; "skip": it is left out,
            "zero": 0. Of 1,000 classes 953, 653 and 434 occur at 2, 3 and more labels, so that the
            rule matters there.

    Returns:
        {"images", "top1", "map", "classes"}: the number of images with k labels, top-1 accuracy in
        percent, mean average precision in percent and the number of classes that have positives;
        all but top1 by "all", "1", "2", "3" and ">=4". None stands for a mean over nothing.
    """
    precisions = average_precision_by_count(labels, scores)
    sizes = {name: len(rows) for name, rows in images_by_count(labels).items()}
    return {
        "images": sizes,
        "top1": percent(top1(labels, scores)),
        "map": {
            name: percent(mean_of_classes(values, absent_classes)) if sizes[name] else None
            for name, values in precisions.items()
        },
        "classes": {name: int((~np.isnan(x)).sum()) for name, x in precisions.items()},
    }


def percent(share: float) -> float | None:
    """A share as percent, None for NaN, which JSON does not know."""
    return None if np.isnan(share) else float(100 * share)


def rows_of(names: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[np.int64]:
    """Positions in `names`, N unique image names, of each of `wanted`, all among them."""
    places: dict[str, Any] = {name: place for place, name in enumerate(names)}
    return np.array([places[name] for name in wanted], np.int64)
