"""How many images are expected to hold a class: eq. 3 and other budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spml_tf.labels import POSITIVE, UNKNOWN, class_shares, positives_per_image
from spml_tf.training.options import Budget

# What was measured to help: three times as many on street photos with 3.3 labels.
_MOST_MULTIPLE = 3.0
# Images with the shares of eq. 3 that are added to the validation images.
_MORE = 20


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
    return _budgets((labels == POSITIVE).sum(axis=0), len(labels), positives_per_image)


def expected_shares(observed: NDArray[np.int8], val_labels: NDArray[np.int8]) -> list[float]:
    """Shares of the training images that hold each class, by the validation images (ours).

    They are counted on the fully labelled validation images and 20 more that hold each class as
    often as eq. 3 expects, so that few images do not say that a class is nowhere.

    Args:
        observed: [N, L] int8 in {1, 0, -1}, the labels trained on.
        val_labels: [M, L] int8 in {1, 0, -1}; rows with an unknown label are left out.

    Returns:
        L numbers in [0, 1].

    Raises:
        ValueError: no validation row is fully labelled.

    Examples:
        >>> observed = np.array([[1, -1], [-1, 1]], np.int8)
        >>> expected_shares(observed, np.array([[1, 0]], np.int8))  # 11 and 10 of 1 + 20 images
        [0.5238095238095238, 0.47619047619047616]
    """
    by_eq_3 = class_budgets(observed, positives_per_image(val_labels))
    images = int((val_labels != UNKNOWN).all(axis=1).sum())
    counted = images * class_shares(val_labels)
    shares = counted + _MORE * np.minimum(by_eq_3 / len(observed), 1)
    return list((shares / (images + _MORE)).tolist())


def _budgets(
    annotated: NDArray[np.int64], num_images: int, positives_per_image: float
) -> NDArray[np.float64]:
    """`class_budgets` from the annotated positives of each class, [L]."""
    whole = positives_per_image * num_images * annotated.astype(np.float64)
    return whole / max(float(annotated.sum()), 1.0)


def wanted_labels(
    annotated: NDArray[np.int64],
    num_images: int,
    positives_per_image: float,
    budget: Budget = "all",
    multiple: float | str = 1.0,
) -> NDArray[np.float64]:
    """How many labels a selection takes of each class.

    Args:
        annotated: [L] int64, n_i, the annotated positives of each class.
        num_images: N.
        positives_per_image: K of eq. 3.
        budget: as for `selection.expected_positives`.
        multiple: factor of the number of missing labels, p_i - n_i; "auto" (ours): how many labels
            are missing for each annotated positive, from 1 to 3. Where few are annotated, scores
            tell little of which are missing, and leaving out a negative costs little.

    Returns:
        [L] float64, or [1] where the labels of all classes are ranked together; not rounded, may be
        below 0. With the budget "all" annotated positives are among the labels that are counted.

    Examples:
        >>> n = np.array([4, 2])
        >>> wanted_labels(n, 6, 2.0).tolist()  # p_i = 2 * 6 * 2/3 and 1/3
        [8.0, 4.0]
        >>> wanted_labels(n, 6, 2.0, "unannotated", multiple=1.5).tolist()  # 1.5 (8 - 4), (4 - 2)
        [6.0, 3.0]
        >>> wanted_labels(n, 6, 2.0, "unannotated", multiple="auto").tolist()  # (8 + 4 - 6) / 6 = 1
        [4.0, 2.0]
        >>> wanted_labels(n, 6, 2.5, "unannotated", multiple="auto").tolist()  # 9 / 6 (10 - 4)
        [9.0, 4.5]
    """
    if not isinstance(budget, str):
        whole, given = np.asarray(budget, np.float64) * num_images, annotated
    elif budget == "global":
        given = annotated.sum(keepdims=True)
        whole = np.array([positives_per_image * num_images])
    else:
        whole, given = _budgets(annotated, num_images, positives_per_image), annotated
    missing = whole - given
    if isinstance(multiple, str):
        each = np.maximum(missing, 0).sum() / max(annotated.sum(), 1)
        multiple = float(np.clip(each, 1, _MOST_MULTIPLE))
    if not isinstance(budget, str) or budget != "all":
        return multiple * missing
    return whole if multiple == 1 else given + multiple * missing
