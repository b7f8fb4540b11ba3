"""The labels that are trained on: of simulated annotators, or of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets import label_files
from spml_tf.datasets.readers import DEFAULT_SEED, Examples
from spml_tf.datasets.settings import DataSettings
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN, validate_labels
from spml_tf.system.errors import UserError


def of_settings(
    settings: DataSettings, whole: Examples
) -> tuple[NDArray[np.int8], NDArray[np.bool_] | None]:
    """The labels that --train_labels names.

    Args:
        settings: resolved settings.
        whole: all N images of the training split.

    Returns:
        int8 [N, L] in {1, 0, -1}; and [N], which images a file of labels holds out, or None.

    Raises:
        UserError: the data set has no such labels, or a file does not fit it.
    """
    if settings.train_labels == "full":
        return whole.labels, None
    if settings.train_labels == "stored":
        if whole.observed is None:
            raise UserError(
                f"--train_labels=stored: --dataset={settings.dataset} comes without observed "
                "labels; give single, full or a file"
            )
        return whole.observed, None
    if settings.train_labels == "single":
        seed = settings.label_seed
        counts = settings.observed_positives, settings.observed_negatives
        if settings.positive_choice == "uniform":
            return draw_observed(whole.labels, seed, *counts), None
        ranks = _ranks(settings, whole)
        return draw_ranked(whole.labels, ranks, seed, *counts), None
    if settings.train_labels == "partial":
        return draw_partial(whole.labels, settings.known_share, settings.label_seed), None
    path, some = settings.train_labels, settings.train_images > 0
    return label_files.read_observed(path, whole.names, whole.class_names, some)


def of_some_images(
    settings: DataSettings, train: Examples, observed: NDArray[np.int8]
) -> tuple[Examples, NDArray[np.int8]]:
    """What --train_images and --full_images leave of the training images and their labels.

    Args:
        settings: resolved settings.
        train: N images.
        observed: int8 [N, L], their observed labels.

    Raises:
        UserError: there are fewer images.
    """
    order = np.random.RandomState(settings.label_seed).permutation(len(train))
    for flag in ("train_images", "full_images"):
        if getattr(settings, flag) > len(train):
            raise UserError(
                f"--{flag}={getattr(settings, flag)}: there are {len(train)} training images"
            )
    if settings.full_images:
        observed = observed.copy()
        full = order[: settings.full_images]
        observed[full] = train.labels[full]
    if settings.train_images:
        rows = np.sort(order[: settings.train_images])
        train, observed = train.subset(rows), observed[rows]
    return train, observed


def _ranks(settings: DataSettings, whole: Examples) -> NDArray[np.float64]:
    """What --positive_choice ranks positives by: [L], or [N, L] by the areas of objects."""
    if settings.positive_choice == "frequent":
        images: NDArray[np.float64] = (whole.labels == POSITIVE).sum(axis=0).astype(float)
        return images
    if whole.boxes is None or whole.areas is None:
        raise UserError(
            f"--positive_choice=largest: --dataset={settings.dataset} comes without boxes here; "
            "name them (--boxes_csv for folder), or choose uniform or frequent"
        )
    largest = np.zeros(whole.labels.shape)
    for row, boxes, areas in zip(largest, whole.boxes, whole.areas, strict=True):
        np.maximum.at(row, boxes[:, 0].astype(int), areas)
    return largest


def draw_observed(
    labels: ArrayLike,
    seed: int = DEFAULT_SEED,
    num_positives: int = 1,
    num_negatives: int = 0,
) -> NDArray[np.int8]:
    """Simulates an annotator who marks a few classes of every image.

    The random sequence is that of Cole et al., "Multi-Label Learning from Single Positive Labels"
    (CVPR 2021): one generator for the matrix; row by row the positive indices are shuffled and the
    first are kept, then the negative indices are shuffled and the first of these are kept. The
    second shuffle happens even where no negative is kept, since it moves the generator on. With the
    default arguments and the same matrix the result is the published one.

    Args:
        labels: [N, L] of {1, 0, -1}; only its 1s and 0s are drawn from.
        seed: seed of a fresh `numpy.random.RandomState`.
        num_positives: how many positives an image keeps; rows with fewer keep all of them.
        num_negatives: how many negatives an image keeps.

    Returns:
        int8 [N, L]: 1 and 0 where observed, -1 elsewhere.

    Raises:
        ValueError: invalid labels or a negative count.

    Examples:
        >>> draw_observed([[1, 0, 1, 0], [0, 1, 1, 1]]).tolist()  # one positive of each row
        [[1, -1, -1, -1], [-1, -1, 1, -1]]
        >>> draw_observed([[1, 0, 1, 0]], num_positives=2, num_negatives=1).tolist()
        [[1, 0, 1, -1]]
    """
    matrix = validate_labels(labels)
    if num_positives < 0 or num_negatives < 0:
        raise ValueError("num_positives and num_negatives must be at least 0")
    generator = np.random.RandomState(seed)
    observed = np.full(matrix.shape, UNKNOWN, np.int8)
    for truth, row in zip(matrix, observed, strict=True):
        for value, count in ((POSITIVE, num_positives), (NEGATIVE, num_negatives)):
            candidates = np.flatnonzero(truth == value)
            generator.shuffle(candidates)
            row[candidates[:count]] = value
    return observed


def draw_ranked(
    labels: ArrayLike,
    ranks: ArrayLike,
    seed: int = DEFAULT_SEED,
    num_positives: int = 1,
    num_negatives: int = 0,
) -> NDArray[np.int8]:
    """Simulates an annotator who marks the positives that strike first, not any.

    Args:
        labels: [N, L] of {1, 0, -1}.
        ranks: [N, L] or [L] float; of an image's positives those of highest rank are kept, of
            equal ones any.
        seed: of the negatives, which are those of `draw_observed`, and of equal ranks.
        num_positives: how many positives an image keeps.
        num_negatives: how many negatives an image keeps.

    Returns:
        int8 [N, L]: 1 and 0 where observed, -1 elsewhere.

    Raises:
        ValueError: invalid labels, a negative count, or ranks of another shape.

    Examples:
        >>> draw_ranked([[1, 0, 1], [1, 1, 0]], ranks=[1.0, 2.0, 3.0]).tolist()
        [[-1, -1, 1], [-1, 1, -1]]
    """
    matrix = validate_labels(labels)
    observed = draw_observed(matrix, seed, 0, num_negatives)
    if num_positives < 0:
        raise ValueError("num_positives and num_negatives must be at least 0")
    of_all = np.broadcast_to(np.asarray(ranks, np.float64), matrix.shape)
    equal = np.random.RandomState(seed).random_sample(matrix.shape)
    # The last key counts most: positives first, the highest ranks first among these.
    order = np.lexsort((equal, -of_all, matrix != POSITIVE), axis=1)[:, :num_positives]
    rows = np.arange(len(matrix))[:, None]
    chosen = np.where(matrix[rows, order] == POSITIVE, POSITIVE, observed[rows, order])
    observed[rows, order] = chosen
    return observed


def draw_partial(
    labels: ArrayLike, known_share: float, seed: int = DEFAULT_SEED
) -> NDArray[np.int8]:
    """Keeps each label, positive or negative, with one probability (Durand et al., CVPR 2019).

    Args:
        labels: [N, L] of {1, 0, -1}.
        known_share: probability in [0, 1] with which a label is kept; what a share keeps a larger
            one keeps too.
        seed: seed of a fresh `numpy.random.RandomState`.

    Returns:
        int8 [N, L]: the labels that are kept, -1 elsewhere.

    Raises:
        ValueError: invalid labels, or a share outside [0, 1].

    Examples:
        >>> draw_partial([[1, 0, 1, 0], [0, 1, 1, 1]], known_share=0.5, seed=0).tolist()
        [[-1, -1, -1, -1], [0, -1, 1, -1]]
    """
    if not 0 <= known_share <= 1:
        raise ValueError(f"known_share must be in [0, 1]. Received: {known_share}")
    matrix = validate_labels(labels)
    kept = np.random.RandomState(seed).random_sample(matrix.shape) < known_share
    return np.where(kept, matrix, np.int8(UNKNOWN))


def split_indices(
    n: int, val_fraction: float = 0.2, seed: int = DEFAULT_SEED
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Holds out a part of n images for validation, as Cole et al. (CVPR 2021) do.

    Args:
        n: number of images.
        val_fraction: share held out, in [0, 1); round(val_fraction * n) images.
        seed: seed of a fresh `numpy.random.RandomState`.

    Returns:
        (train, val): two sorted, disjoint int64 arrays that together are 0..n-1.

    Raises:
        ValueError: a negative n or a share outside [0, 1).

    Examples:
        >>> train, val = split_indices(5, val_fraction=0.4)
        >>> train.tolist(), val.tolist()
        ([0, 2, 4], [1, 3])
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, found {n}")
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), found {val_fraction}")
    order = np.random.RandomState(seed).permutation(n).astype(np.int64)
    num_train = n - round(val_fraction * n)
    return np.sort(order[:num_train]), np.sort(order[num_train:])
