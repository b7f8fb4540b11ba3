"""The input scaling that belongs to a backbone's weights, as a layer of the network.

It travels with the network into checkpoints and exports, so that photos in 0..255 are always
what goes in.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.system.private_api import is_functional

# Mode -> (reverse the channels, mean, scale): output = (input - mean) / scale, per channel.
_MODES: dict[str, tuple[bool, tuple[float, ...], tuple[float, ...]]] = {
    "caffe": (True, (103.939, 116.779, 123.68), (1.0,)),
    "tf": (False, (127.5,), (127.5,)),
    "torch": (
        False,
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
    "lite": (False, (127.0,), (128.0,)),
    "none": (False, (0.0,), (1.0,)),
}


@keras.saving.register_keras_serializable("spml_tf")
class ImagePreprocessing(keras.layers.Layer):
    """Scales RGB images in 0..255 the way the backbone's weights expect.

    Args:
        mode: ``"caffe"`` (BGR minus ImageNet's mean), ``"tf"`` (to -1..1), ``"torch"`` (ImageNet's
            mean and deviation), ``"lite"`` ((x - 127) / 128) or ``"none"`` (unchanged).
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown mode.
    """

    def __init__(self, mode: str = "none", **kwargs: Any) -> None:
        if mode not in _MODES:
            raise ValueError(
                f"Argument `mode` must be one of {', '.join(_MODES)}. Received: mode={mode!r}"
            )
        # No autocast: bfloat16 has 8 bits, which rounds the values of a resized photo by up to 1.
        super().__init__(autocast=False, **kwargs)
        self.mode = mode

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Scales images.

        Args:
            images: [batch, height, width, 3] float32 RGB in 0..255.

        Returns:
            [batch, height, width, 3] in the compute dtype; in mode ``"none"`` the images.
        """
        if self.mode == "none":
            return images
        reverse, mean, scale = _MODES[self.mode]
        images = tf.cast(images, tf.float32)
        if reverse:
            images = tf.reverse(images, axis=[-1])
        return tf.cast((images - tf.constant(mean)) / tf.constant(scale), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "mode": self.mode}

    def inverse(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The colours [3], RGB in 0..255, that are scaled to values [3]."""
        reverse, mean, scale = _MODES[self.mode]
        colours = values * scale + mean
        return colours[::-1] if reverse else colours


def zero_colour(network: keras.Model) -> NDArray[np.float32]:
    """The colour that a network's scaling of its images maps to 0.

    The scaling is what stands directly after the input: `ImagePreprocessing`, and Keras' Rescaling
    and Normalization by channel, which networks of `keras.applications` hold. Of a network that
    begins with anything else nothing is known, and its colour is black.

    Args:
        network: a CAM network.

    Returns:
        [3] float32, RGB in 0..255.

    Examples:
        >>> image = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 127.5, -1)(image))
        >>> zero_colour(keras.Model(image, x)).tolist()
        [127.5, 127.5, 127.5]
    """
    first = network.operations[1:] if is_functional(network) else ()  # the input is the first
    colour = np.zeros(3)
    for layer in reversed(list(itertools.takewhile(_scales, first))):
        if isinstance(layer, ImagePreprocessing):
            colour = layer.inverse(colour)
        elif isinstance(layer, keras.layers.Rescaling):
            colour = (colour - np.asarray(layer.offset)) / np.asarray(layer.scale)
        else:
            mean, variance = (
                np.asarray(x, np.float64).ravel() for x in (layer.mean, layer.variance)
            )
            colour = colour * np.sqrt(variance) + mean
    return colour.astype(np.float32)


def _scales(layer: keras.Operation) -> bool:
    """Whether a layer scales the channels of images in a way that `zero_colour` can undo."""
    if isinstance(layer, keras.layers.Normalization):
        return np.size(layer.mean) in (1, 3)
    return isinstance(layer, ImagePreprocessing | keras.layers.Rescaling)
