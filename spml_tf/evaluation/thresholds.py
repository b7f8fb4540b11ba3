"""Decision thresholds per class, chosen on validation scores by a stated rule."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.labels import POSITIVE, counted_labels

DEFAULT = 0.5
# A class with fewer positives decides by the threshold of all classes together.
FEW = 10
# A product that is whole must not become the next number: 0.55 * 100 is above 55.
_ROUNDING = 1e-9
# What no score reaches, in float32 too: the decision is never made.
NEVER = float(np.nextafter(np.float32(1), np.float32(2)))
RULES = "f1, count, precision:P, recall:R, or a threshold from 0 to 1"


class ThresholdRule(NamedTuple):
    """How thresholds are chosen.

    Attributes:
        kind: "f1", "count", "precision", "recall" or "fixed".
        value: the precision or recall wanted, or the threshold.
    """

    kind: str
    value: float = 0.0


class Thresholds(NamedTuple):
    """What was chosen.

    Attributes:
        values: [L] float64; score >= threshold decides for the class.
        shared: [L] bool, where the threshold is that of all classes together.
    """

    values: NDArray[np.float64]
    shared: NDArray[np.bool_]


def parse_rule(text: str) -> ThresholdRule:
    """The rule that a text names: f1, count, precision:0.9, recall:0.9 or 0.5.

    Raises:
        ValueError: for another text.

    Examples:
        >>> parse_rule("precision:0.9")
        ThresholdRule(kind='precision', value=0.9)
    """
    kind, colon, number = text.partition(":")
    if text in ("f1", "count"):
        return ThresholdRule(text)
    with contextlib.suppress(ValueError):
        if kind in ("precision", "recall") and colon and 0 < float(number) <= 1:
            return ThresholdRule(kind, float(number))
        if 0 <= float(text) <= 1:
            return ThresholdRule("fixed", float(text))
    raise ValueError(f"must be {RULES}. Received: {text!r}")


def choose(
    labels: ArrayLike,
    scores: ArrayLike,
    rule: ThresholdRule,
    positives_per_image: float | None = None,
    unknown_counts_as: str = "nothing",
) -> Thresholds:
    """Thresholds by a rule, from validation labels.

    "f1": of highest F1. "precision": the lowest at which so many of the decisions are right; above
    all scores where there is none. "recall": the highest that finds so many of the positives. A
    class with fewer than 10 positives, of which these say little, takes the threshold that the rule
    gives for the labels of all classes together. "count": one threshold, at which there are K
    decisions an image in the mean. "fixed": the value itself.

    A score of at least the threshold decides for the class. Between two neighbouring scores any
    threshold decides alike: the middle is taken, which leaves the largest margin for rounding.
    Below the lowest score, the middle between it and 0. Of several of equal F1 the highest is
    taken; without positives 0.5.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float in [0, 1].
        rule: of `parse_rule`.
        positives_per_image: K, for "count".
        unknown_counts_as: "nothing" or "negative", see `labels.counted_labels`.

    Raises:
        ValueError: "count" without K.

    Examples:
        >>> labels, scores = [[1, 0], [0, 0], [0, 1]], [[0.9, 0.1], [0.5, 0.3], [0.3, 0.4]]
        >>> choose(labels, scores, ThresholdRule("count"), 1.0).values.tolist()  # three decisions
        [0.35, 0.35]
    """
    positive, scores = np.asarray(labels) == POSITIVE, np.asarray(scores, np.float64)
    classes = positive.shape[1]
    if rule.kind == "fixed":
        return Thresholds(np.full(classes, rule.value), np.ones(classes, bool))
    if rule.kind == "count":
        if positives_per_image is None:
            raise ValueError("the rule count needs positives_per_image")
        ranked = -np.sort(-scores, axis=None)
        wanted = min(round(positives_per_image * len(scores)), ranked.size)
        return Thresholds(np.full(classes, _below(ranked, wanted)), np.ones(classes, bool))
    counted = counted_labels(labels, unknown_counts_as)
    shared = (positive & counted).sum(axis=0) < FEW
    values = np.full(classes, _by(rule, positive[counted], scores[counted]))
    for column in np.flatnonzero(~shared):
        kept = counted[:, column]
        values[column] = _by(rule, positive[kept, column], scores[kept, column])
    return Thresholds(values, shared)


def _by(rule: ThresholdRule, positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """The threshold of one class, or of all together: labels and scores [n]."""
    if rule.kind == "f1" or not positive.any():
        return _best(positive, scores)
    ranked, ends, hits = _ranking(positive, scores)
    if rule.kind == "recall":
        enough = np.flatnonzero(hits >= rule.value * positive.sum() - _ROUNDING)
        return _below(ranked, int(ends[enough[0]]) + 1)
    enough = np.flatnonzero(hits >= rule.value * (ends + 1) - _ROUNDING)
    return _below(ranked, int(ends[enough[-1]]) + 1 if len(enough) else 0)


def _ranking(
    positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Scores from the highest, the last place of each value, and the positives up to there."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)).astype(np.int64)
    hits: NDArray[np.int64] = np.cumsum(positive[order], dtype=np.int64)[ends]
    return ranked, ends, hits


def _below(ranked: NDArray[np.float64], count: int) -> float:
    """The middle between the last of so many highest scores and the one after it."""
    above = ranked[count - 1] if count else 1.0
    below = ranked[count] if count < len(ranked) else 0.0
    if not count and below == 1:
        return NEVER
    return float((above + below) / 2)


def _best(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    if not positive.any():
        return DEFAULT
    ranked, ends, hits = _ranking(positive, scores)
    f1 = 2 * hits / (ends + 1 + positive.sum())
    return _below(ranked, int(ends[int(np.argmax(f1))]) + 1)
