"""Scores and heatmaps of a network on images, and what its scores are worth.

A model is a network of CAM logits (keras.Model, images -> [B, G, G, L]) or an `SPMLModel`, whose
network is taken. What images may be is told in `spml_tf.evaluation.image_batches`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.evaluation import average_precision
from spml_tf.evaluation.image_batches import Images, batches
from spml_tf.labels import known_counts, unknown_as_negative
from spml_tf.system import replicas


def network_of(model: keras.Model) -> keras.Model:
    """The network of CAM logits of a model.

    Args:
        model: such a network, or an `SPMLModel`.

    Raises:
        ValueError: its output is no [B, G, G, L].
    """
    network = getattr(model, "network", model)
    if len(network.output_shape) != 4:
        raise ValueError(
            f"{network.name}: expected a network of CAM logits [B, G, G, L], its output has the "
            f"shape {network.output_shape}; spml_tf.networks builds such networks"
        )
    return network


def predict_scores(
    model: keras.Model, images: Images, image_size: int | None = None, batch_size: int = 32
) -> NDArray[np.float32]:
    """Scores of whole images.

    Args:
        model: see the module.
        images: N images.
        image_size: side of the network's input in pixels; None: what the network is built for.
        batch_size: images at a time; the batches of a dataset stay as they are.

    Returns:
        [N, L] float32, f = sigmoid(mean of F), in the images' order.

    Raises:
        ValueError: as `network_of` and `image_batches.batches`.
        UserError: an image file cannot be decoded.

    Examples:
        A network whose logits are a pixel's red and green, of two photos of 2 x 2 pixels:

        >>> import keras, numpy as np
        >>> from spml_tf.evaluation import predictions
        >>> image = keras.Input((2, 2, 3))
        >>> network = keras.Model(image, image[..., :2] / 51 - 2)
        >>> photos = np.zeros((2, 2, 2, 3), np.uint8)
        >>> photos[0, ..., 0], photos[1, 0, 0, 1] = 255, 204
        >>> predictions.predict_scores(network, photos).round(3)  # sigmoid of 3, -2, -2, -1
        array([[0.953, 0.119],
               [0.119, 0.269]], dtype=float32)
    """
    return Scorer(model, image_size)(images, batch_size)


class Scorer:
    """`predict_scores` of one network, which is traced once for all images.

    Args:
        model: see the module.
        image_size: as for `predict_scores`.
        logits: whether the mean of F over cells is wanted. The sigmoid of a logit above 17 is 1 in
            float32, so that the classes of an image tie; the logits keep their order.

    Attributes:
        classes: L.

    Raises:
        ValueError: as `network_of`.
    """

    def __init__(
        self, model: keras.Model, image_size: int | None = None, logits: bool = False
    ) -> None:
        network = network_of(model)
        self.classes: int = network.output_shape[-1]
        self._size = network.input_shape[1] if image_size is None else image_size
        inputs = keras.Input((self._size, self._size, 3))
        head = _pooled if logits else _scores
        self._predict = on_all_devices(keras.Model(inputs, head(network(inputs))))

    def __call__(self, images: Images, batch_size: int = 32) -> NDArray[np.float32]:
        """[N, L] float32 of N images; args and raises as for `predict_scores`."""
        return self.with_rows(images, batch_size)[0]

    def with_rows(
        self, images: Images, batch_size: int = 32
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `score_rows`."""
        scores: list[NDArray[np.float32]] = []
        rows: list[int] = []
        for batch in batches(images, self._size, batch_size):
            scores.append(self._predict(batch.image))
            rows.extend(batch.rows(len(rows)))
        return np.concatenate(scores), np.array(rows, np.int64)

    def by_workers(self, images: Examples, batch_size: int = 32) -> NDArray[np.float32]:
        """The same, of which each of several workers predicts its own images; all must call it.

        Returns:
            [N, L] float32, of all images on every worker.
        """
        shard = replicas.this_shard()
        if shard.workers == 1:
            return self(images, batch_size)
        own = shard.own(range(len(images)))
        found = np.zeros((0, self.classes), np.float32)
        if len(own):
            found = self(images.subset(own), batch_size)
        return replicas.rows_of_workers(found, len(images))


