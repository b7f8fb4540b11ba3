"""Checks of tensors that are part of a graph, so that they see every batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def codes_of(values: Any, known: Sequence[int], message: str) -> tf.Tensor:
    """Numbers of any type as int8, where each of them is one of a few.

    A function that XLA compiles leaves the check out, as it does with all assertions.

    Args:
        values: any shape, numbers or booleans.
        known: those that may be, each from -128 to 127.
        message: begins what is said of others; one of them follows.

    Returns:
        int8, of the same shape.

    Raises:
        tf.errors.InvalidArgumentError: as the tensor is computed, where a value is none of them.

    Examples:
        >>> codes_of([[1.0, -1.0]], (1, 0, -1), "labels must be 1, 0 or -1. Received:").numpy()
        array([[ 1, -1]], dtype=int8)
    """
    numbers = tf.cast(values, tf.float32)  # as int8 255 would be -1
    fits = functools.reduce(tf.logical_or, [numbers == float(code) for code in known])
    other = tf.reduce_max(tf.where(fits, tf.float32.min, numbers))
    check = tf.debugging.Assert(tf.reduce_all(fits), [message, other])
    with tf.control_dependencies([check] if check is not None else []):
        return tf.cast(numbers, tf.int8)
