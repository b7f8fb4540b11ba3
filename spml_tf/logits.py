"""Logits of a network on a split, where float32's sigmoid would make ties at 1."""

from __future__ import annotations

import keras
import numpy as np

from spml_tf import pipeline
from spml_tf.readers import Examples


def predict_logits(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> np.ndarray:
    """Logits of whole images.

    The sigmoid of a logit above 17 is 1 in float32, so that the classes of an image tie; the logits
    keep their order.

    Args:
        network: images -> CAM logits F, [B, G, G, L].
        examples: N images.
        image_size: side of the network's input in pixels.
        batch_size: images at a time.

    Returns:
        [N, L] float32, the mean of F over cells, in the images' order.
    """
    inputs, maps = _connected(network, image_size)
    pooled = keras.Model(inputs, keras.ops.mean(maps, axis=(1, 2)))
    return _predict(pooled, examples, image_size, batch_size)


def predict_peaks(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> np.ndarray:
    """Where each class's map of the whole image is highest.

    Args:
        network, examples, image_size, batch_size: as for `predict_logits`.

    Returns:
        [N, L, 2] float64 of (y, x) in [0, 1]: the centre of the cell where F is highest, of several
        the first in reading order.
    """
    inputs, maps = _connected(network, image_size)
    _, height, width, classes = maps.shape
    flat = keras.ops.reshape(maps, (-1, height * width, classes))
    highest = keras.Model(inputs, keras.ops.argmax(flat, axis=1))
    cells = _predict(highest, examples, image_size, batch_size).astype(np.int64)
    rows, columns = np.divmod(cells, width)
    return np.stack([(rows + 0.5) / height, (columns + 0.5) / width], axis=-1)


def _connected(
    network: keras.Model, image_size: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = keras.Input((image_size, image_size, 3))
    return inputs, network(inputs)


def _predict(
    model: keras.Model, examples: Examples, image_size: int, batch_size: int
) -> np.ndarray:
    data = pipeline.evaluation_dataset(
        examples, examples.labels, image_size=image_size, batch_size=batch_size
    )
    with pipeline.naming_broken_images(examples):
        return model.predict(data.map(lambda x, y: x["image"]), verbose=0)
