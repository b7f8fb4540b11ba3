"""Labels a data set is probably missing, or has wrong, by the scores of a model.

Labels are [N, L] (images by classes): 1 is a positive, 0 a negative, -1 unknown. Models and images
are what `spml_tf.evaluation.predictions` and `image_batches` take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.special import expit

from spml_tf.evaluation import predictions
from spml_tf.evaluation.image_batches import Images, chosen
from spml_tf.labels import POSITIVE, UNKNOWN, validate_labels

# A heatmap's box is drawn around what reaches this part of the peak's value.
_PART_OF_PEAK = 0.5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A label to look at.

    Attributes:
        image: row of the image.
        label: column of the class.
        score: of the class for the image, in [0, 1].
        epochs_selected: for how many epochs it was an expected positive, None where not counted.
        name: the image's name, where names are given.
        class_name: the class's, where class names are given.
    """

    image: int
    label: int
    score: float
    epochs_selected: int | None = None
    name: str = ""
    class_name: str = ""


# What a heatmap shows: its peak (y, x) and the box (y1, x1, y2, x2) around it, in [0, 1].
Region = tuple[tuple[float, float], tuple[float, float, float, float]]


def find_missing_labels(
    model: keras.Model,
    images: Images | None,
    labels: ArrayLike,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    *,
    index: ArrayLike | None = None,
    most: int | None = None,
    image_size: int | None = None,
    batch_size: int = 32,
) -> list[Candidate]:
    """Unknown labels, the one that is most probably positive first.

    The scores are those of the network for whole images; of an `SPMLModel` with a score bank that
    is told the images' rows, the running averages over its training (eq. 4 of Verelst et al., WACV
    2023), which change less from epoch to epoch. An image that was never trained on is left out.

    Args:
        model: a network of CAM logits or an `SPMLModel`.
        images: N images; may be None where `index` is given. Batches of a dataset that carry
            "index" may come in any order.
        labels: [N, L] in {1, 0, -1}, the labels known.
        class_names: L names, or None.
        names: N names of images, or None.
        index: integers [N], the images' rows in the model's score bank; None: the scores of the
            network.
        most: at most so many.
        image_size: side of the network's input in pixels; None: what the network is built for.
        batch_size: images at a time.

    Returns:
        The candidates, best first; ties as in `rank_missing`.

    Raises:
        ValueError: parts that do not fit together, `index` for a model without a score bank, or as
            `predictions.predict_scores`.
        UserError: an image file cannot be decoded.

    Examples:
        The network of `predictions.predict_scores`; nobody said that the first photo is red:

        >>> import keras, numpy as np
        >>> from spml_tf.evaluation.missing_labels import find_missing_labels
        >>> image = keras.Input((2, 2, 3))
        >>> network = keras.Model(image, image[..., :2] / 51 - 2)
        >>> photos = np.zeros((2, 2, 2, 3), np.uint8)
        >>> photos[0, ..., 0], photos[1, ..., 1] = 255, 255
        >>> labels = [[-1, -1], [-1, 1]]
        >>> best, *others = find_missing_labels(network, photos, labels, ["red", "green"])
        >>> best.image, best.class_name, round(best.score, 3)
        (0, 'red', 0.953)
        >>> [(x.image, x.class_name) for x in others]
        [(0, 'green'), (1, 'red')]
    """
    known = _checked(labels, names, class_names)
    scores = label_scores(model, images, known.shape, index, image_size, batch_size)
    times = epochs_selected(model, index)
    return _named(rank_missing(scores, known, times, most), names, class_names)


def find_wrong_labels(
    model: keras.Model,
    images: Images | None,
    labels: ArrayLike,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    *,
    index: ArrayLike | None = None,
    most: int | None = None,
    image_size: int | None = None,
    batch_size: int = 32,
) -> list[Candidate]:
    """Annotated positives, the one of lowest score first.

    Args and raises: as for `find_missing_labels`.

    Examples:
        >>> import keras, numpy as np
        >>> from spml_tf.evaluation.missing_labels import find_wrong_labels
        >>> image = keras.Input((2, 2, 3))
        >>> network = keras.Model(image, image[..., :2] / 51 - 2)
        >>> black = np.zeros((1, 2, 2, 3), np.uint8)
        >>> [(x.class_name, round(x.score, 3)) for x in find_wrong_labels(
        ...     network, black, [[1, -1]], ["red", "green"])]
        [('red', 0.119)]
    """
    known = _checked(labels, names, class_names)
    scores = label_scores(model, images, known.shape, index, image_size, batch_size)
    return _named(rank_wrong(scores, known, most), names, class_names)


