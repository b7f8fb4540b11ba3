"""Binary cross-entropy of the known labels (eq. 1), and the sums that other losses are made of."""

from __future__ import annotations

import keras
import tensorflow as tf

from spml_tf.labels import NEGATIVE, POSITIVE
from spml_tf.losses.label_loss import LabelLoss, mean_over_classes


def known_binary_crossentropy(
    labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Binary cross-entropy on known labels only.

    (1/L) [sum over z = 1 of -log f + sum over z = 0 of -log(1 - f)], f = sigmoid(logit).
    Verelst et al. (WACV 2023), eq. 1; where labels are missing they add nothing.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; -1 and 2 contribute nothing.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        At logit 0 both -log f and -log(1 - f) are ln 2 = 0.6931.

        >>> labels = tf.constant([[1, 0, -1, -1]])
        >>> round(float(known_binary_crossentropy(labels, tf.zeros([1, 4]))[0]), 4)  # 2 ln 2 / 4
        0.3466
    """
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    target = tf.cast(labels == POSITIVE, logits.dtype)
    terms = tf.cast(known, logits.dtype) * soft_cross_entropy(target, logits)
    return mean_over_classes(terms, weights)


@keras.saving.register_keras_serializable("spml_tf")
class KnownBinaryCrossentropy(LabelLoss):
    """`known_binary_crossentropy` (eq. 1) as a Keras loss. Arguments as for `LabelLoss`.

    Examples:
        >>> loss = KnownBinaryCrossentropy()
        >>> value = loss([[1, 0, -1, -1]], [[0.5, 0.2, 0.9, 0.9]])
        >>> round(float(value), 4)  # (-log 0.5 - log 0.8) / 4
        0.2291
    """

    function = staticmethod(known_binary_crossentropy)


def masked_cross_entropy(
    logits: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor, weights: tf.Tensor | None
) -> tf.Tensor:
    """1/L times the sum of -log f over `positive` and -log(1-f) over `negative`, per image.

    Args:
        logits: [B, L] float.
        positive, negative: [B, L] bool, or float factors of the terms.
        weights: [B, L] float or None.

    Returns:
        [B] float.
    """
    positive, negative = tf.cast(positive, logits.dtype), tf.cast(negative, logits.dtype)
    terms = positive * tf.nn.softplus(-logits) + negative * tf.nn.softplus(logits)
    return mean_over_classes(terms, weights)


def soft_cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-t log f - (1 - t) log(1 - f) against targets t in [0, 1], [B, L]; exact, from the logits."""
    return targets * tf.nn.softplus(-logits) + (1 - targets) * tf.nn.softplus(logits)
