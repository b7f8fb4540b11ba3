"""Label matrices: their encoding, and what is counted in them.

A label matrix is int8 of shape [N, L] (images by classes): 1 is a positive, 0 a negative and -1 an
unknown label. Other projects write these three states differently (0 for unknown, -1 for negative);
nothing here guesses, other values are refused. This module needs NumPy only.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSITIVE = 1
NEGATIVE = 0
UNKNOWN = -1
# What users may give, and how messages call it.
GIVEN = (POSITIVE, NEGATIVE, UNKNOWN)
GIVEN_TEXT = "1 (positive), 0 (negative) or -1 (unknown)"
# Only inside the model, after selection: unknown, and expected to be positive.
EXPECTED = 2
# Only inside the model, of several devices: all labels of an image that stands in where a device
# has none of a batch. It counts for nothing.
STAND_IN = -2

# What unknown labels count as in measures, see `counted_labels`.
UNKNOWN_COUNTS_AS = ("nothing", "negative")


def validate_labels(labels: ArrayLike, name: str = "labels") -> NDArray[np.int8]:
    """Checks that a matrix is in this package's encoding.

    Args:
        labels: array of shape [N, L] holding 1, 0 and -1 only (any numeric or boolean type).
        name: what the message calls the matrix.

    Returns:
        The same labels as int8 [N, L].

    Raises:
        ValueError: another number of dimensions, or another value.

    Examples:
        >>> validate_labels([[1.0, 0.0, -1.0]])
        array([[ 1,  0, -1]], dtype=int8)
        >>> validate_labels([[1, 2]])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: labels: expected 1 (positive), 0 (negative) or -1 ... found 2 in row 0, column 1
    """
    array = np.asarray(labels)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected shape [images, classes], found {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected numbers, found the type {array.dtype}")
    if array.dtype.kind == "f" or (array.size and (array.min() < -1 or array.max() > 1)):
        # Only where integers are out of range: a million images by a thousand classes is big.
        known = np.isin(array, GIVEN)
    else:
        known = np.ones((1, 1), bool)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        raise ValueError(
            f"{name}: expected {GIVEN_TEXT}, "
            f"found {array[row, column]} in row {row}, column {column}"
        )
    return array.astype(np.int8, copy=False)


def positives_per_image(labels: ArrayLike) -> float:
    """Mean number of positives over the fully labelled rows: the K of equation 3.

    Args:
        labels: [N, L] of {1, 0, -1}; rows with an unknown label are left out.

    Returns:
        The mean, in [0, L].

    Raises:
        ValueError: invalid labels, or no row that is fully labelled.

    Examples:
        >>> positives_per_image([[1, 1, 0], [1, 0, 0], [1, -1, -1]])  # the last row is incomplete
        1.5
    """
    return float((_complete(labels) == POSITIVE).sum(axis=1).mean())


def harmonic_positives_per_image(labels: ArrayLike) -> float:
    """1 / mean(1 / number of positives) over the fully labelled rows that have any.

    Where the one positive that is annotated is drawn evenly from an image's positives, a class that
    n images hold is annotated in about n * mean(1 / number of positives) of them (MIME, Liu et al.,
    ICML 2023). At most the mean number of positives of these rows.

    Args:
        labels: [N, L] of {1, 0, -1}; rows with an unknown label or without a positive are left out.

    Returns:
        The number, in [1, L].

    Raises:
        ValueError: invalid labels, or no fully labelled row with a positive.

    Examples:
        >>> harmonic_positives_per_image([[1, 1, 0], [1, 0, 0], [0, 0, 0]])  # 1 / mean(1/2, 1)
        1.3333333333333333
    """
    positives = (_complete(labels) == POSITIVE).sum(axis=1)
    if not positives.any():
        raise ValueError("no image that is fully labelled has a positive")
    return float(1 / np.mean(1 / positives[positives > 0]))


def counted_labels(labels: ArrayLike, unknown_counts_as: str = "nothing") -> NDArray[np.bool_]:
    """Which labels a measure of a class looks at: the one rule for all measures.

    Where a class has known positives and known negatives, its unknown labels are left out. Where it
    has none of one kind there is nothing to rank its known labels against: they are all looked at,
    and an unknown label counts as a negative.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        unknown_counts_as: "nothing" for this rule, "negative" to look at all labels of all classes.

    Returns:
        [N, L] bool; all True where every label is known.

    Raises:
        ValueError: for another rule.

    Examples:
        >>> counted_labels([[1, 1], [0, -1], [-1, -1]]).tolist()  # of class 1 no negative is known
        [[True, True], [True, True], [False, True]]
    """
    if unknown_counts_as not in UNKNOWN_COUNTS_AS:
        known_rules = " or ".join(map(repr, UNKNOWN_COUNTS_AS))
        raise ValueError(f"unknown_counts_as must be {known_rules}, found {unknown_counts_as!r}")
    labels = np.asarray(labels)
    known = labels != UNKNOWN
    if unknown_counts_as == "negative" or known.all():
        return np.ones_like(known)
    positive = labels == POSITIVE
    counted: NDArray[np.bool_] = known | ~(positive.any(axis=0) & (known & ~positive).any(axis=0))
    return counted


def known_counts(labels: ArrayLike) -> list[dict[str, int]]:
    """How many labels of each class are known.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.

    Returns:
        L of {"positives", "negatives", "unknown"}.

    Examples:
        >>> known_counts([[1], [0], [-1], [-1]])
        [{'positives': 1, 'negatives': 1, 'unknown': 2}]
    """
    labels = np.asarray(labels)
    positives, unknown = ((labels == x).sum(axis=0).tolist() for x in (POSITIVE, UNKNOWN))
    return [
        {"positives": p, "negatives": len(labels) - p - u, "unknown": u}
        for p, u in zip(positives, unknown, strict=True)
    ]


def unknown_as_negative(labels: ArrayLike, unknown_counts_as: str = "nothing") -> NDArray[np.bool_]:
    """Classes with positives of which unknown labels count as negatives: their measures mislead.

    Args and raises: as for `counted_labels`.

    Returns:
        [L] bool.

    Examples:
        >>> unknown_as_negative([[1, 1], [0, -1], [-1, -1]]).tolist()
        [False, True]
    """
    labels = np.asarray(labels)
    unknown = (labels == UNKNOWN) & counted_labels(labels, unknown_counts_as)
    found: NDArray[np.bool_] = unknown.any(axis=0) & (labels == POSITIVE).any(axis=0)
    return found


def class_shares(labels: ArrayLike) -> NDArray[np.float64]:
    """Share of the fully labelled rows that hold each class, its prior.

    Args:
        labels: [N, L] of {1, 0, -1}; rows with an unknown label are left out.

    Returns:
        [L] float64 in [0, 1].

    Raises:
        ValueError: invalid labels, or no row that is fully labelled.

    Examples:
        >>> class_shares([[1, 1, 0], [1, 0, 0], [1, -1, -1]]).tolist()  # the last row is incomplete
        [1.0, 0.5, 0.0]
    """
    shares: NDArray[np.float64] = (_complete(labels) == POSITIVE).mean(axis=0)
    return shares


def _complete(labels: ArrayLike) -> NDArray[np.int8]:
    matrix = validate_labels(labels)
    complete: NDArray[np.int8] = matrix[(matrix != UNKNOWN).all(axis=1)]
    if not len(complete):
        raise ValueError("no image is fully labelled: how many positives there are is unknown")
    return complete


def from_cole(array: ArrayLike) -> NDArray[np.int8]:
    """Converts labels in the encoding of Cole et al. (CVPR 2021) to this package's.

    Args:
        array: [N, L] of {1 observed positive, 0 unknown, -1 observed negative}.

    Returns:
        int8 [N, L] of {1 positive, 0 negative, -1 unknown}.

    Raises:
        ValueError: as `validate_labels`.

    Examples:
        >>> from_cole([[1, 0, -1]]).tolist()
        [[1, -1, 0]]
    """
    labels = validate_labels(array)
    return np.where(labels == 1, POSITIVE, -1 - labels).astype(np.int8)


def digest(labels: ArrayLike) -> str:
    """SHA-256 in hexadecimal of a label matrix: of its int8 bytes, row by row.

    Examples:
        >>> digest([[1, 0, -1]])[:12]
        'b7ae7729555e'
    """
    return hashlib.sha256(np.ascontiguousarray(validate_labels(labels)).tobytes()).hexdigest()
