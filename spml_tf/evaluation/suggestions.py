"""Which images to label in full next. NumPy in, NumPy out.

Labels are [N, L] (images by classes): 1 is a positive, 0 a negative, -1 unknown.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.evaluation.rules import SUGGESTIONS
from spml_tf.labels import POSITIVE, UNKNOWN, validate_labels


def suggest_images(
    scores: ArrayLike,
    labels: ArrayLike,
    count: int,
    rule: str = "gain",
    other_scores: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Chooses the images whose full labelling is likely to help most, the best first.

    Args:
        scores: float [N, L] in [0, 1], such as running averages; NaN leaves a label out.
        labels: [N, L] in {1, 0, -1}, those known.
        count: how many images; fewer where fewer have an unknown label.
        rule: "gain": image by image the one that adds most to the sum over classes of
            log(positives), the known ones and, by their scores, those of the images chosen so far:
            many missing labels, and of rare classes rather than of frequent ones (ours);
            "missing": the highest sum of the scores of unknown labels; "uncertainty": the highest
            sum of their entropies; "disagreement": of |scores - other_scores|; "random".
        other_scores: float [N, L], of the network where `scores` are running averages; for
            "disagreement".
        seed: of "random".

    Returns:
        int64 [at most count], rows of the images; of equals the earlier image comes first.

    Raises:
        ValueError: an unknown rule, shapes that differ, or "disagreement" without other scores.

    Examples:
        The first two images miss the frequent class as probably as the last the rare one:

        >>> scores = [[0.1, 0.6], [0.1, 0.5], [0.5, 0.1]]
        >>> labels = [[-1, -1], [1, -1], [-1, 1]]
        >>> suggest_images(scores, labels, 2).tolist()
        [0, 2]
        >>> suggest_images(scores, labels, 2, "missing").tolist()
        [0, 1]
    """
    known, found = validate_labels(labels), np.asarray(scores, np.float64)
    if found.shape != known.shape:
        raise ValueError(f"scores {found.shape} and labels {known.shape} must have one shape")
    if rule not in SUGGESTIONS:
        raise ValueError(f"rule must be one of {', '.join(SUGGESTIONS)}. Received: {rule!r}")
    open_labels = (known == UNKNOWN) & ~np.isnan(found)
    chance = np.where(open_labels, found, 0.0)
    candidates = np.flatnonzero(open_labels.any(axis=1))
    if rule == "gain":
        start = np.maximum((known == POSITIVE).sum(axis=0), 1)
        return _most_gain(chance, start, candidates, count)
    if rule == "random":
        return np.random.default_rng(seed).permutation(candidates)[:count]
    worth: NDArray[Any]
    if rule == "missing":
        worth = chance.sum(axis=1)
    elif rule == "uncertainty":
        inner = np.clip(chance, 1e-12, 1 - 1e-12)
        entropy = -inner * np.log(inner) - (1 - inner) * np.log(1 - inner)
        worth = np.where(open_labels, entropy, 0.0).sum(axis=1)
    else:
        if other_scores is None:
            raise ValueError("disagreement: give other_scores, those of the network")
        other = np.asarray(other_scores, np.float64)
        if other.shape != found.shape:
            raise ValueError(f"other_scores {other.shape} must have the shape of {found.shape}")
        worth = np.where(open_labels, np.abs(found - other), 0.0).sum(axis=1)
    return candidates[np.argsort(-worth[candidates], kind="stable")][:count]


def _most_gain(
    chance: NDArray[np.float64], start: NDArray[Any], candidates: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Greedy choice by the sum over classes of log(positives).

    The gain of an image only falls as others are chosen, so that one whose gain was found anew and
    is still the highest need not be compared with the rest.
    """
    total = start.astype(np.float64)
    first = np.log1p(chance[candidates] / total).sum(axis=1)
    heap = [(-value, int(image)) for value, image in zip(first, candidates, strict=True)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, image = heapq.heappop(heap)
        now = (-float(np.log1p(chance[image] / total).sum()), image)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
        else:
            chosen.append(image)
            total += chance[image]
    return np.array(chosen, np.int64)
