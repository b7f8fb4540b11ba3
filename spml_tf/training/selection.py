"""Which images are expected to hold a class nobody annotated: the choice by score.

The choice is made in blocks of rows, which are read several times: first every class's threshold is
found, then each block is compared with it. Nothing of the size of all labels is made on the way.
Several workers that each hold some of the images find the thresholds of all by exchanging sums of
small arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spml_tf.labels import EXPECTED, POSITIVE, UNKNOWN
from spml_tf.system.errors import DivergedError
from spml_tf.training.budgets import wanted_labels
from spml_tf.training.highest_keys import (
    Keyed,
    Total,
    guessed_first,
    lowest_keys,
    of_one_worker,
    sortable_keys,
)
from spml_tf.training.options import Budget, check_budget

# Some images: their numbers [n] int64, their scores [n, L] as stored, their labels [n, L] int8.
Block = tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int8]]
# Labels of a block, few enough for a processor's cache: what is made on the way takes less than 60
# bytes of each.
_BLOCK = 2**17
_SCORES = ("uint8", "float16", "float32", "float64")


def expected_positives(
    scores: NDArray[Any],
    labels: NDArray[np.int8],
    positives_per_image: float,
    budget: Budget = "all",
    multiple: float | str = 1.0,
) -> NDArray[np.bool_]:
    """Marks the unannotated labels that are expected to be positive (zhat = 1).

    For each class the p_i images of highest score are expected positive. Known negatives never
    enter the ranking. Ties are broken by image index, p_i is rounded and clipped.

    Args:
        scores: [N, L] uint8 or float, the score bank s.
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).
        positives_per_image: K of eq. 3 over these N images.
        budget: "all", the paper's: the annotated positives are ranked along with the others and
            p_i images are taken; "unannotated": only unknown labels are ranked and p_i - n_i of
            them taken, n_i being the number of annotated positives; "global": the unknown labels of
            all classes are ranked together and K * N - sum of n_i of them taken, which does not
            assume that labels are missing in proportion to those that were annotated; or [L]
            numbers in [0, 1], each class's share of the images: p_i is the share times N, and
            p_i - n_i unknown labels of the class are taken.
        multiple: factor of the number of missing labels, p_i - n_i, at least 0, or "auto", see
            `budgets.wanted_labels`.

    Returns:
        [N, L] bool, True only where the label is unknown.

    Raises:
        ValueError: for an unknown budget, shapes that differ, or scores that are NaN.

    Examples:
        >>> labels = np.array([[1, -1], [-1, -1], [-1, 1], [-1, -1]])
        >>> scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.9], [0.1, 0.3]])
        >>> expected_positives(scores, labels, 1.0).astype(int).tolist()  # p_i = 2 of each class
        [[0, 0], [1, 0], [0, 0], [0, 1]]
        >>> expected_positives(scores, labels, 1.0, [0.75, 0.25]).astype(int).tolist()  # 3 and 1
        [[0, 0], [1, 0], [1, 0], [0, 0]]
    """
    if scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must have one shape")

    def blocks() -> Iterator[Block]:
        return row_blocks(scores, labels)

    found = thresholds(blocks, labels.shape, positives_per_image, budget, multiple=multiple)
    selected = np.zeros(labels.shape, dtype=bool)
    for images, *block in blocks():
        selected[images] = found.chosen(images, *block)
    return selected


def row_blocks(
    scores: NDArray[Any],
    labels: NDArray[np.int8],
    visited: NDArray[np.bool_] | None = None,
    worker: int = 0,
    workers: int = 1,
) -> Iterator[Block]:
    """A worker's rows in blocks small enough for `thresholds`.

    Args:
        scores: [n, L] uint8 or float, rows of the images whose number modulo `workers` is `worker`.
        labels: [n, L] int8 in {1, 0, -1, 2}, of the same images.
        visited: [n] bool, images that take part; None means all.
        worker: number of the worker, in [0, workers).
        workers: how many there are.

    Yields:
        (images, scores, labels) of the next images that take part: their numbers among those of all
        workers, int64 [b] in ascending order, and their rows. Row r is image r * workers + worker.

    Examples:
        >>> scores, labels = np.array([[0.9], [0.8], [0.3]]), np.array([[1], [-1], [-1]])
        >>> blocks = row_blocks(scores, labels, np.array([True, False, True]), 1, workers=2)
        >>> [(images.tolist(), x.tolist()) for images, x, _ in blocks]
        [([1, 5], [[0.9], [0.3]])]
    """
    size = max(_BLOCK // max(labels.shape[1], 1), 1)
    for first in range(0, len(labels), size):
        rows: Any = slice(first, first + size)
        numbers = np.arange(first, min(first + size, len(labels)), dtype=np.int64)
        if visited is not None and not visited[rows].all():
            rows = numbers = numbers[visited[rows]]
        yield numbers * workers + worker, scores[rows], labels[rows]


class SelectionThresholds(NamedTuple):
    """What tells the labels that are expected to be positive from the others, see `thresholds`.

    Attributes:
        lowest_key: uint64, [L] or, where all classes are ranked together, [1]: labels whose score
            has a higher key are chosen.
        places: int64, as long: of the labels whose score has that key those before this place are.
    """

    lowest_key: NDArray[np.uint64]
    places: NDArray[np.int64]

    def chosen(
        self, images: NDArray[np.int64], scores: NDArray[Any], labels: NDArray[np.int8]
    ) -> NDArray[np.bool_]:
        """Marks the labels of a block that are expected to be positive.

        Args:
            images: [n] int64, their numbers among all.
            scores: [n, L], the same as `thresholds` was given.
            labels: [n, L] int8 in {1, 0, -1} (2 counts as unknown).

        Returns:
            [n, L] bool, True only where the label is unknown.
        """
        keys = sortable_keys(scores)
        lowest = self.lowest_key.astype(keys.dtype)
        before = _places(images, labels.shape[1], len(lowest)) < self.places
        found: NDArray[np.bool_]
        found = ((keys > lowest) | ((keys == lowest) & before)) & _unknown(labels)
        return found


def thresholds(
    blocks: Callable[[], Iterable[Block]],
    shape: tuple[int, ...],
    positives_per_image: float,
    budget: Budget = "all",
    total: Total = of_one_worker,
    multiple: float | str = 1.0,
) -> SelectionThresholds:
    """Finds which labels `expected_positives` marks, over the images of all workers.

    The thresholds are found byte by byte, from counts of the next byte among the labels that agree
    in the bytes before: first those of the scores, then, if only some of the labels of the lowest
    score are wanted, those of the images' numbers.

    Args:
        blocks: called several times, gives the blocks of this worker's images that take part. Those
            of all workers make up N images, and N, K and the annotated positives of eq. 3 are
            theirs.
        shape: (images, L) of the tables of all workers; every image's number is below `images`.
        positives_per_image: K of eq. 3.
        budget: as for `expected_positives`.
        total: sums an array over the workers, which all call it equally often and in one order.
        multiple: as for `expected_positives`.

    Returns:
        The thresholds, the same for all workers.

    Raises:
        ValueError: for an unknown budget, scores of another type or of several, or, on all
            workers, scores that are NaN on one.

    Examples:
        >>> scores, labels = np.array([[0.9], [0.8], [0.3]]), np.array([[1], [-1], [-1]])
        >>> blocks = [(np.arange(3), scores, labels)]
        >>> found = thresholds(lambda: blocks, labels.shape, 2 / 3)  # two of the three images
        >>> found.chosen(*blocks[0]).tolist()
        [[False], [True], [False]]
    """
    check_budget("budget", budget, shape[1])
    rule = budget if isinstance(budget, str) else "shares"
    num_images, num_bytes, annotated = _counted(blocks, shape[1], total)
    count = wanted_labels(annotated, num_images, positives_per_image, budget, multiple)
    wanted = np.clip(np.rint(count), 0, num_images * shape[1]).astype(np.int64)
    return _highest(blocks, shape, num_bytes, wanted, rule == "all", total)


def lowest_unknown(
    blocks: Callable[[], Iterable[Block]],
    shape: tuple[int, ...],
    wanted: NDArray[np.int64],
    total: Total = of_one_worker,
) -> SelectionThresholds:
    """Finds the unknown labels of lowest score of each class, over the images of all workers.

    Args:
        blocks, shape, total: as for `thresholds`, but the scores are those of `descending`.
        wanted: [L] int64, how many of each class; where there are fewer, all.

    Returns:
        The thresholds, the same for all workers, which choose by scores of `descending`.

    Examples:
        >>> scores, labels = np.array([[0.9], [0.3], [0.8]]), np.array([[-1], [1], [-1]])
        >>> blocks = [(np.arange(3), descending(scores), labels)]
        >>> lowest_unknown(lambda: blocks, (3, 1), np.array([1])).chosen(*blocks[0]).tolist()
        [[False], [False], [True]]
    """
    _, num_bytes, _ = _counted(blocks, shape[1], total)
    return _highest(blocks, shape, num_bytes, wanted, False, total)


def descending(scores: NDArray[Any]) -> NDArray[Any]:
    """Scores in the reverse order.

    Args:
        scores: uint8 or float, of any shape.

    Returns:
        As many of the same type.

    Examples:
        >>> descending(np.array([0, 55, 255], np.uint8)).tolist()
        [255, 200, 0]
    """
    turned: NDArray[Any] = 255 - scores if scores.dtype.kind == "u" else -scores
    return turned


def _highest(
    blocks: Callable[[], Iterable[Block]],
    shape: tuple[int, ...],
    num_bytes: int,
    wanted: NDArray[np.int64],
    with_annotated: bool,
    total: Total,
) -> SelectionThresholds:
    """The labels of highest score of each class, or of all classes where one number is wanted."""
    groups = len(wanted)
    places = shape[0] * (shape[1] if groups == 1 else 1)

    def labels_from(floor: NDArray[np.uint64], step: int) -> Iterator[Keyed]:
        """The labels that may be chosen, of one image in `step`, whose keys are not below."""
        for images, scores, labels in blocks():
            if step > 1:
                rows = images % step == 0
                images, scores, labels = images[rows], scores[rows], labels[rows]
            keys, within = sortable_keys(scores), _unknown(labels)
            if with_annotated:
                within |= labels == POSITIVE
            if floor.any():
                within &= keys >= floor.astype(keys.dtype)
            image, column = np.divmod(np.flatnonzero(within), shape[1])
            place = np.broadcast_to(_places(images, shape[1], groups), within.shape)
            group = column if groups > 1 else 0 * column
            yield keys[image, column], group, place[image, column]

    lowest, wanted, ties, _, of_key = guessed_first(labels_from, shape, num_bytes, wanted, total)
    end = np.where(wanted > 0, places, 0)
    split = (wanted > 0) & (wanted < ties)
    if split.any():

        def tied() -> Iterator[Keyed]:
            for _, group, place in of_key():
                chosen = split[group]
                # The first place has the highest key.
                yield (places - 1 - place[chosen]).astype(np.uint64), group[chosen], place[chosen]

        num_bytes = (places.bit_length() + 7) // 8
        first = lowest_keys(tied, num_bytes, wanted * split, total).keys
        end = np.where(split, places - first.astype(np.int64), end)
    return SelectionThresholds(lowest, end)


def _counted(
    blocks: Callable[[], Iterable[Block]], num_classes: int, total: Total
) -> tuple[int, int, NDArray[np.int64]]:
    """Over all workers: images, bytes of a score and annotated positives of each class."""
    # What cannot be ranked, images by the bytes of their scores (some workers may have none), and
    # the annotated positives.
    counts = np.zeros(1 + 9 + num_classes, np.int64)
    for images, scores, labels in blocks():
        if scores.dtype not in _SCORES:
            raise ValueError(f"scores must be uint8 or float. Received: {scores.dtype}")
        counts[0] += np.isnan(scores).sum() if scores.dtype.kind == "f" else 0
        counts[1 + scores.itemsize] += len(images)
        counts[10:] += (labels == POSITIVE).sum(axis=0)
    counts = total(counts)
    if counts[0]:
        raise DivergedError(f"{counts[0]} scores are NaN: the network has diverged")
    sizes = counts[1:10]
    if np.count_nonzero(sizes) > 1:
        raise ValueError("scores must be of one type on all workers")
    return int(sizes.sum()), int(sizes.argmax()), counts[10:]


def _unknown(labels: NDArray[np.int8]) -> NDArray[np.bool_]:
    unknown: NDArray[np.bool_] = (labels == UNKNOWN) | (labels == EXPECTED)
    return unknown


def _places(images: NDArray[np.int64], num_classes: int, groups: int) -> NDArray[np.int64]:
    """Ranks of equal scores: by image, [n, 1], or, in one group, image by image, [n, L]."""
    if groups > 1:
        return images[:, None]
    return images[:, None] * num_classes + np.arange(num_classes)