def score_rows(
    model: keras.Model, images: Images, image_size: int | None = None, batch_size: int = 32
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores of whole images and which images they are.

    Args and raises: as for `predict_scores`.

    Returns:
        scores: [N, L] float32, in the order in which images come.
        rows: [N] int64, what a dataset's batches say under "index", else 0..N-1.
    """
    return Scorer(model, image_size).with_rows(images, batch_size)


def predict_peaks(
    model: keras.Model, images: Images, image_size: int | None = None, batch_size: int = 32
) -> NDArray[np.float64]:
    """Where each class's map of the whole image is highest.

    Args and raises: as for `predict_scores`.

    Returns:
        [N, L, 2] float64 of (y, x) in [0, 1]: the centre of the cell where F is highest, of several
        the first in reading order.
    """
    peaks = []
    for maps in predict_maps(model, images, image_size, batch_size):
        height, width, classes = maps.shape
        cells = maps.reshape(height * width, classes).argmax(axis=0)
        rows, columns = np.divmod(cells, width)
        peaks.append(np.stack([(rows + 0.5) / height, (columns + 0.5) / width], axis=-1))
    return np.stack(peaks)


def predict_maps(
    model: keras.Model, images: Images, image_size: int | None = None, batch_size: int = 32
) -> Iterator[NDArray[np.float32]]:
    """Class activation maps of whole images, one after the other.

    Args and raises: as for `predict_scores`.

    Yields:
        [G, G, L] float32, the logits F, in the images' order.
    """
    network = network_of(model)
    size = network.input_shape[1] if image_size is None else image_size
    predict = on_all_devices(network)
    for batch in batches(images, size, batch_size):
        yield from predict(batch.image)


def _scores(maps: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.sigmoid(_pooled(maps))


def _pooled(maps: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.mean(maps, axis=(1, 2))


def on_all_devices(network: keras.Model) -> Callable[[Any], NDArray[np.float32]]:
    """A function from images [B, S, S, 3] to outputs that splits them over a process' devices."""
    strategy = network.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        shape = tf.TensorSpec([None, *network.input_shape[1:]])  # one trace for all batches
        whole = tf.function(
            lambda batch: network(batch, training=False), input_signature=[shape], autograph=False
        )
        # TensorFlow warns of functions that are made and called often, not of concrete ones.
        return functools.partial(_predict_with, network, whole.get_concrete_function())
    with strategy.scope():
        devices = replicas.devices()

    def forward(pieces: Any) -> Any:
        return strategy.run(lambda piece: network(piece, training=False), args=(pieces,))

    run = tf.function(forward, reduce_retracing=True, autograph=False)

    def predict(images: Any) -> NDArray[np.float32]:
        size = -(-len(images) // devices)
        images = np.asarray(images)
        # Every device has as many; the last image is repeated where there are too few.
        rows = np.minimum(np.arange(size * devices), len(images) - 1).reshape(devices, size)
        pieces = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(images[rows[context.replica_id_in_sync_group % devices]])
        )
        outputs = strategy.experimental_local_results(run(pieces))
        return np.concatenate([output.numpy() for output in outputs])[: len(images)]

    return predict


def _predict_with(
    network: keras.Model, function: Callable[[tf.Tensor], tf.Tensor], images: Any
) -> NDArray[np.float32]:
    """What a concrete function of a network returns; it does not keep the network's variables."""
    return np.asarray(function(tf.cast(images, tf.float32)))


def score_report(
    labels: ArrayLike,
    scores: ArrayLike,
    class_names: tuple[str, ...],
    absent_classes: str = "skip",
    unknown_counts_as: str = "nothing",
) -> dict[str, Any]:
    """Mean and per-class average precision, in percent, and of how many labels.

    Args:
        labels: [N, L]; 1 is a positive, -1 unknown, every other value a negative.
        scores: [N, L] float.
        class_names: L names.
        absent_classes: "skip" or "zero", see `average_precision.mean_average_precision`.
        unknown_counts_as: "nothing" or "negative", see `average_precision.average_precision`.

    Returns:
        {"map": float or None, "ap": {class: float or None}, "absent_classes": [names], "known":
        {class: {"positives", "negatives", "unknown"}}, "unknown_as_negative": [names]}; None stands
        for a class without positives, "known" counts labels, and "unknown_as_negative" names the
        classes whose unknown labels count as negatives, see `labels.unknown_as_negative`.
    """
    labels = np.asarray(labels)
    precisions = average_precision.average_precision(labels, scores, unknown_counts_as)
    mean = 100.0 * average_precision.mean_of_classes(precisions, absent_classes)
    counts = known_counts(labels)
    misleading = unknown_as_negative(labels, unknown_counts_as)
    named = dict(zip(class_names, (_number(100.0 * x) for x in precisions), strict=True))
    absent = [name for name, value in named.items() if value is None]
    return {
        "map": _number(mean), "ap": named, "absent_classes": absent,
        "known": dict(zip(class_names, counts, strict=True)),
        "unknown_as_negative": [x for x, bad in zip(class_names, misleading, strict=True) if bad],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
