"""Training batches as `SPMLModel` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from spml_tf.banks import warping
from spml_tf.labels import GIVEN, GIVEN_TEXT, STAND_IN
from spml_tf.system import replicas
from spml_tf.system.tensor_checks import codes_of

# What may stand for images in a batch: what the backbone makes of them, the input of the head.
FEATURES = "features"
# What messages say of labels.
MUST_BE = f"must be {GIVEN_TEXT}; soft labels are not taken. Received:"


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


def checked_labels(y: Any) -> tf.Tensor:
    """A batch's labels, looked at wherever the graph computes them.

    Args:
        y: [B, L] in {1, 0, -1}, of any type.

    Returns:
        int8 [B, L].

    Raises:
        tf.errors.InvalidArgumentError: as they are computed, for other values; not in a function
            that XLA compiles.
    """
    return codes_of(y, GIVEN, f"labels {MUST_BE}")


def labels_of_step(y: Any, num_classes: int) -> tf.Tensor:
    """`checked_labels` of a known L, whatever the pipeline says of their shape.

    On one of several replicas some may be those of an image that stands in.
    """
    known = GIVEN if replicas.count() == 1 else (*GIVEN, STAND_IN)
    return tf.ensure_shape(codes_of(y, known, f"labels {MUST_BE}"), [None, num_classes])


def missing_inputs(x: Any) -> str | None:
    """Why `x` is no training batch; None where it is one."""
    if isinstance(x, Mapping) and ("image" in x) != (FEATURES in x) and "index" in x:
        return None
    found = sorted(x) if isinstance(x, Mapping) else type(x).__name__
    return (
        'training batches must be ({"image": ..., "index": ..., optionally "box" and "flip"}, '
        f"labels); index is each image's number in [0, num_images). Received: {found}"
    )
