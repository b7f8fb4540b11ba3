"""Calibrated probabilities: sigmoid(slope * logit + offset), fitted on validation labels.

Slopes are positive, so that the order of a class's scores, and with it average precision, stays.
NumPy in, NumPy out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from spml_tf.evaluation.measures import reliability
from spml_tf.evaluation.rules import CALIBRATIONS
from spml_tf.evaluation.thresholds import FEW
from spml_tf.labels import POSITIVE, UNKNOWN, counted_labels, unknown_as_negative

# The lowest slope: float32 still tells the scores of a class apart.
LEAST_SLOPE = 0.01
# The largest logit that a float32 score can stand for: above, the score is 1.
_LARGEST_SCORE = 1 - 2.0**-25


class Calibration(NamedTuple):
    """What was fitted.

    Attributes:
        rule: "none", "temperature" or "platt".
        slopes: [L] float64, at least 0.01; of temperature scaling 1 / T.
        offsets: [L] float64; 0 of temperature scaling.
        shared: [L] bool, where slope and offset are those of all classes together.
    """

    rule: str
    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    shared: NDArray[np.bool_]

    def __call__(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities.

        Args:
            scores: [N, L] float in [0, 1].

        Returns:
            [N, L] float64 in [0, 1]; the scores themselves for the rule "none".
        """
        scores = np.asarray(scores, np.float64)
        if self.rule == "none":
            return scores
        logits = _logits(scores, float(np.finfo(np.float32).tiny))
        found: NDArray[np.float64] = expit(self.slopes * logits + self.offsets)
        return found


def logits(scores: ArrayLike) -> NDArray[np.float64]:
    """log(f / (1 - f)), within the 17.3 that float32 scores below 1 reach.

    Args:
        scores: any shape, float in [0, 1].

    Examples:
        >>> logits([0.5, 0.9, 1.0]).round(2).tolist()
        [0.0, 2.2, 17.33]
    """
    return _logits(scores, 1 - _LARGEST_SCORE)


def _logits(scores: ArrayLike, smallest: float) -> NDArray[np.float64]:
    clipped = np.clip(np.asarray(scores, np.float64), smallest, _LARGEST_SCORE)
    return np.log(clipped) - np.log1p(-clipped)


def uncalibrated(num_classes: int) -> Calibration:
    """The calibration that leaves scores as they are.

    Examples:
        >>> uncalibrated(2)([[0.25, 0.75]]).tolist()
        [[0.25, 0.75]]
    """
    ones, none = np.ones(num_classes), np.zeros(num_classes, bool)
    return Calibration("none", ones, np.zeros(num_classes), none)


def fit(
    labels: ArrayLike,
    scores: ArrayLike,
    rule: str,
    unknown_counts_as: str = "nothing",
    shared: NDArray[np.bool_] | None = None,
) -> Calibration:
    """Fits slopes and offsets by maximum likelihood.

    "temperature" fits a slope (Guo et al., ICML 2017), "platt" a slope and an offset (Platt, 1999).
    The targets are Platt's, (P + 1) / (P + 2) for each of P positives and 1 / (M + 2) for each of M
    negatives, which keeps slopes of classes without an error finite. A class with fewer than 10
    positives, of which these say little, takes what is fitted to the labels of all classes
    together. Labels that are known count, or all as negatives.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float in [0, 1].
        rule: one of `rules.CALIBRATIONS`.
        unknown_counts_as: "nothing" or "negative".
        shared: [L], the classes that are fitted together; None: those with fewer than 10 positives.

    Raises:
        ValueError: for another rule.

    Examples:
        All labels have the score 1/2, a quarter of 20 are positive: (5 * 6/7 + 15 / 17) / 20.

        >>> found = fit([[1]] * 5 + [[0]] * 15, [[0.5]] * 20, "platt")
        >>> found([[0.5]]).round(4).tolist(), found.shared.tolist()
        ([[0.2584]], [True])
    """
    if rule not in CALIBRATIONS:
        raise ValueError(
            f"calibration must be one of {', '.join(CALIBRATIONS)}. Received: {rule!r}"
        )
    labels, scores = np.asarray(labels), np.asarray(scores)
    found = uncalibrated(labels.shape[1])
    if rule == "none":
        return found
    positive, counted = labels == POSITIVE, _counted(labels, unknown_counts_as)
    shared = (positive & counted).sum(axis=0) < FEW if shared is None else shared
    inputs, offset = logits(scores), rule == "platt"
    pairs = np.zeros((labels.shape[1], 2))
    if shared.any():
        pairs[:] = _fitted(positive[counted], inputs[counted], offset)
    for column in np.flatnonzero(~shared):
        kept = counted[:, column]
        pairs[column] = _fitted(positive[kept, column], inputs[kept, column], offset)
    return Calibration(rule, pairs[:, 0], pairs[:, 1], shared)


