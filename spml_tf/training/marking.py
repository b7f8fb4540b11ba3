"""Rules that mark unknown labels of a batch by the network's logits."""

from __future__ import annotations

import math

import tensorflow as tf

from spml_tf.labels import EXPECTED, UNKNOWN

SPLC_THRESHOLD = 0.6


def mark_large_losses(
    labels: tf.Tensor, logits: tf.Tensor, epoch: tf.Tensor, rate: float, growing: bool
) -> tf.Tensor:
    """Marks the unknown labels whose loss as negatives is largest in the batch (LL-R, -Ct, -Cp).

    Kim et al., "Large Loss Matters in Weakly Supervised Multi-Label Classification" (CVPR 2022).
    At epoch t, k = ceil(B L (t-1) rate / 100) of them where the share grows, else
    ceil(B L rate / 100) from the second epoch on. Ties with the k-th are marked too.

    Args:
        labels: [B, L] int8 in {1, 0, -1, 2}; only -1 can be marked.
        logits: [B, L] float.
        epoch: int scalar, counted from 1.
        rate: percent of the batch's labels, an epoch where the share grows.
        growing: whether the share grows with the epochs (LL-R, LL-Ct) or not (LL-Cp).

    Returns:
        [B, L] int8, the labels with 2 where marked.
    """
    unknown = labels == UNKNOWN
    # The loss of a negative, log(1 + e^x), is largest where the logit is.
    losses = tf.where(unknown, logits, tf.constant(-math.inf, logits.dtype))
    epochs = tf.cast(epoch - 1, tf.float64)
    share = epochs if growing else tf.minimum(epochs, 1.0)
    wanted = tf.cast(tf.size(labels), tf.float64) * share * rate / 100
    # A product that is whole must not become the next number through rounding.
    count = tf.cast(tf.math.ceil(wanted - 1e-9), tf.int32)
    count = tf.minimum(count, tf.reduce_sum(tf.cast(unknown, tf.int32)))
    ranked = tf.sort(tf.reshape(losses, [-1]), direction="DESCENDING")
    smallest = tf.gather(ranked, tf.maximum(count - 1, 0))
    marked = unknown & (losses >= smallest) & (count > 0)
    return tf.where(marked, tf.constant(EXPECTED, labels.dtype), labels)


def mark_confident(labels: tf.Tensor, logits: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Marks unknown labels whose score is above 0.6, from the second epoch on (SPLC).

    Zhang et al. (2021), as `spml_tf.losses.hill`.

    Args:
        labels: [B, L] int8 in {1, 0, -1, 2}.
        logits: [B, L] float.
        epoch: int scalar, counted from 1.

    Returns:
        [B, L] int8, the labels with 2 where marked.
    """
    bound = math.log(SPLC_THRESHOLD / (1 - SPLC_THRESHOLD))
    marked = (labels == UNKNOWN) & (logits > bound) & (epoch >= 2)
    return tf.where(marked, tf.constant(EXPECTED, labels.dtype), labels)
