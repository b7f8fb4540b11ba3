"""Noise for stochastic rounding that depends on what is rounded, and not on the batch it is in."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def noise(seed: int, writes: tf.Tensor, images: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """A number in [0, 1) for each cell of each image and each write; like independent draws.

    Args:
        seed: int.
        writes: () int64, the number of writes so far.
        images: [B] int64, numbers of the images in the whole data set.
        cells: [d] int32, the shape of an image's values.

    Returns:
        [B, *cells] float32, multiples of 2^-24.
    """
    words = tf.bitcast(tf.stack([tf.constant(seed, tf.int64), tf.cast(writes, tf.int64)]), tf.int32)
    key = tf.constant(0, tf.uint32)
    for word in tf.unstack(tf.bitcast(tf.reshape(words, [4]), tf.uint32)):
        key = _mixed(_mixed(key) + word)
    halves = tf.bitcast(tf.bitcast(images, tf.int32), tf.uint32)  # [B, 2]
    rows = _mixed(_mixed(key + halves[:, 0]) + halves[:, 1])
    count = tf.reduce_prod(cells)
    numbers = tf.cast(tf.range(count), tf.uint32)
    # The golden ratio's bits: neighbours are far apart before they are mixed.
    found = _mixed(rows[:, None] + numbers * _constant(0x9E3779B9))
    shift = tf.constant(8, tf.uint32)
    # A number of 24 bits is a float32 without rounding, and so less than 1 below.
    floats = tf.cast(tf.cast(tf.bitwise.right_shift(found, shift), tf.int32), tf.float32)
    return tf.reshape(floats * 2.0**-24, tf.concat([[-1], cells], axis=0))


def float16_rounded(values: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Values rounded to one of the two float16 beside them, by chance and right in the mean.

    Args:
        values: float32 in [0, 1]. Below 2^-14 float16 has fewer digits; there the nearest is taken.
        steps: float32 in [0, 1) of the same shape, drawn uniformly.

    Returns:
        float16; a value that float16 can hold stays.

    Examples:
        >>> between = tf.constant([1 - 2.0**-13] * 2)  # a quarter below 1, of a step of 2^-11
        >>> [float(x) == 1 for x in float16_rounded(between, tf.constant([0.2, 0.3]))]
        [False, True]
    """
    lost = 13  # binary digits that float32 has more
    added = tf.cast(steps * 2.0**lost, tf.int32)
    bits = tf.bitwise.bitwise_and(tf.bitcast(values, tf.int32) + added, tf.constant(-(2**lost)))
    return tf.cast(tf.bitcast(bits, tf.float32), tf.float16)


def _constant(value: int) -> tf.Tensor:
    return tf.constant(np.uint32(value))


def _mixed(values: tf.Tensor) -> tf.Tensor:
    """A permutation of uint32 in which each bit depends on all (lowbias32 of C. Wellons)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        values = tf.bitwise.bitwise_xor(
            values, tf.bitwise.right_shift(values, tf.constant(shift, tf.uint32))
        )
        values = values * _constant(factor)
    last = tf.bitwise.right_shift(values, tf.constant(16, tf.uint32))
    return tf.bitwise.bitwise_xor(values, last)
