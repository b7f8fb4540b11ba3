"""Training batches as `SPMLModel` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks import warping
from spml_tf.labels import STAND_IN
from spml_tf.system import replicas

# What may stand for images in a batch: what the backbone makes of them, the input of the head.
FEATURES = "features"


def unpack(x: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What a training batch says of its images beside them; without box or flip they are whole.

    Args:
        x: dict of "image" [B, S, S, 3] or "features" [B, G, G, C], "index" [B], and perhaps "box"
            [B, 4] and "flip" [B].

    Returns:
        box [B, 4] float32, flip [B] bool, index [B] int64.

    Raises:
        ValueError: where image or index is missing.
    """
    reason = missing_inputs(x)
    if reason:
        raise ValueError(reason)
    size = tf.shape(x["index"])[0]
    box = tf.cast(x["box"], tf.float32) if "box" in x else warping.whole_image_boxes(size)
    flip = tf.cast(x["flip"], tf.bool) if "flip" in x else tf.zeros([size], tf.bool)
    return box, flip, tf.cast(x["index"], tf.int64)


def dealt(data: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Batches of a dataset, dealt out to the replicas of a strategy.

    Of several workers each takes, of every batch, the images whose index modulo the workers is its
    number; without an index, every n-th image. Within a worker each replica takes as many, give or
    take one.

    Args:
        data: of `(x, y)` or `(x, y, sample_weight)`, of the same order on all workers.
        strategy: with several replicas.

    Returns:
        `tf.distribute.DistributedDataset`, one element a batch, again and again. Where a replica
        has no image the first one stands in, with STAND_IN as its labels.
    """
    with strategy.scope():
        (worker, workers), devices = replicas.this_shard(), replicas.devices()

    def pieces(*batch: Any) -> tf.data.Dataset:
        x, y, *weight = batch if len(batch) > 1 else batch[0]
        y = y if y.dtype.is_floating else tf.cast(y, tf.int8)
        size = tf.shape(y, tf.int64)[0]
        index = x.get("index") if isinstance(x, Mapping) else None
        number = tf.range(size) if index is None else tf.cast(index, tf.int64)
        own = tf.where(number % workers == worker)[:, 0]

        def piece(device: tf.Tensor) -> Any:
            rows = own[device::devices]
            none = tf.size(rows) == 0
            rows = tf.cond(none, lambda: tf.zeros([1], tf.int64), lambda: rows)
            found = tf.nest.map_structure(lambda value: tf.gather(value, rows), (x, y, *weight))
            labels = tf.where(none, tf.constant(STAND_IN, y.dtype), found[1])
            return (found[0], labels, *found[2:])

        return tf.data.Dataset.range(devices).map(piece)

    def of_worker(context: Any) -> tf.data.Dataset:
        return data.repeat().flat_map(pieces).prefetch(2 * devices)

    return strategy.distribute_datasets_from_function(of_worker)


def without_stand_ins(labels: tf.Tensor, *tensors: Any) -> tuple[Any, ...]:
    """The rows of a batch that are images of it; tensors [B, ...] or None.

    Args:
        labels: [B, L], STAND_IN in the row of an image that only stands in.
        tensors: rows to keep along with them.
    """
    if replicas.count() == 1:
        return labels, *tensors
    real = labels[:, 0] != tf.constant(STAND_IN, labels.dtype)
    return tuple(None if x is None else tf.boolean_mask(x, real) for x in (labels, *tensors))


def label_weights(
    sample_weight: Any, class_factors: NDArray[np.float32] | None, labels: tf.Tensor
) -> tf.Tensor | None:
    """Factors of the terms of each label.

    Args:
        sample_weight: [B], [B, 1] or [B, L] float, or None.
        class_factors: [L] float, or None.
        labels: [B, L].

    Returns:
        [B, L] float32, the product of both; None where there are neither.
    """
    if sample_weight is None and class_factors is None:
        return None
    weight = tf.ones(tf.shape(labels), tf.float32)
    if sample_weight is not None:
        given = tf.cast(sample_weight, tf.float32)
        weight *= given[:, None] if given.shape.rank == 1 else given
    return weight if class_factors is None else weight * class_factors


def class_factors(class_weight: Any, num_classes: int) -> NDArray[np.float32] | None:
    """The `class_weight` of `fit` as an array.

    Args:
        class_weight: dict from class to factor, 1 for those it lacks; or None.
        num_classes: L.

    Returns:
        [L] float32, or None.

    Raises:
        ValueError: for what is no such dict.

    Examples:
        >>> class_factors({1: 2.5}, 3).tolist()
        [1.0, 2.5, 1.0]
    """
    if class_weight is None:
        return None
    if not isinstance(class_weight, Mapping) or not set(class_weight) <= set(range(num_classes)):
        raise ValueError(
            f"class_weight must be a dict from classes 0 to {num_classes - 1} to numbers. "
            f"Received: {class_weight}"
        )
    return np.array([class_weight.get(x, 1.0) for x in range(num_classes)], np.float32)


def missing_inputs(x: Any) -> str | None:
    """Why `x` is no training batch; None where it is one."""
    if isinstance(x, Mapping) and ("image" in x) != (FEATURES in x) and "index" in x:
        return None
    found = sorted(x) if isinstance(x, Mapping) else type(x).__name__
    return (
        'training batches must be ({"image": ..., "index": ..., optionally "box" and "flip"}, '
        f"labels); index is each image's number in [0, num_images). Received: {found}"
    )
