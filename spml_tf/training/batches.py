"""Training batches as `SPMLModel` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks import warping


def unpack(x: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The parts of a training batch; without box or flip its images are whole.

    Args:
        x: dict of "image" [B, S, S, 3], "index" [B], and perhaps "box" [B, 4] and "flip" [B].

    Returns:
        image, box [B, 4] float32, flip [B] bool, index [B] int64.

    Raises:
        ValueError: where image or index is missing.
    """
    reason = missing_inputs(x)
    if reason:
        raise ValueError(reason)
    size = tf.shape(x["image"])[0]
    box = tf.cast(x["box"], tf.float32) if "box" in x else warping.whole_image_boxes(size)
    flip = tf.cast(x["flip"], tf.bool) if "flip" in x else tf.zeros([size], tf.bool)
    return x["image"], box, flip, tf.cast(x["index"], tf.int64)


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
    if isinstance(x, Mapping) and "image" in x and "index" in x:
        return None
    found = sorted(x) if isinstance(x, Mapping) else type(x).__name__
    return (
        'training batches must be ({"image": ..., "index": ..., optionally "box" and "flip"}, '
        f"labels); index is each image's number in [0, num_images). Received: {found}"
    )
