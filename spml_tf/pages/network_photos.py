"""Photos for a report: what a network scores them, and its heatmaps."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from spml_tf.datasets import encoded_images, stored_pixels
from spml_tf.datasets.readers import Examples
from spml_tf.drawing.contact_sheet import reduced
from spml_tf.evaluation import predictions
from spml_tf.labels import POSITIVE
from spml_tf.pages.html_page import photo_uri, quantised
from spml_tf.pages.report_photos import ShownPhoto

_SIDE = 384
# The heatmaps of all classes are kept up to this number, beyond it those of the highest scores.
_ALL_CLASSES, _HIGHEST = 100, 20


def photos(
    model: keras.Model,
    examples: Examples,
    image_size: int | None = None,
    batch_size: int = 32,
    classes: Sequence[Sequence[int]] | None = None,
) -> list[ShownPhoto]:
    """Prepares photos with their heatmaps.

    Args:
        model: a network of CAM logits or an `SPMLModel`.
        examples: N images.
        image_size: side of the network's input in pixels; None: what the network is built for.
        batch_size: images at a time.
        classes: of each image those whose heatmaps are kept; None keeps all, or where the data set
            has more than 100 the labelled ones and the 20 of highest score.

    Returns:
        N photos of at most 384 pixels a side.

    Raises:
        UserError: an image cannot be decoded.
    """
    if not len(examples):
        return []
    found: list[ShownPhoto] = []
    examples = stored_pixels.with_upright_boxes(examples)
    reader = encoded_images.ImageReader(examples)
    maps = predictions.predict_maps(model, examples, image_size, batch_size)
    for row, logits in enumerate(maps):
        scores = expit(logits.mean(axis=(0, 1)))
        kept = classes[row] if classes else _kept(examples.labels[row], scores)
        found.append(_photo(reader, examples, row, scores, expit(logits), kept))
    return found


def _kept(labels: NDArray[np.int8], scores: NDArray[np.float32]) -> list[int]:
    if len(scores) <= _ALL_CLASSES:
        return list(range(len(scores)))
    highest = np.argsort(-scores, kind="stable")[:_HIGHEST]
    return [int(x) for x in np.union1d(highest, np.flatnonzero(labels == POSITIVE))]


def _photo(
    reader: encoded_images.ImageReader,
    examples: Examples,
    row: int,
    scores: NDArray[np.float32],
    maps: NDArray[np.float32],
    kept: Sequence[int],
) -> ShownPhoto:
    image = reduced(reader.pixels(row), _SIDE)
    boxes = () if examples.boxes is None else examples.boxes[row].tolist()
    return ShownPhoto(
        name=examples.names[row],
        uri=photo_uri(image, _SIDE),
        size=image.shape[:2],
        grid=maps.shape[:2],
        classes=tuple(kept),
        maps=quantised(np.moveaxis(maps[..., kept], -1, 0)),
        scores=tuple(scores.tolist()),
        labelled=tuple(np.flatnonzero(examples.labels[row] == POSITIVE).tolist()),
        boxes=tuple(map(tuple, boxes)),
    )
