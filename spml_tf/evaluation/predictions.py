"""Scores of a network on a split, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.datasets import pipeline
from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import metrics


def predict_scores(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> NDArray[np.float32]:
    """Scores of whole images.

    Args:
        network: images -> CAM logits [B, G, G, L].
        examples: N images.
        image_size: side of the network's input in pixels.
        batch_size: images at a time.

    Returns:
        [N, L] float32, f = sigmoid(mean of F), in the images' order.
    """
    inputs, maps = _connected(network, image_size)
    scorer = keras.Model(inputs, keras.ops.sigmoid(keras.ops.mean(maps, axis=(1, 2))))
    return _predicted(scorer, examples, image_size, batch_size)


def predict_logits(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> NDArray[np.float32]:
    """Logits of whole images.

    The sigmoid of a logit above 17 is 1 in float32, so that the classes of an image tie; the logits
    keep their order.

    Args:
        network, examples, image_size, batch_size: as for `predict_scores`.

    Returns:
        [N, L] float32, the mean of F over cells, in the images' order.
    """
    inputs, maps = _connected(network, image_size)
    pooled = keras.Model(inputs, keras.ops.mean(maps, axis=(1, 2)))
    return _predicted(pooled, examples, image_size, batch_size)


def predict_peaks(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> NDArray[np.float64]:
    """Where each class's map of the whole image is highest.

    Args:
        network, examples, image_size, batch_size: as for `predict_scores`.

    Returns:
        [N, L, 2] float64 of (y, x) in [0, 1]: the centre of the cell where F is highest, of several
        the first in reading order.
    """
    inputs, maps = _connected(network, image_size)
    _, height, width, classes = maps.shape
    flat = keras.ops.reshape(maps, (-1, height * width, classes))
    highest = keras.Model(inputs, keras.ops.argmax(flat, axis=1))
    cells = _predicted(highest, examples, image_size, batch_size).astype(np.int64)
    rows, columns = np.divmod(cells, width)
    return np.stack([(rows + 0.5) / height, (columns + 0.5) / width], axis=-1)


def predict_maps(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> Iterator[NDArray[np.float32]]:
    """Class activation maps of whole images, one after the other.

    Args:
        network, examples, image_size, batch_size: as for `predict_scores`.

    Yields:
        [G, G, L] float32, the logits F, in the images' order.

    Raises:
        UserError: an image cannot be decoded.
    """
    with pipeline.naming_broken_images(examples):
        for images in _images(examples, image_size, batch_size):
            yield from network.predict_on_batch(images)


def _connected(
    network: keras.Model, image_size: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = keras.Input((image_size, image_size, 3))
    return inputs, network(inputs)


def _predicted(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int
) -> NDArray[Any]:
    found: NDArray[Any] = network.predict(_images(examples, image_size, batch_size), verbose=0)
    return found


def _images(examples: Examples, image_size: int, batch_size: int) -> tf.data.Dataset:
    data = pipeline.evaluation_dataset(
        examples, examples.labels, image_size=image_size, batch_size=batch_size
    )
    return data.map(lambda x, y: x["image"])


def score_report(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    class_names: tuple[str, ...],
    absent_classes: str = "skip",
) -> dict[str, Any]:
    """Mean and per-class average precision, in percent.

    Args:
        labels: [N, L]; 1 is a positive, every other value a negative.
        scores: [N, L] float.
        class_names: L names.
        absent_classes: "skip" or "zero", see `metrics.mean_average_precision`.

    Returns:
        {"map": float or None, "ap": {class: float or None}, "absent_classes": [names]}; None
        stands for a class without positives.
    """
    precisions = 100.0 * metrics.average_precision(labels, scores)
    mean = 100.0 * metrics.mean_average_precision(labels, scores, absent_classes)
    named = dict(zip(class_names, (_number(x) for x in precisions), strict=True))
    absent = [name for name, value in named.items() if value is None]
    return {"map": _number(mean), "ap": named, "absent_classes": absent}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
