"""Exact (non-interpolated) average precision, and its mean as a streaming Keras metric."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from spml_tf.evaluation.rules import ABSENT_CLASSES
from spml_tf.evaluation.score_store import ScoreStore
from spml_tf.labels import POSITIVE, UNKNOWN, counted_labels
from spml_tf.system import replicas
from spml_tf.system.errors import DivergedError
from spml_tf.system.parallel import ordered_map
from spml_tf.system.replicas import Shard

# Scores of all workers together at a time, of as many classes as that are.
_SHARED = 2_000_000
# Scores that one thread ranks at a time, of as many classes as that are.
_BLOCK = 500_000


def average_precision(
    labels: ArrayLike, scores: ArrayLike, unknown_counts_as: str = "nothing"
) -> NDArray[np.float64]:
    """Average precision of every class: sum over thresholds of (R_k - R_(k-1)) P_k.

    Images of equal score share one threshold, as in scikit-learn's average_precision_score. Classes
    are ranked in as many threads as there are processors.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float or integers, higher means more likely positive.
        unknown_counts_as: "nothing": where a class has known positives and known negatives, its
            unknown labels are left out, elsewhere they are negatives; "negative": they are
            everywhere (see `labels.counted_labels`).

    Returns:
        [L] float64 in [0, 1], NaN for a class without positives.

    Raises:
        ValueError: for shapes that differ, or another rule.
        DivergedError: for scores that are not finite.

    Examples:
        >>> average_precision([[0], [1], [0]], [[0.9], [0.8], [0.1]]).tolist()
        [0.5]
        >>> average_precision([[-1], [1], [0]], [[0.9], [0.8], [0.1]]).tolist()
        [1.0]
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be one [N, L]")
    if not np.isfinite(scores).all():
        raise DivergedError("scores must be finite: the network has diverged")
    width = max(_BLOCK // max(len(labels), 1), 1)
    blocks = [np.s_[:, x : x + width] for x in range(0, labels.shape[1], width)]
    # Not a thread more than there are blocks: many calls are about one class.
    threads = max(min(os.cpu_count() or 1, len(blocks)), 1)

    def of(block: Any) -> NDArray[np.float64]:
        return _of_block(labels[block], scores[block], unknown_counts_as)

    found = map(of, blocks) if threads == 1 else ordered_map(of, blocks, threads)
    return np.concatenate([np.zeros(0), *found])


def _of_block(
    labels: NDArray[Any], scores: NDArray[Any], unknown_counts_as: str
) -> NDArray[np.float64]:
    """`average_precision` of a few classes."""
    known, columns = np.ascontiguousarray(labels.T), np.ascontiguousarray(scores.T)
    counted = counted_labels(known.T, unknown_counts_as).T
    return np.array([_of_class(*x) for x in zip(known == POSITIVE, columns, counted, strict=True)])


def _of_class(
    positive: NDArray[np.bool_], scores: NDArray[Any], counted: NDArray[np.bool_]
) -> float:
    """Of one class; to sort values and look the positives up is far faster than to sort places."""
    own = np.sort(scores[positive])
    if not len(own):
        return math.nan
    ranked = np.sort(scores if counted.all() else scores[counted])
    # How many images, and how many positives, score at least as high as each positive does.
    images = len(ranked) - np.searchsorted(ranked, own)
    hits = len(own) - np.searchsorted(own, own)
    # One after the other from the highest on, so that equal scores may stand in any order.
    return float(np.cumsum((hits / images)[::-1])[-1] / len(own))


def average_precision_of_workers(
    labels: ArrayLike,
    scores: ArrayLike,
    shard: Shard,
    total: Callable[[NDArray[Any]], NDArray[Any]],
    unknown_counts_as: str = "nothing",
) -> NDArray[np.float64]:
    """`average_precision` over the images of all workers, each of which holds only its own.

    A few classes at a time every worker gets the labels and scores of all; to be called by each.

    Args:
        labels: [n, L], those of this worker; n may be 0 and differ.
        scores: [n, L] float, of one type on all workers.
        shard: which of the workers this is.
        total: sums an array over the workers, which all call it equally often and in one order; of
            int64 and, for float16 and float32 scores, of float32, otherwise of the scores' type.
        unknown_counts_as: as for `average_precision`.

    Returns:
        [L] float64, the same for all workers: to the last bit what `average_precision` gives for
        the rows of all.

    Raises:
        ValueError: for shapes that differ or, on all workers, scores of one that are not finite.

    Examples:
        >>> labels, scores = [[0], [1], [0]], [[0.9], [0.8], [0.1]]
        >>> average_precision_of_workers(labels, scores, Shard(), lambda own: own).tolist()
        [0.5]
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be one [n, L]")
    counts = np.zeros(shard.workers, np.int64)
    counts[shard.worker] = len(labels)
    counts = total(counts)
    first, num_images = int(counts[: shard.worker].sum()), int(counts.sum())
    own = slice(first, first + len(labels))
    precisions = np.full(labels.shape[1], np.nan)
    width = max(_SHARED // max(num_images, 1), 1)
    for column in range(0, labels.shape[1], width):
        block = slice(column, column + width)
        # A number and zeros add up to the number. Labels travel with the scores, as 1, 0 or -1.
        shape = (2, num_images, labels[:, block].shape[1])
        both = np.zeros(shape, np.result_type(scores.dtype, np.float32))
        both[0, own] = labels[:, block] == POSITIVE
        both[0, own] -= labels[:, block] == UNKNOWN
        both[1, own] = scores[:, block]
        codes, whole = total(both)
        precisions[block] = average_precision(codes, whole, unknown_counts_as)
    return precisions


def mean_average_precision(
    labels: ArrayLike,
    scores: ArrayLike,
    absent_classes: str = "skip",
    unknown_counts_as: str = "nothing",
) -> float:
    """Mean of `average_precision` over classes.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float.
        absent_classes: "skip" leaves classes without positives out of the mean, "zero" counts
            them as 0 (the rule of Cole et al. 2021).
        unknown_counts_as: as for `average_precision`.

    Returns:
        float in [0, 1]; NaN where "skip" leaves no class.
    """
    return mean_of_classes(average_precision(labels, scores, unknown_counts_as), absent_classes)


def mean_of_classes(precisions: NDArray[np.float64], absent_classes: str) -> float:
    """Mean of what `average_precision` returned, see `mean_average_precision`."""
    if absent_classes == "zero":
        return float(np.nan_to_num(precisions).mean())
    present = precisions[~np.isnan(precisions)]
    return float(present.mean()) if len(present) else float("nan")


@keras.saving.register_keras_serializable("spml_tf")
class MeanAveragePrecision(keras.metrics.Metric):
    """Mean average precision over everything seen since the last reset, exact for any batching.

    y_true is [B, L] in {1, 0, -1} (unknown; so is -0.0), y_pred [B, L] scores. All are kept,
    5 to 10 bytes per image and class, in buffers that double when they are full; every replica of
    a `tf.distribute` strategy keeps those of all. `result` computes the exact value when called
    eagerly, as `fit` and `evaluate` do at the end of a pass; inside a `tf.function`, where it would
    cost a sort at every step, it returns the value computed last (NaN at first).

    It works in any Keras model, compiled with `jit_compile=True` too. In a `tf.function` of your
    own with `jit_compile=True` call `update_state` in that function itself, not in another
    `tf.function` that it calls.

    Examples:
        Ranked by score the image with the label comes second: its precision is 1/2.

        >>> metric = MeanAveragePrecision()
        >>> metric.update_state([[0], [1], [0]], [[0.9], [0.8], [0.1]])
        >>> float(metric.result())
        0.5

    Args:
        absent_classes: "skip" or "zero", see `mean_average_precision`.
        name: as in Keras.
        dtype: as in Keras.
        unknown_counts_as: "nothing" or "negative", see `average_precision`.
    """

    def __init__(
        self,
        absent_classes: str = "skip",
        name: str = "map",
        dtype: Any = None,
        unknown_counts_as: str = "nothing",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if absent_classes not in ABSENT_CLASSES:
            known = " or ".join(ABSENT_CLASSES)
            raise ValueError(f"absent_classes must be {known}. Received: {absent_classes!r}")
        counted_labels([[1]], unknown_counts_as)  # refuses another rule
        self.absent_classes, self.unknown_counts_as = absent_classes, unknown_counts_as
        self._strategy = tf.distribute.get_strategy()
        self._latest = self.add_variable((), _nan, name="latest")
        self._seen = ScoreStore()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Raises:
            ValueError: if sample weights are passed, which average precision does not define here.
        """
        if sample_weight is not None:
            raise ValueError(
                "MeanAveragePrecision takes no sample weights: give it to compile in metrics=, not "
                "weighted_metrics=, and leave images that shall not count out of the data"
            )
        self._seen.append(_codes(y_true), tf.cast(y_pred, tf.float32))

    def result(self) -> Any:
        if tf.inside_function():
            return self._latest.value
        value = self._exact()
        self._latest.assign(value)
        return np.float64(value)

    def _exact(self) -> float:
        with self._strategy.scope():
            shard, seen = replicas.this_shard(), self._seen.contents()
            if not replicas.sum_of_workers(np.array([len(seen[0])]))[0]:
                return float("nan")
            if shard.workers == 1:
                precisions = average_precision(*seen, self.unknown_counts_as)
            else:
                precisions = average_precision_of_workers(
                    *seen, shard, replicas.sum_of_workers, self.unknown_counts_as
                )
        return mean_of_classes(precisions, self.absent_classes)

    def reset_state(self) -> None:
        self._seen.clear()

    def rows(self) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Labels [n, L] and scores [n, L] seen since the last reset, of this process' images."""
        return self._seen.contents()

    def add_rows(self, labels: NDArray[np.int8], scores: NDArray[np.float32]) -> None:
        """Adds what `rows` gave, in this process; to be called eagerly, not in a replica."""
        if labels.shape[1]:
            with self._strategy.scope():
                self._seen.append(tf.constant(labels), tf.constant(scores))

    def get_config(self) -> dict[str, Any]:
        own = {
            "absent_classes": self.absent_classes, "unknown_counts_as": self.unknown_counts_as
        }  # fmt: skip
        return {**super().get_config(), **own}


def _codes(labels: Any) -> tf.Tensor:
    """Labels as int8 in {1, 0, -1}; -0.0 is unknown, as `SPMLModel` shows it to metrics."""
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.is_floating:
        below = tf.bitcast(tf.cast(labels, tf.float32), tf.int32) < 0  # the sign of zero too
        labels = tf.where(below, tf.constant(UNKNOWN, labels.dtype), labels)
    return tf.cast(labels, tf.int8)


def _nan(shape: Any, dtype: Any = None) -> tf.Tensor:
    return tf.fill(shape, tf.constant(float("nan"), dtype or tf.float32))
