"""RandAugment's changes of colour, without its changes of place: boxes of crops stay true."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Draws for one change: which, and its sign.
DRAWS = 2
# RandAugment's largest changes: of a factor around 1, and of the 8 bits of a colour.
_FACTOR, _BITS = 0.9, 4
_WHITE = 255.0
# Weighs a pixel and its neighbours, as Pillow's filter SMOOTH does.
_SMOOTH = ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 1.0))


def changed(image: tf.Tensor, draws: tf.Tensor, strength: float) -> tf.Tensor:
    """An image after some changes of its colours, drawn one by one.

    Of Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search
    Space", CVPR workshops 2020: none, brightness, contrast, saturation, sharpness (each by the
    factor 1 - 0.9 strength or 1 + 0.9 strength), posterize (to 8 - 4 strength bits), solarize (of
    what is at least 255 (1 - strength)), autocontrast and equalize, each as likely.

    Args:
        image: [S, S, 3] float32 in 0..255, RGB.
        draws: [n, 2] float32 in [0, 1): for each of n changes which, and its sign.
        strength: in [0, 1].

    Returns:
        [S, S, 3] float32 in 0..255.
    """
    for number in range(draws.shape[0]):
        factor = 1 + _FACTOR * strength * tf.where(draws[number, 1] < 0.5, -1.0, 1.0)
        branches = _branches(image, factor, strength)
        which = tf.cast(draws[number, 0] * len(branches), tf.int32)
        image = tf.ensure_shape(tf.switch_case(which, branches), image.shape)
    return image


def _branches(
    image: tf.Tensor, factor: tf.Tensor, strength: float
) -> list[Callable[[], tf.Tensor]]:
    return [
        lambda: image,
        lambda: blended(tf.zeros_like(image), image, factor),
        lambda: blended(tf.reduce_mean(grey(image)), image, factor),
        lambda: blended(grey(image), image, factor),
        lambda: blended(smooth(image), image, factor),
        lambda: posterized(image, 8 - round(_BITS * strength)),
        lambda: solarized(image, _WHITE * (1 - strength)),
        lambda: autocontrast(image),
        lambda: equalized(image),
    ]


def blended(other: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """other + factor (image - other), in 0..255."""
    return tf.clip_by_value(other + factor * (image - other), 0.0, _WHITE)


def grey(image: tf.Tensor) -> tf.Tensor:
    """Luma of [S, S, 3], as [S, S, 1]."""
    return tf.image.rgb_to_grayscale(image)


def smooth(image: tf.Tensor) -> tf.Tensor:
    """The mean of each pixel and its neighbours; those at the border stay."""
    kernel = tf.constant(_SMOOTH) / sum(map(sum, _SMOOTH))
    kernel = tf.tile(kernel[:, :, None, None], [1, 1, 3, 1])
    inner = tf.nn.depthwise_conv2d(image[None], kernel, [1, 1, 1, 1], "VALID")[0]
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    inside = tf.pad(tf.ones([height - 2, width - 2, 1], tf.bool), [[1, 1], [1, 1], [0, 0]])
    return tf.where(inside, tf.pad(inner, [[1, 1], [1, 1], [0, 0]]), image)


def posterized(image: tf.Tensor, bits: int) -> tf.Tensor:
    """With the highest bits of each number."""
    step = float(1 << (8 - bits))
    return tf.floor(tf.floor(image) / step) * step


def solarized(image: tf.Tensor, threshold: float) -> tf.Tensor:
    """With what is at least the threshold inverted."""
    return tf.where(image < threshold, image, _WHITE - image)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """With each channel stretched to 0..255; one that is constant stays."""
    low, high = (f(image, axis=(0, 1), keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    stretched = (image - low) * tf.math.divide_no_nan(_WHITE, high - low)
    return tf.where(high > low, stretched, image)


def equalized(image: tf.Tensor) -> tf.Tensor:
    """With each channel's values spread evenly over 0..255; one that is constant stays."""
    return tf.stack([_equalized(channel) for channel in tf.unstack(image, axis=-1)], axis=-1)


def _equalized(channel: tf.Tensor) -> tf.Tensor:
    values = tf.cast(channel, tf.int32)
    counts = tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)
    step = (tf.size(values) - tf.gather(counts, tf.reduce_max(values))) // 255
    below = tf.cumsum(counts, exclusive=True)
    table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    spread = tf.cast(tf.gather(table, values), channel.dtype)
    return tf.where(step > 0, spread, channel)
