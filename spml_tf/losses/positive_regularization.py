"""Losses that draw the number of predicted positives to its known mean K: EPR, and ROLE's."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from spml_tf.labels import POSITIVE, UNKNOWN
from spml_tf.losses.cross_entropy import known_binary_crossentropy, soft_cross_entropy
from spml_tf.losses.label_loss import LabelLoss, mean_over_classes
from spml_tf.losses.options import PositivesPerImageOptions
from spml_tf.system.replicas import mean_of_batch

# Initial estimates of ROLE: of observed positives, of observed negatives, bound of the others.
ROLE_POSITIVE, ROLE_NEGATIVE, ROLE_UNKNOWN = 0.995, 0.005, 0.6


def expected_positive_regularization(
    labels: tf.Tensor,
    logits: tf.Tensor,
    positives_per_image: float,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """EPR: known labels, and the batch's mean number of predicted positives is drawn to K.

    BCE of the known labels + R, R = ((mean over the batch of sum_i f_i) - K)^2 / L^2,
    f = sigmoid(logit). Cole et al., "Multi-Label Learning from Single Positive Labels" (CVPR
    2021). R is one number for the batch; it is added to every image, so that the mean over images
    holds it once.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; -1 and 2 enter R only.
        logits: [B, L] float.
        positives_per_image: K, mean number of true positives per image, > 0.
        weights: [B, L] float or None, factors of the terms; R of an image is multiplied by the
            mean of its weights, and counts all images alike.

    Returns:
        [B] float.

    Examples:
        >>> labels = tf.constant([[1, -1, -1, -1]])  # two positives are predicted, 4 times 1/2
        >>> value = expected_positive_regularization(labels, tf.zeros([1, 4]), 1.0)[0]
        >>> round(float(value), 4)  # ln 2 / 4 + (2 - 1)^2 / 16
        0.2358
    """
    known = known_binary_crossentropy(labels, logits, weights)
    return known + _regularizer(tf.sigmoid(logits), positives_per_image, weights)


@keras.saving.register_keras_serializable("spml_tf")
class ExpectedPositiveRegularization(LabelLoss, PositivesPerImageOptions):
    """`expected_positive_regularization` (EPR) as a Keras loss.

    Args:
        positives_per_image: K, mean number of true positives per image, in [1e-6, 1e6].
        kwargs: as for `LabelLoss`.

    Examples:
        >>> loss = ExpectedPositiveRegularization(positives_per_image=1.0)
        >>> value = loss([[1, -1, -1, -1]], [[0.5, 0.5, 0.5, 0.5]])
        >>> round(float(value), 4)  # ln 2 / 4 + (2 - 1)^2 / 16
        0.2358
    """

    function = staticmethod(expected_positive_regularization)


def role(
    labels: tf.Tensor,
    logits: tf.Tensor,
    estimates: tf.Tensor,
    positives_per_image: float,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """ROLE: network and a table of estimated labels g teach each other, both under EPR.

    [EPR(f) + EPR(g) + CE(f against g) + CE(g against f)] / 2, f = sigmoid(logit),
    g = sigmoid(estimate); the target of a cross-entropy carries no gradient.
    Cole et al., "Multi-Label Learning from Single Positive Labels" (CVPR 2021).

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.
        estimates: [B, L] float, the logits of g for these images.
        positives_per_image: K.
        weights: [B, L] float or None, as for `expected_positive_regularization`.

    Returns:
        [B] float.

    Examples:
        >>> zeros = tf.zeros([1, 4])  # EPR is 0.2358 for both, as there, and each CE is ln 2
        >>> round(float(role(tf.constant([[1, -1, -1, -1]]), zeros, zeros, 1.0)[0]), 4)
        0.9289
    """
    scores, estimated = tf.sigmoid(logits), tf.sigmoid(estimates)
    agreement = soft_cross_entropy(tf.stop_gradient(estimated), logits)
    agreement += soft_cross_entropy(tf.stop_gradient(scores), estimates)
    parts = known_binary_crossentropy(labels, logits, weights)
    parts += known_binary_crossentropy(labels, estimates, weights)
    parts += mean_over_classes(agreement, weights)
    parts += _regularizer(scores, positives_per_image, weights)
    return 0.5 * (parts + _regularizer(estimated, positives_per_image, weights))


def role_estimates(labels: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Initial logits of ROLE's estimates.

    Args:
        labels: [N, L] in {1, 0, -1}.
        noise: [N, L] float in [-1, 1], uniform.

    Returns:
        [N, L] float: logit(0.995) for positives, logit(0.005) for negatives, logit(0.6) times the
        noise for unknown labels.

    Examples:
        >>> logits = role_estimates(tf.constant([[1, 0, -1]]), tf.ones([1, 3]))
        >>> [round(float(x), 3) for x in tf.sigmoid(logits)[0]]
        [0.995, 0.005, 0.6]
    """
    logits = [math.log(p / (1 - p)) for p in (ROLE_POSITIVE, ROLE_NEGATIVE, ROLE_UNKNOWN)]
    known = tf.where(labels == POSITIVE, logits[0], logits[1])
    return tf.where(labels == UNKNOWN, logits[2] * noise, tf.cast(known, noise.dtype))


def _regularizer(
    scores: tf.Tensor, positives_per_image: float, weights: tf.Tensor | None
) -> tf.Tensor:
    """R of EPR, a scalar, or [B] where images have weights."""
    images = tf.cast(tf.shape(scores)[0], scores.dtype)
    predicted = mean_of_batch(tf.reduce_mean(tf.reduce_sum(scores, axis=-1)), images)
    value = tf.square((predicted - positives_per_image) / int(scores.shape[-1]))
    return value if weights is None else value * tf.reduce_mean(weights, axis=-1)
