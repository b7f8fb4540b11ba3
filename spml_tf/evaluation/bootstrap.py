"""How far a difference in mean average precision depends on the images it is measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.labels import POSITIVE, counted_labels

# Weights of images in resamples that are held at a time.
_WEIGHTS_AT_A_TIME = 2_000_000


def difference_interval(
    labels: ArrayLike,
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    unknown_counts_as: str = "nothing",
) -> tuple[float, float]:
    """Interval of the difference in mean average precision between two methods on these images.

    The images are drawn anew with replacement (Efron's percentile bootstrap), the same ones for
    both methods and all pairs; the interval holds the middle of the differences, which are means
    over pairs. It tells how far the choice of test images matters, not that of seeds.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        pairs: at least one (scores, baseline's scores), each [N, L] finite, such as of one seed.
        resamples: how often images are drawn.
        confidence: in (0, 1), the part of the resamples inside the interval.
        seed: of the drawing.
        unknown_counts_as: "nothing" or "negative", see `labels.counted_labels`.

    Returns:
        (low, high) of mAP - baseline's mAP, in [-1, 1]. Classes without a positive among the drawn
        images are left out of that draw, and so is a draw without any.

    Raises:
        ValueError: no label is positive.

    Examples:
        >>> labels = [[1], [0]]  # both drawn: 1 against 1/2; the positive alone: 1 against 1
        >>> difference_interval(labels, [([[0.9], [0.1]], [[0.1], [0.9]])])
        (0.0, 0.5)
    """
    whole = [scores for pair in pairs for scores in pair]
    maps = resampled_maps(labels, whole, resamples, seed, unknown_counts_as)
    found = (maps[:, ::2] - maps[:, 1::2]).mean(axis=1)
    return interval(found, confidence)


def resampled_maps(
    labels: ArrayLike,
    scores: Sequence[ArrayLike],
    resamples: int = 1000,
    seed: int = 0,
    unknown_counts_as: str = "nothing",
) -> NDArray[np.float64]:
    """Mean average precision of several networks on images that are drawn anew with replacement.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: those of M networks, each [N, L] finite.
        resamples: R, how often N images are drawn, the same ones for all networks.
        seed: of the drawing.
        unknown_counts_as: "nothing" or "negative", see `labels.counted_labels`.

    Returns:
        [R, M] float64 in [0, 1]. Classes without a positive among the drawn images are left out of
        that draw; NaN in a draw without any.

    Raises:
        ValueError: no label is positive.

    Examples:
        The positive is first, and alone where it is drawn twice; where it is not drawn, NaN:

        >>> found = resampled_maps([[1], [0]], [[[0.9], [0.1]]], 4)
        >>> sorted(set(found[~np.isnan(found)].tolist()))
        [1.0]
    """
    counted = counted_labels(labels, unknown_counts_as)
    positive = np.asarray(labels) == POSITIVE
    if not positive.any():
        raise ValueError("no label is positive")
    rng = np.random.default_rng(seed)
    count = len(positive)
    found = []
    for size in _portions(resamples, max(1, _WEIGHTS_AT_A_TIME // count)):
        weights = rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
        maps = [_weighted_map(positive, counted, np.asarray(own), weights) for own in scores]
        found.append(np.stack(maps, axis=1))
    return np.concatenate(found)


def interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """The middle of what resamples gave, those without a value left out.

    Args:
        values: [R], NaN or infinite where a resample has none.
        confidence: in (0, 1), the part of the values inside.

    Returns:
        (low, high).

    Examples:
        >>> interval([0.0, 1.0, 2.0, 3.0, 4.0, float("nan")], 0.5)
        (1.0, 3.0)
    """
    found, tail = np.asarray(values), (1 - confidence) / 2
    low, high = np.quantile(found[np.isfinite(found)], (tail, 1 - tail))
    return float(low), float(high)


def _portions(total: int, size: int) -> list[int]:
    return [min(size, total - done) for done in range(0, total, size)]


def _weighted_map(
    positive: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    scores: NDArray[np.floating],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean average precision [R] where image n counts weights[r, n] times, ties as one threshold.

    Args:
        positive: [N, L].
        counted: [N, L], which labels of an image count.
        scores: [N, L].
        weights: [R, N] float64, at least 0.
    """
    total, present = np.zeros((2, len(weights)))
    for own, kept, values in zip(positive.T, counted.T, scores.T, strict=True):
        order = np.argsort(-values, kind="stable")
        order = order[kept[order]]
        ranked = values[order]
        weight = weights[:, order]
        hits = weight * own[order]
        # Where the tie of each image ends.
        last = np.searchsorted(-ranked, -ranked, side="right") - 1
        all_so_far, hits_so_far = (np.cumsum(x, axis=1)[:, last] for x in (weight, hits))
        # What was not drawn weighs nothing, whatever its precision; nor does an absent class.
        precision = hits_so_far / np.maximum(all_so_far, 1)
        drawn = hits.sum(axis=1)
        total += (hits * precision).sum(axis=1) / np.maximum(drawn, 1)
        present += drawn > 0
    with np.errstate(invalid="ignore"):
        return total / present
