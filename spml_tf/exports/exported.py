"""What every format of an export holds: the network, and what is said of its maps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.networks.batch_norm_folding import folded


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """A network for inference, with its classes.

    Attributes:
        network: images [B, S, S, 3] float32 in 0..255 -> CAM logits [B, G, G, L], its batch
            normalisation folded.
        image_size: S, side of the network's input in pixels.
        class_names: L names.
        thresholds: [L] float64; probability >= threshold decides for a class.
        max_megapixels: the most pixels, in millions, of a photo file.
    """

    network: keras.Model
    image_size: int
    class_names: tuple[str, ...]
    thresholds: NDArray[np.float64]
    max_megapixels: float

    @property
    def input_shape(self) -> tuple[None, int, int, int]:
        """Of the network, the batch first."""
        return None, self.image_size, self.image_size, 3

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """The network's maps [B, G, G, L] of images that have its size."""
        return self.network(images, training=False)

    def outputs(self, maps: tf.Tensor) -> dict[str, tf.Tensor]:
        """What is said of maps.

        Args:
            maps: [B, G, G, L] float32 logits.

        Returns:
            {"probabilities": [B, L] float32, "decisions": [B, L] int32, 1 or 0}.
        """
        probabilities = tf.sigmoid(tf.reduce_mean(maps, axis=(1, 2)))
        reached = probabilities >= _not_below(self.thresholds)
        return {"probabilities": probabilities, "decisions": tf.cast(reached, tf.int32)}

    def outputs_of_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """What converted models return of images [B, S, S, 3]: `outputs`, and "cams"."""
        maps = self.logits(images)
        return {**self.outputs(maps), "cams": maps}

    def metadata(self) -> dict[str, str]:
        """What model files say of themselves where their format has a place for it."""
        return {
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "thresholds": json.dumps(self.thresholds.tolist()),
        }


def exported(network: keras.Model, classes: Mapping[str, Any]) -> Exported:
    """Readies a network for all formats.

    Args:
        network: images -> CAM logits.
        classes: as classes.json: "class_names", "thresholds" by name, "image_size" and
            "max_megapixels".
    """
    names = tuple(classes["class_names"])
    thresholds = np.array([classes["thresholds"][name] for name in names], np.float64)
    limit = float(classes["max_megapixels"])
    return Exported(folded(network), int(classes["image_size"]), names, thresholds, limit)


def _not_below(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The next float32 numbers from which on: float32 probabilities reach both alike.

    >>> float(_not_below(np.array([0.7]))[0]) >= 0.7 > float(np.float32(0.7))
    True
    """
    near = thresholds.astype(np.float32)
    above = np.nextafter(near, np.float32(np.inf))
    return np.where(near.astype(np.float64) < thresholds, above, near)
