"""A small residual network for scenes of about 64x64 pixels, quick to train on a CPU."""

from __future__ import annotations

import os

import keras

from spml_tf.networks.batch_norm import FusedBatchNormalization
from spml_tf.networks.cam import cam_head, image_input
from spml_tf.networks.preprocessing import ImagePreprocessing
from spml_tf.networks.weights import chosen_weights, load_backbone_weights
from spml_tf.system.errors import UserError

# Per stage: channels in units of the width, stride of its first convolution.
_STAGES = ((2, 2), (4, 2), (4, 1))


class _Seeds:
    """Hands every kernel its own seed, or None where Keras' global seed rules."""

    def __init__(self, seed: int | None) -> None:
        self._next = seed

    def __call__(self) -> int | None:
        """Returns the next seed."""
        seed = self._next
        self._next = None if seed is None else seed + 1
        return seed


def small_residual_cam(
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = None,
    image_size: int | None = 64,
    width: int = 16,
    seed: int | None = None,
) -> keras.Model:
    """Builds a residual network of stride 8: 25 MFLOPs at 64x64 and width 16, a grid of 8x8.

    Args:
        num_classes: number of classes.
        weights: None or ``"none"`` (He-normal), or a file of a network built here, whose
            backbone's weights are taken.
        image_size: side of the input images in pixels; None takes any.
        width: channels of the first convolution, a multiple of 16 (with fewer, TensorFlow 2.21's
            oneDNN crashed in training with several threads); the stages have 2, 4 and 4 times as
            many.
        seed: of the initial weights, None for Keras' global seed.

    Returns:
        "image" [batch, size, size, 3] float32 in 0..255 -> [batch, size/8, size/8, num_classes].

    Raises:
        UserError: for ``"imagenet"`` (there are no such weights) or an unsuitable file.
        ValueError: for a width that is no multiple of 16.
    """
    if width % 16 or width < 16:
        raise ValueError(f"width must be a multiple of 16. Received: {width}")
    weights = chosen_weights(weights)
    if weights == "imagenet":
        raise UserError(
            "small_residual has no ImageNet weights; pass 'none', a file, or another network"
        )
    seeds = _Seeds(seed)
    image = image_input(image_size)
    x = ImagePreprocessing("tf", name="preprocessing")(image)
    x = _conv_bn(x, width, 3, 2, "stem", seeds)
    x = keras.layers.ReLU(name="stem_relu")(x)
    for stage, (factor, stride) in enumerate(_STAGES, start=1):
        x = _residual(x, factor * width, stride, f"stage{stage}", seeds)
    if weights:
        load_backbone_weights(keras.Model(image, x, name="small_residual"), weights)
    return keras.Model(image, cam_head(x, num_classes, seeds()), name="small_residual_cam")


def _residual(
    x: keras.KerasTensor, channels: int, stride: int, name: str, seeds: _Seeds
) -> keras.KerasTensor:
    """Applies two 3x3 convolutions beside a shortcut, projected where the shape changes."""
    shortcut = x
    if stride != 1 or x.shape[-1] != channels:
        shortcut = _conv_bn(x, channels, 1, stride, f"{name}_shortcut", seeds)
    x = _conv_bn(x, channels, 3, stride, f"{name}_first", seeds)
    x = keras.layers.ReLU(name=f"{name}_first_relu")(x)
    x = _conv_bn(x, channels, 3, 1, f"{name}_second", seeds)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _conv_bn(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str, seeds: _Seeds
) -> keras.KerasTensor:
    """Applies a convolution without bias (the normalisation has one) and normalises."""
    x = keras.layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=seeds()),
        name=f"{name}_conv",
    )(x)
    return FusedBatchNormalization(name=f"{name}_bn")(x)
