"""Class priors and K without counting: from scores and the labels they were trained on.

The scores are those of a network that was trained with unknown labels as negatives: they say how
probably a class was annotated. `class_priors` is what training uses; `ESTIMATORS` are that one and
those it was compared with. NumPy in, NumPy out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.labels import NEGATIVE, POSITIVE
from spml_tf.training.draw_model import DrawModel, Fitted, fitted_with_replicates

# Of more images evenly spaced ones are looked at: these, or so many for each class.
_IMAGES, _IMAGES_A_CLASS = 8192, 8
_REPLICATES, _BEST_BIN_REPLICATES = 10, 20
# Bounds that hold in 95 % of normal samples, in standard deviations.
_BOUND = 1.96


class ClassPriors(NamedTuple):
    """Shares of the images that hold each class, and their sum.

    Attributes:
        priors: [L] float64 in [0, 1].
        low: [L], lower ends of their intervals.
        high: [L], upper ends.
        positives_per_image: K, the sum of the priors.
        interval: (low, high) of K.
    """

    priors: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    positives_per_image: float
    interval: tuple[float, float]


def sample_step(num_images: int, num_classes: int) -> int:
    """One image in so many is enough for `class_priors`: those whose number it divides."""
    return max(num_images // max(_IMAGES, _IMAGES_A_CLASS * num_classes), 1)


def class_priors(
    scores: NDArray[Any],
    labels: NDArray[Any],
    replicates: int = _REPLICATES,
    seed: int = 0,
) -> ClassPriors:
    """Estimates class priors by `draw_model.DrawModel`, with intervals.

    An interval holds what bootstrap samples of the images give; what a second reading of the same
    scores does, in which annotated images were chosen for holding a class (`some`): it finds fewer
    positives, and where scores tell little, any number; and what `best_bin` gives. Nothing is below
    what was annotated. That the scores were trained on the same labels makes them too sure, and the
    estimate lower, the longer they were trained.

    Args:
        scores: [N, L] uint8, or float in [0, 1].
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).
        replicates: bootstrap samples that the model is fitted to, from 2.
        seed: of the samples.

    Returns:
        The estimate. A class without an annotated positive has the prior 0 and the interval (0, 1),
        and counts nothing in K.

    Raises:
        ValueError: shapes that differ, scores that are NaN, or no annotated positive at all.

    Examples:
        >>> scores = np.array([[0.9, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]])
        >>> labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]])
        >>> found = class_priors(scores, labels)
        >>> found.priors.round(2).tolist(), round(found.positives_per_image, 1)
        ([0.75, 0.75], 1.5)
    """
    scores, labels = _checked(scores, labels)
    present = (labels == POSITIVE).any(axis=0)
    readings = [
        fitted_with_replicates(
            DrawModel(scores[:, present], labels[:, present], some), replicates, seed
        )
        for some in (False, True)
    ]
    readings.append(_best_bin_replicates(scores[:, present], labels[:, present], seed))
    annotated = (labels[:, present] == POSITIVE).mean(axis=0)
    known = 1 - (labels[:, present] == NEGATIVE).mean(axis=0)
    found = np.clip(readings[0].priors, annotated, known)
    ends = [_interval(x.priors, x.replicates) for x in readings]
    low = np.clip(np.min([x for x, _ in ends], axis=0), annotated, found)
    high = np.clip(np.max([x for _, x in ends], axis=0), found, known)
    sums = [_interval(x.priors.sum(), x.replicates.sum(axis=1)) for x in readings]
    mean = float(found.sum())
    interval = (
        float(np.clip(min(x for x, _ in sums), annotated.sum(), mean)),
        float(np.clip(max(x for _, x in sums), mean, known.sum())),
    )
    return ClassPriors(
        _placed(found, present, 0.0), _placed(low, present, 0.0), _placed(high, present, 1.0),
        mean, interval,
    )  # fmt: skip


def probable_shares(
    scores: NDArray[Any],
    labels: NDArray[Any],
    probability: float,
    known: float | ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Shares of the images that hold a class by annotation or probably, by `DrawModel`.

    The probability is that of an unknown label given the scores and what was annotated of its
    image: that a class was drawn says that the image holds few others.

    Args:
        scores: [N, L] uint8, or float in [0, 1].
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).
        probability: in [0, 1], from which on an unknown label counts.
        known: K, or [L] shares of the images that hold each class, to which the model is moved;
            None: what it finds itself.

    Returns:
        [L] float64 in [0, 1], 0 for a class without an annotated positive.

    Raises:
        ValueError: as for `class_priors`.

    Examples:
        >>> scores = np.array([[0.9, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]])
        >>> labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]])
        >>> probable_shares(scores, labels, 0.5).tolist()  # the first and the last hold both
        [0.75, 0.75]
    """
    scores, labels = _checked(scores, labels)
    present = (labels == POSITIVE).any(axis=0)
    model = DrawModel(scores[:, present], labels[:, present])
    found = model.fit()
    if known is not None:
        target = np.asarray(known, np.float64)
        found = model.moved(found, target[present] if target.ndim else target)
    likely = (model.posteriors(found) >= probability) & ~model.negative
    return _placed((likely | model.positive).mean(axis=0), present, 0.0)