def _fitted(
    positive: NDArray[np.bool_], inputs: NDArray[np.float64], offset: bool
) -> tuple[float, float]:
    """Slope and offset of labels and logits [n]; the offset is 0 where none is wanted."""
    # Importing it takes a fifth of a second, which most exports can do without.
    from scipy.optimize import minimize

    hits = int(positive.sum())
    target = np.where(positive, (hits + 1) / (hits + 2), 1 / (len(positive) - hits + 2))

    def loss(pair: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = pair[0] * inputs + pair[1]
        slope = expit(found) - target
        value = (np.logaddexp(0, found) - target * found).mean()
        return value, np.array([(slope * inputs).mean(), slope.mean()])

    ends = [(LEAST_SLOPE, None), (None, None) if offset else (0.0, 0.0)]
    options = {"ftol": 1e-12, "gtol": 1e-8}
    pair = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=ends, options=options).x
    return float(pair[0]), float(pair[1])


def cross_validated(
    labels: ArrayLike,
    scores: ArrayLike,
    rule: str,
    unknown_counts_as: str = "nothing",
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Scores of each image, calibrated by what was fitted to the images of the other folds.

    Which classes are fitted together is decided on all images.

    Args:
        labels: as for `fit`.
        scores: as for `fit`.
        rule: as for `fit`.
        unknown_counts_as: as for `fit`.
        folds: how many parts the images are divided into, at most N.
        seed: of the division.

    Returns:
        [N, L] float64 in [0, 1].

    Raises:
        ValueError: for another rule, or fewer than two images.

    Examples:
        Two folds of an image each: a negative says 1 / 3, a positive 2 / 3 of the other.

        >>> cross_validated([[1], [0]], [[0.5], [0.5]], "platt").round(4).tolist()
        [[0.3333], [0.6667]]
    """
    from sklearn.model_selection import KFold

    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    shared = fit(labels, scores, rule, unknown_counts_as).shared
    known = as_counted(labels, unknown_counts_as)
    found = np.empty_like(scores)
    for kept, held in KFold(min(folds, len(labels)), shuffle=True, random_state=seed).split(scores):
        found[held] = fit(known[kept], scores[kept], rule, shared=shared)(scores[held])
    return found


def calibration_error(
    labels: ArrayLike, scores: ArrayLike, unknown_counts_as: str = "nothing"
) -> float | None:
    """The expected calibration error over all labels that count, see `measures.reliability`.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float in [0, 1].
        unknown_counts_as: as for `fit`.

    Returns:
        In [0, 1]; None where the labels cannot tell, see `tells_negatives`.

    Examples:
        >>> calibration_error([[1], [0]], [[0.75], [0.75]])  # |0.75 - 0.5|
        0.25
        >>> calibration_error([[1], [-1]], [[0.75], [0.75]])
    """
    if not tells_negatives(labels, unknown_counts_as):
        return None
    return reliability(as_counted(labels, unknown_counts_as), scores).error


def as_counted(labels: ArrayLike, unknown_counts_as: str = "nothing") -> NDArray[np.int8]:
    """Labels as calibration counts them: [N, L] of {1, 0}, and -1 where one does not count.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        unknown_counts_as: as for `fit`.

    Examples:
        >>> as_counted([[1, -1], [0, 0]]).tolist(), as_counted([[1, -1]], "negative").tolist()
        ([[1, -1], [0, 0]], [[1, 0]])
    """
    labels = np.asarray(labels)
    counted = _counted(labels, unknown_counts_as)
    return np.where(counted, labels == POSITIVE, UNKNOWN).astype(np.int8)


def tells_negatives(labels: ArrayLike, unknown_counts_as: str = "nothing") -> bool:
    """Whether each class with positives has known negatives, or unknown labels are said to be such.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        unknown_counts_as: as for `fit`.

    Examples:
        >>> tells_negatives([[1], [0], [-1]]), tells_negatives([[1], [-1]])
        (True, False)
        >>> tells_negatives([[1, 0], [0, -1]]), tells_negatives([[1], [-1]], "negative")
        (True, True)
    """
    if not _counted(labels, unknown_counts_as).any():
        return False
    return unknown_counts_as == "negative" or not unknown_as_negative(labels).any()


def _counted(labels: ArrayLike, unknown_counts_as: str) -> NDArray[np.bool_]:
    """Which labels are fitted: the known ones, or all."""
    known = (np.asarray(labels) != UNKNOWN) | (unknown_counts_as == "negative")
    found: NDArray[np.bool_] = known & counted_labels(labels, unknown_counts_as)
    return found
