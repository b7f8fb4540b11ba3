"""Training batches as `SPMLModel` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

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
    if not isinstance(x, Mapping) or "image" not in x or "index" not in x:
        found = sorted(x) if isinstance(x, Mapping) else type(x).__name__
        raise ValueError(
            'training batches must be ({"image": ..., "index": ..., optionally "box" and "flip"}, '
            f"labels); index is each image's number in [0, num_images). Received: {found}"
        )
    size = tf.shape(x["image"])[0]
    box = tf.cast(x["box"], tf.float32) if "box" in x else warping.whole_image_boxes(size)
    flip = tf.cast(x["flip"], tf.bool) if "flip" in x else tf.zeros([size], tf.bool)
    return x["image"], box, flip, tf.cast(x["index"], tf.int64)