def elkan_noto(
    scores: NDArray[Any], labels: NDArray[Any], quantile: float | None = None
) -> NDArray[np.float64]:
    """Mean score of all images over that of the annotated positives (Elkan and Noto, 2008).

    It holds where scores are P(annotated | image) and annotated positives are as the others.

    Args:
        scores: [N, L] uint8, or float in [0, 1].
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).
        quantile: of the annotated positives' scores, in place of their mean; 0.9 bears scores that
            do not separate the classes better.

    Returns:
        [L] float64 in [0, 1].

    Examples:
        >>> scores, labels = np.array([[0.5], [0.5], [0.0], [0.0]]), np.array([[1], [-1]] * 2)
        >>> elkan_noto(scores, labels, quantile=0.9).round(2).tolist()  # 0.25 / 0.45
        [0.56]
    """
    scores, labels = _checked(scores, labels)
    found = np.zeros(labels.shape[1])
    for column in range(labels.shape[1]):
        own = scores[labels[:, column] == POSITIVE, column]
        if len(own):
            typical = own.mean() if quantile is None else np.quantile(own, quantile)
            whole = scores[labels[:, column] != NEGATIVE, column].sum() / len(scores)
            found[column] = min(whole / max(typical, 1e-12), 1.0)
    return found


def best_bin(
    scores: NDArray[Any], labels: NDArray[Any], delta: float = 0.1, gamma: float = 0.01
) -> NDArray[np.float64]:
    """The least ratio of unknown to annotated labels above a score (Garg et al., NeurIPS 2021).

    Their best bin estimator: among the highest scores all are positive; the threshold is the one
    whose ratio has the lowest upper confidence bound.

    Args:
        scores: [N, L] uint8, or float in [0, 1].
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).
        delta: of the bound, which fails with this probability.
        gamma: of the bound's weight, 1 + gamma.

    Returns:
        [L] float64 in [0, 1].

    Examples:
        >>> scores, labels = np.array([[0.9], [0.8], [0.1], [0.1]]), np.array([[1], [-1]] * 2)
        >>> best_bin(scores, labels).tolist()  # above 0.1 one of both, and so of all: 2 + 2
        [1.0]
    """
    return _best_bin(*_checked(scores, labels), delta, gamma)


def _best_bin_replicates(scores: NDArray[Any], labels: NDArray[Any], seed: int) -> Fitted:
    """Its priors, and those of samples of the images, drawn with replacement."""
    draws, count = np.random.default_rng(seed), len(scores)
    drawn = [draws.integers(0, count, count) for _ in range(_BEST_BIN_REPLICATES)]
    replicates = [_best_bin(scores[rows], labels[rows]) for rows in drawn]
    return Fitted(_best_bin(scores, labels), np.stack(replicates))


def _best_bin(
    scores: NDArray[Any], labels: NDArray[Any], delta: float = 0.1, gamma: float = 0.01
) -> NDArray[np.float64]:
    found = np.zeros(labels.shape[1])
    for column in range(labels.shape[1]):
        label, score = labels[:, column], scores[:, column]
        own, other = score[label == POSITIVE], score[(label != POSITIVE) & (label != NEGATIVE)]
        if not len(own):
            continue
        share = 0.0
        if len(other):
            places = np.unique(own)
            ours = 1 - np.searchsorted(np.sort(own), places) / len(own)
            others = 1 - np.searchsorted(np.sort(other), places) / len(other)
            error = np.sqrt(np.log(4 / delta) / 2 / np.array([len(own), len(other)])).sum()
            best = np.argmin((others + (1 + gamma) * error) / ours)
            share = min(others[best] / ours[best], 1.0)
        found[column] = (share * len(other) + len(own)) / len(label)
    return found


def effective_classes(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Each image's scores times the number of classes they are spread over.

    Where one of an image's n classes is drawn and the scores know all, n of them are 1 / n, and 1
    over the sum of their squares is n. What the scores do not know spreads them as well.

    Args:
        scores: [N, L] uint8, or float in [0, 1].
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown).

    Returns:
        [L] float64 in [0, 1].

    Examples:
        >>> scores, labels = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[1, -1], [1, -1]])
        >>> effective_classes(scores, labels).tolist()
        [1.0, 0.5]
    """
    scores, labels = _checked(scores, labels)
    spread = scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-12)
    count = 1 / np.maximum((spread**2).sum(axis=1, keepdims=True), 1e-12)
    shares: NDArray[np.float64]
    shares = np.where(labels == NEGATIVE, 0, np.minimum(spread * count, 1)).mean(axis=0)
    return shares


def _draw(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    return class_priors(scores, labels, replicates=2).priors


def _quantile(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    return elkan_noto(scores, labels, 0.9)


# What was compared: scores and labels to priors, by name.
ESTIMATORS: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]] = {
    "mean score over that of annotated ones": elkan_noto,
    "mean score over the 0.9 quantile": _quantile,
    "best bin": best_bin,
    "effective classes": effective_classes,
    "draw model": _draw,
}


def _checked(
    scores: NDArray[Any], labels: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Both as arrays of one shape, the scores in [0, 1]."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must have one shape")
    whole = scores / 255 if scores.dtype == np.uint8 else scores.astype(np.float64)
    if np.isnan(whole).any():
        raise ValueError("scores are NaN")
    if not (labels == POSITIVE).any():
        raise ValueError("class priors cannot be estimated: no label is annotated positive")
    return whole, labels


def _interval(value: Any, replicates: NDArray[np.float64]) -> tuple[Any, Any]:
    width = _BOUND * replicates.std(axis=0, ddof=1)
    return value - width, value + width


def _placed(
    values: NDArray[np.float64], present: NDArray[np.bool_], otherwise: float
) -> NDArray[np.float64]:
    """Values of the classes that are present, among all."""
    whole = np.full(len(present), otherwise)
    whole[present] = values
    return whole
