"""What scores and heatmaps say beyond mean average precision. NumPy in, NumPy out.

Labels are [N, L] (images by classes): 1 is a positive, 0 a negative, -1 unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.evaluation.average_precision import average_precision
from spml_tf.labels import POSITIVE, UNKNOWN, counted_labels


class Reliability(NamedTuple):
    """Bins of equal width over scores, for a reliability diagram.

    Attributes:
        edges: float64 [B + 1] from 0 to 1; a bin holds its lower edge, the last one both.
        scores: float64 [B], mean score in each bin, NaN for an empty one.
        positives: float64 [B] in [0, 1], share of positives, NaN for an empty bin.
        counts: int64 [B], labels in each bin.
        error: the expected calibration error, in [0, 1].
    """

    edges: NDArray[np.float64]
    scores: NDArray[np.float64]
    positives: NDArray[np.float64]
    counts: NDArray[np.int64]
    error: float


def top_scores(scores: ArrayLike, count: int = 4) -> NDArray[np.floating]:
    """The highest scores of every image (Verelst et al., WACV 2023, Figures 5a and F.1).

    Args:
        scores: [N, L] float.
        count: how many, at most L are returned.

    Returns:
        [N, min(count, L)], the highest first, in the scores' type.

    Examples:
        >>> top_scores([[0.1, 0.9, 0.5]], count=2).tolist()
        [[0.9, 0.5]]
    """
    return -np.sort(-np.asarray(scores), axis=1)[:, :count]


def histogram(values: ArrayLike, bins: int = 20) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of values in bins of equal width between 0 and 1.

    Args:
        values: numbers in [0, 1], at least one.
        bins: how many.

    Returns:
        (edges [bins + 1], shares [bins], which sum to 1); a bin holds its lower edge, the last one
        both.

    Examples:
        >>> edges, shares = histogram([0.1, 0.3, 0.4, 1.0], bins=2)
        >>> edges.tolist(), shares.tolist()
        ([0.0, 0.5, 1.0], [0.75, 0.25])
    """
    counts, edges = np.histogram(np.asarray(values, np.float64), bins=bins, range=(0.0, 1.0))
    return edges, counts / np.size(values)


def largest_objects(
    boxes: Sequence[NDArray[np.floating]], areas: Sequence[NDArray[np.floating]], num_classes: int
) -> NDArray[np.float64]:
    """The size that each class has in each image: the area of its largest object there.

    Args:
        boxes: N arrays [M, 5] with rows (class index, y1, x1, y2, x2).
        areas: N arrays [M], each object's area as a part of the image's.
        num_classes: L.

    Returns:
        [N, L] in [0, 1], NaN where the image has no object of the class.

    Examples:
        >>> boxes = np.array([[1, 0.0, 0.0, 0.5, 0.5], [1, 0.0, 0.5, 0.5, 0.75]])  # both of class 1
        >>> largest_objects([boxes], [np.array([0.25, 0.125])], num_classes=2).tolist()
        [[nan, 0.25]]
    """
    sizes = np.full((len(boxes), num_classes), np.nan)
    for row, objects, parts in zip(sizes, boxes, areas, strict=True):
        np.fmax.at(row, objects[:, 0].astype(np.int64), parts)
    return sizes


