"""Losses that take unknown labels for negatives: AN (eq. 2), AN with label smoothing, WAN."""

from __future__ import annotations

import keras
import tensorflow as tf

from spml_tf.labels import NEGATIVE, POSITIVE
from spml_tf.losses.cross_entropy import masked_cross_entropy, soft_cross_entropy
from spml_tf.losses.label_loss import LabelLoss, mean_over_classes, without_marked

SMOOTHING = 0.1


def assume_negative(
    labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """AN: every label that is not positive is a negative.

    (1/L) [sum over z = 1 of -log f + sum over z != 1 of -log(1 - f)], f = sigmoid(logit).
    Verelst et al. (WACV 2023), eq. 2.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> labels = tf.constant([[1, -1, -1]])
        >>> logits = tf.math.log([[3.0, 1.0, 1.0]])  # f = 3/4, 1/2, 1/2
        >>> round(float(assume_negative(labels, logits)[0]), 4)  # (ln 4/3 + 2 ln 2) / 3
        0.558
    """
    return masked_cross_entropy(logits, labels == POSITIVE, labels != POSITIVE, weights)


@keras.saving.register_keras_serializable("spml_tf")
class AssumeNegative(LabelLoss):
    """`assume_negative` (AN, eq. 2) as a Keras loss. Arguments as for `LabelLoss`.

    Examples:
        >>> loss = AssumeNegative()
        >>> round(float(loss([[1, -1, -1]], [[0.75, 0.5, 0.5]])), 4)  # (ln 4/3 + 2 ln 2) / 3
        0.558
        >>> weights = [[1.0, 0.0, 0.0]]
        >>> round(float(loss([[1, -1, -1]], [[0.75, 0.5, 0.5]], weights)), 4)  # (ln 4/3) / 3
        0.0959
    """

    function = staticmethod(assume_negative)


def smoothed_assume_negative(
    labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """AN with label smoothing: the target t is 0.9 for positives and 0.1 for all others.

    (1/L) sum_i [-t_i log f_i - (1 - t_i) log(1 - f_i)], f = sigmoid(logit).
    Cole et al., "Multi-Label Learning from Single Positive Labels" (CVPR 2021), who smooth both
    by eps = 0.1; Keras' smoothing would give 0.95 and 0.05.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; 2 contributes nothing.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> labels = tf.constant([[1, -1]])
        >>> logits = tf.math.log([[3.0, 1.0]])  # f = 3/4, 1/2
        >>> value = smoothed_assume_negative(labels, logits)[0]
        >>> round(float(value), 4)  # (0.9 ln 4/3 + 0.1 ln 4 + ln 2) / 2
        0.5453
    """
    positive = tf.cast(labels == POSITIVE, logits.dtype)
    target = SMOOTHING + (1 - 2 * SMOOTHING) * positive
    return mean_over_classes(without_marked(soft_cross_entropy(target, logits), labels), weights)


@keras.saving.register_keras_serializable("spml_tf")
class SmoothedAssumeNegative(LabelLoss):
    """`smoothed_assume_negative` as a Keras loss. Arguments as for `LabelLoss`.

    Examples:
        >>> loss = SmoothedAssumeNegative()
        >>> value = loss([[1, -1]], [[0.75, 0.5]])
        >>> round(float(value), 4)  # (0.9 ln 4/3 + 0.1 ln 4 + ln 2) / 2
        0.5453
    """

    function = staticmethod(smoothed_assume_negative)
    marks = "left out"


def weak_assume_negative(
    labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """WAN: as AN, but the negative terms of unknown labels weigh 1 / (L - 1).

    (1/L) [sum over z = 1 of -log f + sum over z = 0 of -log(1 - f)
    + 1/(L - 1) sum over z = -1 of -log(1 - f)], f = sigmoid(logit).
    Mac Aodha et al. (ICCV 2019), in the form of Cole et al. (CVPR 2021).

    Args:
        labels: [B, L] in {1, 0, -1, 2}; 2 contributes nothing.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms beside their own.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> labels = tf.constant([[1, 0, -1]])
        >>> round(float(weak_assume_negative(labels, tf.zeros([1, 3]))[0]), 4)  # 2.5 ln 2 / 3
        0.5776
    """
    weak = tf.constant(1.0 / max(int(logits.shape[-1]) - 1, 1), logits.dtype)
    weight = tf.where(labels == NEGATIVE, tf.ones_like(weak), weak)
    negative = weight * tf.nn.softplus(logits)
    terms = tf.where(labels == POSITIVE, tf.nn.softplus(-logits), negative)
    return mean_over_classes(without_marked(terms, labels), weights)


@keras.saving.register_keras_serializable("spml_tf")
class WeakAssumeNegative(LabelLoss):
    """`weak_assume_negative` (WAN) as a Keras loss. Arguments as for `LabelLoss`.

    Examples:
        >>> loss = WeakAssumeNegative()
        >>> round(float(loss([[1, 0, -1]], [[0.5, 0.5, 0.5]])), 4)  # 2.5 ln 2 / 3
        0.5776
    """

    function = staticmethod(weak_assume_negative)
    marks = "left out"
