"""Labels a data set is probably missing, or has wrong. NumPy in, NumPy out.

Labels are int8 [N, L] (images by classes): 1 is a positive, 0 a negative, -1 unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spml_tf.labels import POSITIVE, UNKNOWN

# A heatmap's box is drawn around what reaches this part of the peak's value.
_PART_OF_PEAK = 0.5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A label to look at.

    Attributes:
        image: row of the image.
        label: column of the class.
        score: of the class for the image, in [0, 1].
        epochs_selected: for how many epochs it was an expected positive, None where not counted.
    """

    image: int
    label: int
    score: float
    epochs_selected: int | None


def rank_missing(
    scores: NDArray[np.floating],
    observed: NDArray[np.int8],
    epochs_selected: NDArray[np.integer] | None = None,
    limit: int | None = None,
) -> list[Candidate]:
    """Unknown labels, the one that is most probably positive first.

    All classes are ranked together by score. Of equal scores the one that was selected for more
    epochs comes first, then the earlier image.

    Args:
        scores: float [N, L] in [0, 1], running averages or of any classifier; NaN leaves a label
            out.
        observed: int8 [N, L] in {1, 0, -1}, the labels trained on.
        epochs_selected: integers [N, L], or None.
        limit: at most so many.

    Returns:
        The candidates.
    """
    return _ranked(-scores, scores, observed == UNKNOWN, epochs_selected, limit)


def rank_wrong(
    scores: NDArray[np.floating], observed: NDArray[np.int8], limit: int | None = None
) -> list[Candidate]:
    """Annotated positives, the one of lowest score first. Arguments as for `rank_missing`."""
    return _ranked(scores, scores, observed == POSITIVE, None, limit)


def _ranked(
    order: NDArray[np.floating],
    scores: NDArray[np.floating],
    among: NDArray[np.bool_],
    epochs_selected: NDArray[np.integer] | None,
    limit: int | None,
) -> list[Candidate]:
    images, labels = np.nonzero(among & ~np.isnan(scores))
    cells = images, labels
    times = None if epochs_selected is None else epochs_selected[cells].astype(np.int64)
    keys = (order[cells],) if times is None else (-times, order[cells])
    return [
        Candidate(
            int(images[i]),
            int(labels[i]),
            float(scores[images[i], labels[i]]),
            None if times is None else int(times[i]),
        )
        for i in np.lexsort(keys)[:limit]
    ]


def precision_at(
    candidates: Sequence[Candidate], truth: NDArray[np.int8], cutoffs: Sequence[int]
) -> dict[int, float]:
    """Shares of missing labels among the first candidates.

    Args:
        candidates: of `rank_missing`.
        truth: int8 [N, L], the full labels.
        cutoffs: how many candidates count; cutoffs beyond their number are left out.

    Returns:
        By cutoff, the share of positives among the first candidates, in percent.
    """
    right = np.array([truth[x.image, x.label] == POSITIVE for x in candidates], np.float64)
    return {k: 100.0 * float(right[:k].mean()) for k in cutoffs if 0 < k <= len(right)}


def peak_region(heatmap: NDArray[np.floating]) -> tuple[tuple[float, float], tuple[float, ...]]:
    """Where a heatmap is highest, and the box around what belongs to that peak.

    Args:
        heatmap: float [H, W] in [0, 1], sigmoid(F) of a class.

    Returns:
        peak: (y, x) in [0, 1] of the whole image, the centre of the highest cell, of several the
            first in reading order.
        box: (y1, x1, y2, x2) in [0, 1], around the cells of at least half the peak's value that
            are connected with the peak over sides or corners.
    """
    height, width = heatmap.shape
    y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
    high = heatmap >= _PART_OF_PEAK * heatmap[y, x]
    parts, _ = ndimage.label(high, structure=np.ones((3, 3), bool))
    rows, columns = ndimage.find_objects(parts)[parts[y, x] - 1]
    peak = float((y + 0.5) / height), float((x + 0.5) / width)
    box = rows.start / height, columns.start / width, rows.stop / height, columns.stop / width
    return peak, tuple(map(float, box))