def label_scores(
    model: keras.Model,
    images: Images | None,
    shape: tuple[int, int],
    index: ArrayLike | None = None,
    image_size: int | None = None,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """The scores that `find_missing_labels` ranks, [N, L] float32, NaN where there is none.

    Args:
        model: as there.
        images: as there.
        index: as there.
        image_size: as there.
        batch_size: as there.
        shape: (N, L).

    Raises:
        ValueError: as there.
        UserError: as there.
    """
    count, classes = shape
    found = predictions.network_of(model).output_shape[-1]
    if found != classes:
        raise ValueError(f"labels of {classes} classes, the network has {found}")
    if index is not None:
        return _running_averages(model, _checked_rows(index, count))
    if images is None:
        raise ValueError("images are missing: only a score bank with index does without")
    scores, rows = predictions.score_rows(model, images, image_size, batch_size)
    if len(scores) > count or rows.max() >= count or rows.min() < 0:
        most = max(len(scores), int(rows.max()) + 1)
        raise ValueError(f"labels of {count} images, but there are {most} images")
    if len(np.unique(rows)) < len(rows):
        raise ValueError("an index occurs twice in the dataset; give every image once, whole")
    if len(scores) < count:
        raise ValueError(f"labels of {count} images, but there are {len(scores)} images")
    placed = np.empty(shape, np.float32)
    placed[rows] = scores
    return placed


def _running_averages(model: keras.Model, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    bank = getattr(model, "ema_scores", None)
    if bank is None:
        raise ValueError(
            "index: the model has no score bank; train with keep_scores=True, or leave index out "
            "and give images"
        )
    if rows.max() >= bank.num_images or rows.min() < 0:
        raise ValueError(f"index: must lie in 0..{bank.num_images - 1}, the score bank's images")
    averages, visited = bank.read(rows)
    return np.where(np.asarray(visited)[:, None], np.asarray(averages), np.float32("nan"))


def epochs_selected(model: keras.Model, index: ArrayLike | None) -> NDArray[np.uint8] | None:
    """For how many epochs labels were expected positives, as far as a model counts that.

    Args:
        model: as for `find_missing_labels`.
        index: as for `find_missing_labels`.

    Returns:
        [N, L] uint8, or None without `index` or where nothing was counted.
    """
    counted = getattr(getattr(model, "label_store", None), "epochs_selected", None)
    if index is None or counted is None:
        return None
    found: NDArray[np.uint8] = np.asarray(counted)[np.asarray(index)]
    return found


def _checked_rows(index: ArrayLike, count: int) -> NDArray[np.int64]:
    if not count:
        raise ValueError("labels: of no image; give those of at least one")
    rows = np.asarray(index)
    if rows.shape != (count,) or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"index: expected {count} integers, one an image; found {rows.dtype} {rows.shape}"
        )
    return rows.astype(np.int64)


def _checked(
    labels: ArrayLike, names: Sequence[str] | None, class_names: Sequence[str] | None
) -> NDArray[np.int8]:
    """The labels, if the names fit them."""
    known = validate_labels(labels)
    for what, given, count in (
        ("names of images", names, known.shape[0]),
        ("class names", class_names, known.shape[1]),
    ):
        if given is not None and len(given) != count:
            raise ValueError(f"{len(given)} {what}, the labels have the shape {known.shape}")
    return known


def _named(
    found: Sequence[Candidate], names: Sequence[str] | None, class_names: Sequence[str] | None
) -> list[Candidate]:
    return [
        dataclasses.replace(
            x,
            name=names[x.image] if names is not None else "",
            class_name=class_names[x.label] if class_names is not None else "",
        )
        for x in found
    ]


def rank_missing(
    scores: NDArray[Any],
    observed: NDArray[np.int8],
    epochs_selected: NDArray[Any] | None = None,
    limit: int | None = None,
) -> list[Candidate]:
    """Unknown labels, the one that is most probably positive first.

    All classes are ranked together by score. Of equal scores the one that was selected for more
    epochs comes first, then the earlier image.

    Args:
        scores: float [N, L] in [0, 1], running averages or of any classifier; NaN leaves a label
            out.
        observed: int8 [N, L] in {1, 0, -1}, the labels trained on.
        epochs_selected: integers [N, L], or None.
        limit: at most so many.

    Returns:
        The candidates.
    """
    return _ranked(-scores, scores, observed == UNKNOWN, epochs_selected, limit)


def rank_wrong(
    scores: NDArray[Any], observed: NDArray[np.int8], limit: int | None = None
) -> list[Candidate]:
    """Annotated positives, the one of lowest score first. Arguments as for `rank_missing`."""
    return _ranked(scores, scores, observed == POSITIVE, None, limit)


def _ranked(
    order: NDArray[Any],
    scores: NDArray[Any],
    among: NDArray[np.bool_],
    epochs_selected: NDArray[Any] | None,
    limit: int | None,
) -> list[Candidate]:
    images, labels = np.nonzero(among & ~np.isnan(scores))
    cells = images, labels
    times = None if epochs_selected is None else epochs_selected[cells].astype(np.int64)
    keys = (order[cells],) if times is None else (-times, order[cells])
    return [
        Candidate(
            int(images[i]),
            int(labels[i]),
            float(scores[images[i], labels[i]]),
            None if times is None else int(times[i]),
        )
        for i in np.lexsort(keys)[:limit]
    ]


def precision_at(
    candidates: Sequence[Candidate], truth: NDArray[np.int8], cutoffs: Sequence[int]
) -> dict[int, float]:
    """Shares of missing labels among the first candidates.

    Args:
        candidates: of `rank_missing`.
        truth: int8 [N, L], the full labels.
        cutoffs: how many candidates count; cutoffs beyond their number are left out.

    Returns:
        By cutoff, the share of positives among the first candidates, in percent.
    """
    right = np.array([truth[x.image, x.label] == POSITIVE for x in candidates], np.float64)
    return {k: 100.0 * float(right[:k].mean()) for k in cutoffs if 0 < k <= len(right)}


def labels_by_image(candidates: Sequence[Candidate]) -> dict[int, list[int]]:
    """The candidates' classes by image, in the order of first appearance."""
    found: dict[int, list[int]] = {}
    for x in candidates:
        found.setdefault(x.image, []).append(x.label)
    return found


def peak_regions(
    model: keras.Model,
    images: Images,
    candidates: Sequence[Candidate],
    image_size: int | None = None,
    batch_size: int = 32,
) -> list[Region]:
    """Where the network sees each candidate: peak and box of its heatmap, see `peak_region`.

    Args and raises: as for `find_missing_labels`.

    Examples:
        >>> import keras, numpy as np
        >>> from spml_tf.evaluation.missing_labels import Candidate, peak_regions
        >>> image = keras.Input((2, 2, 3))
        >>> network = keras.Model(image, image[..., :2] / 51 - 2)
        >>> photos = np.zeros((1, 2, 2, 3), np.uint8)
        >>> photos[0, 1, 0, 0] = 255  # red at the lower left
        >>> peak_regions(network, photos, [Candidate(image=0, label=0, score=0.3)])
        [((0.75, 0.25), (0.5, 0.0, 1.0, 0.5))]
    """
    classes = labels_by_image(candidates)
    if not classes:
        return []
    maps = predictions.predict_maps(model, chosen(images, list(classes)), image_size, batch_size)
    by_cell = {}
    for (row, labels), logits in zip(classes.items(), maps, strict=True):
        for label in labels:
            by_cell[row, label] = peak_region(expit(logits[..., label].astype(np.float64)))
    return [by_cell[x.image, x.label] for x in candidates]


def peak_region(heatmap: NDArray[Any]) -> Region:
    """Where a heatmap is highest, and the box around what belongs to that peak.

    Args:
        heatmap: float [H, W] in [0, 1], sigmoid(F) of a class.

    Returns:
        peak: (y, x) in [0, 1] of the whole image, the centre of the highest cell, of several the
            first in reading order.
        box: (y1, x1, y2, x2) in [0, 1], around the cells of at least half the peak's value that
            are connected with the peak over sides or corners.
    """
    height, width = heatmap.shape
    y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
    high = heatmap >= _PART_OF_PEAK * heatmap[y, x]
    parts, _ = ndimage.label(high, structure=np.ones((3, 3), bool))
    rows, columns = ndimage.find_objects(parts)[parts[y, x] - 1]
    peak = float((y + 0.5) / height), float((x + 0.5) / width)
    box = rows.start / height, columns.start / width, rows.stop / height, columns.stop / width
    return peak, box
