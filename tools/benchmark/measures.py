"""Rows of the measures: exact average precision and the expected positives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.benchmark.turns import Contestant, Row, Setup, Turn

# What a measure is of: labels and scores [N, L].
_Measure = Callable[[NDArray[np.int8], NDArray[np.float32]], Any]


def _random(images: int, classes: int, unknown: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels with 2.9 positives an image, and scores that know something of them."""
    rng = np.random.default_rng(0)
    positive = rng.random((images, classes), np.float32) < 2.9 / classes
    scores = 1 / (1 + np.exp(3 - 2 * positive - rng.standard_normal((images, classes), np.float32)))
    labels = positive.astype(np.int8)
    if unknown:
        labels[(rng.random(labels.shape) < 0.65) | (labels == 0)] = -1
    return labels, scores.astype(np.float32)


def _loop_of_scikit_learn(labels: NDArray[np.int8], scores: NDArray[np.float32]) -> float:
    from sklearn.metrics import average_precision_score

    columns = range(labels.shape[1])
    return float(np.mean([average_precision_score(labels[:, x], scores[:, x]) for x in columns]))


def _ours(labels: NDArray[np.int8], scores: NDArray[np.float32]) -> float:
    from spml_tf.evaluation.average_precision import average_precision

    return float(np.mean(average_precision(labels, scores)))


def _select(labels: NDArray[np.int8], scores: NDArray[np.float32]) -> int:
    from spml_tf.training.selection import expected_positives

    return int(expected_positives(scores, labels, 2.9).sum())


def _loop_of_argsort(labels: NDArray[np.int8], scores: NDArray[np.float32]) -> int:
    """Eq. 3 class by class, every class sorted whole: the plain way in NumPy."""
    annotated = (labels == 1).sum(axis=0)
    counts = np.rint(annotated / annotated.sum() * 2.9 * len(labels)).astype(int)
    chosen = np.zeros(labels.shape, bool)
    for column, count in enumerate(counts):
        chosen[np.argsort(-scores[:, column], kind="stable")[:count], column] = True
    return int((chosen & (labels == -1)).sum())


def _contestant(measure: _Measure, images: int, classes: int, unknown: bool = False) -> Contestant:
    def start(setup: Setup) -> Turn:
        labels, scores = _random(images, classes, unknown)

        def turn() -> float:
            measure(labels, scores)
            return 1

        return turn

    return Contestant(start, warm=images * classes < 10_000_000)


def rows() -> Mapping[str, Row]:
    """By key."""
    loop = "a loop over scikit-learn"
    found = {}
    for key, images, classes, wanted, rounds in (
        ("precision_coco", 40_137, 80, 5.0, 5), ("precision_imagenet", 46_837, 1_000, 5.0, 2),
    ):  # fmt: skip
        ways = {
            "spml_tf": _contestant(_ours, images, classes),
            loop: _contestant(_loop_of_scikit_learn, images, classes),
        }
        title = f"Exact average precision, {images:,} images, {classes:,} classes"
        found[key] = Row(title, "", ways, rounds, 1, (wanted, loop))
    sort = "a loop over numpy.argsort"
    ways = {
        "spml_tf": _contestant(_select, 65_665, 80, unknown=True),
        sort: _contestant(_loop_of_argsort, 65_665, 80, unknown=True),
    }
    title = "Expected positives, 65,665 images, 80 classes"
    found["selection"] = Row(title, "", ways, 7, 3, (1.0, sort))
    return found
