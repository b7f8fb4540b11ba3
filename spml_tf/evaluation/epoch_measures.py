"""What is measured of the training labels after an epoch: the selection, the average scores."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks.ema_bank import EMABank
from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE, UNKNOWN

# Labels whose scores an epoch's histograms count; of more, those of evenly spaced images.
_COUNTED = 500_000
_KINDS = {
    "annotated_positives": POSITIVE, "annotated_negatives": NEGATIVE,
    "expected_positives": EXPECTED, "other_unknown": UNKNOWN,
}  # fmt: skip


def selection_counts(
    marked: NDArray[np.int8], truth: NDArray[np.int8], observed: NDArray[np.int8]
) -> NDArray[np.int64]:
    """What `selection_quality` needs to know of some images; counts of several may be added.

    Args:
        marked: int8 [N, L] in {1, 0, -1, 2}, the training labels with their marks.
        truth: int8 [N, L] in {1, 0, -1}.
        observed: int8 [N, L] in {1, 0, -1}, the training labels.

    Returns:
        [4]: labels that are marked, that are known to be missing, marked ones whose truth is known,
        and marked ones that are missing.

    Examples:
        >>> observed = np.array([[1, -1, -1, -1]], np.int8)
        >>> selection_counts(np.array([[1, 2, 2, 2]]), np.array([[1, 1, 0, -1]]), observed)
        array([3, 1, 2, 1])
    """
    chosen = marked == EXPECTED
    missing = (truth == POSITIVE) & (observed == UNKNOWN)
    found = (chosen, missing, chosen & (truth != UNKNOWN), chosen & missing)
    return np.array([x.sum() for x in found], np.int64)


def selection_quality(counts: NDArray[np.int64]) -> dict[str, float]:
    """Share of the expected positives that are right, and of the missing ones found.

    Only labels whose truth is known count for either. Where none is known to be missing, neither
    says anything, and both are left out.

    Args:
        counts: of all images, see `selection_counts`.
    """
    selected, absent, known, right = map(int, counts)
    if not known or not absent:
        return {"selected": selected} if selected else {}
    return {
        "selected": selected,
        "selection_precision": right / known,
        "selection_recall": right / absent,
    }


def scores_by_kind(bank: EMABank, labels: NDArray[np.int8]) -> dict[str, NDArray[np.float32]]:
    """The average scores s of eq. 4 by what is known of their labels.

    Args:
        bank: the score bank of N images and L classes, of several workers one's own.
        labels: [N, L] int8 in {1, 0, -1, 2}.

    Returns:
        float32 [n] in [0, 1] of each kind of label that occurs, of images that were visited. Where
        there are more than 500,000 labels only those of evenly spaced images are taken.
    """
    count, classes = labels.shape
    index = tf.range(0, count, -(-count * classes // _COUNTED), dtype=tf.int64)
    scores, visited = (x.numpy() for x in bank.read(index))
    codes = labels[index.numpy()]
    chosen = {kind: (codes == code) & visited[:, None] for kind, code in _KINDS.items()}
    return {kind: scores[mask] for kind, mask in chosen.items() if mask.any()}