def size_edges(sizes: ArrayLike, bins: int = 5) -> NDArray[np.float64]:
    """Edges between bins of sizes that hold equally many.

    Objects of equal size stay together, so that counts differ where many are equally large.

    Args:
        sizes: any shape; NaNs are left out, at least one number must remain.
        bins: how many at most; fewer where so many are equal that bins would be empty.

    Returns:
        Increasing, from the lowest to the highest size; a single size gives it twice.

    Raises:
        ValueError: no size.

    Examples:
        >>> size_edges([0.1, 0.2, 0.3, 0.4, 0.5, np.nan], bins=2).tolist()
        [0.1, 0.3, 0.5]
    """
    known = np.asarray(sizes, np.float64)
    known = known[~np.isnan(known)]
    if not known.size:
        raise ValueError("no object has a size")
    # Sizes that occur, not means of two: an edge then belongs to the bin above it.
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1), method="higher"))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def bin_of_size(sizes: ArrayLike, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each size: edges[i] <= size < edges[i + 1], and the last with both edges.

    Args:
        sizes: any shape.
        edges: [B + 1] increasing.

    Returns:
        int64 of the sizes' shape in 0..B-1, -1 for NaN and sizes outside the edges.

    Examples:
        >>> bin_of_size([0.1, 0.3, 0.5, 0.7, np.nan], np.array([0.1, 0.3, 0.5])).tolist()
        [0, 1, 1, -1, -1]
    """
    sizes, last = np.asarray(sizes, np.float64), len(edges) - 2
    found = np.minimum(np.searchsorted(edges, sizes, side="right") - 1, last)
    return np.where((sizes >= edges[0]) & (sizes <= edges[-1]), found, -1)


def average_precision_by_size(
    labels: ArrayLike,
    scores: ArrayLike,
    sizes: ArrayLike,
    edges: NDArray[np.float64],
    unknown_counts_as: str = "nothing",
) -> NDArray[np.float64]:
    """Average precision with the positives of one size (Verelst et al., WACV 2023, Figure D.1).

    For a bin and a class the ranking holds the positives whose size lies in the bin and all images
    that count as negative; other positives are left out. Few positives among as many negatives have
    a lower precision, so compare methods within a bin, not bins.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float.
        sizes: [N, L], NaN where there is none.
        edges: [B + 1] increasing.
        unknown_counts_as: "nothing" or "negative", see `labels.counted_labels`.

    Returns:
        [B, L] in [0, 1], NaN where a class has no positive in the bin.

    Examples:
        >>> labels, scores = [[1], [0], [1]], [[0.9], [0.8], [0.7]]
        >>> sizes = [[0.5], [np.nan], [0.1]]  # the small one is ranked below the negative
        >>> average_precision_by_size(labels, scores, sizes, np.array([0.0, 0.3, 1.0])).tolist()
        [[0.5], [1.0]]
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    positive, bins = labels == POSITIVE, bin_of_size(sizes, edges)
    counted = counted_labels(labels, unknown_counts_as)
    found = np.full((len(edges) - 1, labels.shape[1]), np.nan)
    for number, row in enumerate(found):
        kept = counted & (~positive | (bins == number))
        for column in np.flatnonzero((positive & kept).any(axis=0)):
            rows = kept[:, column]
            part = positive[rows, column, None], scores[rows, column, None]
            row[column] = average_precision(*part)[0]
    return found


def relative_gain(values: ArrayLike, baseline: ArrayLike) -> NDArray[np.float64]:
    """100 (values - baseline) / baseline: percent gained over a baseline.

    Args:
        values: any shape.
        baseline: of the same shape.

    Returns:
        float64 of that shape, NaN where the baseline is 0 or either is NaN.

    Examples:
        >>> relative_gain([0.75, 0.5], [0.5, 0.0]).tolist()
        [50.0, nan]
    """
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    gain = np.full(np.broadcast_shapes(values.shape, baseline.shape), np.nan)
    np.divide(100 * (values - baseline), baseline, out=gain, where=baseline != 0)
    return gain


def pointing_hits(
    peaks: ArrayLike, boxes: Sequence[NDArray[np.floating]], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pointing game (Zhang et al., ECCV 2016, without their 15 pixels of tolerance).

    A pair of an image and a class with boxes there is a hit where the peak of the class's map lies
    in one of these boxes, edges included.

    Args:
        peaks: [N, L, 2] of (y, x) in [0, 1].
        boxes: N arrays [M, 5] with rows (class index, y1, x1, y2, x2) in [0, 1].
        num_classes: L.

    Returns:
        (hits, pairs), each int64 [L].

    Examples:
        >>> boxes = np.array([[0, 0.0, 0.0, 0.5, 0.5], [1, 0.0, 0.0, 0.5, 0.5]])
        >>> hits, pairs = pointing_hits([[(0.2, 0.2), (0.9, 0.9)]], [boxes], num_classes=2)
        >>> hits.tolist(), pairs.tolist()
        ([1, 0], [1, 1])
    """
    peaks = np.asarray(peaks)
    hits, pairs = np.zeros((2, num_classes), np.int64)
    for points, objects in zip(peaks, boxes, strict=True):
        classes = objects[:, 0].astype(np.int64)
        low, high = objects[:, 1:3], objects[:, 3:5]
        inside = ((points[classes] >= low) & (points[classes] <= high)).all(axis=1)
        hits[np.unique(classes[inside])] += 1
        pairs[np.unique(classes)] += 1
    return hits, pairs


def energy_inside(
    heatmaps: ArrayLike, mask: ArrayLike, numbers: Sequence[int], void: int = 255
) -> NDArray[np.float64]:
    """Share of each heatmap's sum that lies inside its class's objects (Wang et al., CVPR-W 2020).

    A cell of the heatmap is as large as its part of the mask; cells that a mask divides count by
    the part of them that is inside.

    Args:
        heatmaps: [G, G', L], at least 0.
        mask: [H, W] of a class's number or another one.
        numbers: L numbers, each class's in the mask.
        void: number of what is not labelled, which counts neither inside nor outside.

    Returns:
        [L] in [0, 1], NaN for a class that the mask does not show.

    Examples:
        >>> heatmap = np.array([[[3.0], [1.0]]])  # one row of two cells
        >>> energy_inside(heatmap, [[1, 1, 1, 0]], [1]).tolist()  # (3 + 1/2) / 4
        [0.875]
    """
    heatmaps, mask = np.asarray(heatmaps, np.float64), np.asarray(mask)
    down, across = (
        _overlaps(cells, pixels)
        for cells, pixels in zip(heatmaps.shape[:2], mask.shape, strict=True)
    )

    def covered(pixels: NDArray[np.bool_]) -> NDArray[np.float64]:
        parts: NDArray[np.float64] = down @ pixels @ across.T
        return parts

    labelled = covered((mask != void) | np.isin(mask, numbers))
    shares = np.full(len(numbers), np.nan)
    for column, number in enumerate(numbers):
        own = mask == number
        if own.any():
            heatmap = heatmaps[..., column]
            whole = (heatmap * labelled).sum()
            shares[column] = (heatmap * covered(own)).sum() / whole if whole else np.nan
    return shares


def _overlaps(cells: int, pixels: int) -> NDArray[np.float64]:
    """[cells, pixels]: the part of each cell that each pixel takes, along one side."""
    low, high = (np.arange(cells)[:, None] + x for x in (0, 1))
    left, right = ((np.arange(pixels) + x) * cells / pixels for x in (0, 1))
    parts: NDArray[np.float64] = np.minimum(high, right) - np.maximum(low, left)
    return np.maximum(parts, 0.0)


def reliability(labels: ArrayLike, scores: ArrayLike, bins: int = 10) -> Reliability:
    """How often labels are positive where the network says they are.

    All classes are pooled; unknown labels are left out. The expected calibration error is that of
    Naeini et al. (AAAI 2015), for the probability of the positive class: the mean over labels of
    |mean score - share of positives| of their bins.

    Args:
        labels: [N, L] of {1, 0, -1}.
        scores: [N, L] in [0, 1].
        bins: how many.

    Returns:
        The bins.

    Raises:
        ValueError: no label is known.

    Examples:
        >>> bins = reliability([[1, 0], [1, -1]], [[0.9, 0.1], [0.6, 0.5]], bins=2)
        >>> bins.counts.tolist(), bins.positives.tolist()
        ([1, 2], [0.0, 1.0])
        >>> round(bins.error, 4)  # (|0.1 - 0| + 2 |0.75 - 1|) / 3
        0.2
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    known = labels != UNKNOWN
    positive, score = labels[known] == POSITIVE, scores[known]
    if not len(score):
        raise ValueError("no label is known")
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = np.bincount(place, score, bins) / counts
        shares = np.bincount(place, positive, bins) / counts
    error = np.nansum(counts * np.abs(means - shares)) / counts.sum()
    return Reliability(edges, means, shares, counts, float(error))
