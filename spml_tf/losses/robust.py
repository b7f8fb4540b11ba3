"""GR: a loss of unknown labels that is between cross-entropy and absolute error."""

from __future__ import annotations

import keras
import tensorflow as tf

from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.losses.label_loss import LabelLoss, mean_over_classes
from spml_tf.losses.options import GeneralizedRobustLossOptions


def generalized_robust(
    labels: tf.Tensor,
    logits: tf.Tensor,
    slope: float | tf.Tensor,
    offset: float | tf.Tensor,
    mean: float | tf.Tensor,
    deviation: float | tf.Tensor,
    positive_power: float = 0.01,
    negative_power: float = 1.0,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """GR: unknown labels are positives with a probability that grows with the score.

    (1/L) [sum over z = 1 of -log f + sum over z = 0 of -log(1 - f)
    + sum over z = -1 of V (K (1 - f^q2) / q2 + (1 - K) (1 - (1 - f)^q3) / q3)],
    K = sigmoid(w f + b), V = exp(-((f - mu) / sigma)^2 / 2), f = sigmoid(logit).
    Chen et al., "Boosting Single Positive Multi-label Classification with Generalized Robust Loss"
    (IJCAI 2024). No gradient flows through K and V. Labels marked 2 add nothing (ours).

    Args:
        labels: [B, L] in {1, 0, -1, 2}; 2 contributes nothing.
        logits: [B, L] float.
        slope: w, scalar.
        offset: b, scalar.
        mean: mu, scalar.
        deviation: sigma, scalar above 0.
        positive_power: q2, above 0; towards 0 the term is -log f.
        negative_power: q3, above 0; at 1 the term is f.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        At logit 0, f = 1/2; with w = b = 0, K = 1/2; with mu = 1/2, V = 1; with q2 = q3 = 1 both
        terms are 1/2.

        >>> labels = tf.constant([[1, -1, 2]])
        >>> value = generalized_robust(labels, tf.zeros([1, 3]), 0.0, 0.0, 0.5, 1.0, 1.0, 1.0)[0]
        >>> round(float(value), 4)  # (ln 2 + 1/2) / 3
        0.3977
    """
    scores = tf.stop_gradient(tf.sigmoid(logits))
    likely = tf.sigmoid(slope * scores + offset)
    trust = tf.exp(-tf.square((scores - mean) / deviation) / 2)
    to_positive, to_negative = tf.nn.softplus(-logits), tf.nn.softplus(logits)
    as_positive = -tf.math.expm1(-positive_power * to_positive) / positive_power
    as_negative = -tf.math.expm1(-negative_power * to_negative) / negative_power
    unknown = trust * (likely * as_positive + (1 - likely) * as_negative)
    terms = tf.where(labels == POSITIVE, to_positive, tf.zeros_like(logits))
    terms = tf.where(labels == NEGATIVE, to_negative, terms)
    return mean_over_classes(tf.where(labels == UNKNOWN, unknown, terms), weights)


@keras.saving.register_keras_serializable("spml_tf")
class GeneralizedRobust(LabelLoss, GeneralizedRobustLossOptions):
    """`generalized_robust` (GR) as a Keras loss, with constants that stay as they are.

    The method gr moves them with the epochs, see `spml_tf.training.GeneralizedRobustTerm`.

    Args:
        slope, offset, mean, deviation: w, b, mu and sigma; by default the paper's last ones.
        positive_power, negative_power: q2 and q3.
        kwargs: as for `LabelLoss`.

    Examples:
        >>> loss = GeneralizedRobust(
        ...     slope=0.0, offset=0.0, mean=0.5, deviation=1.0, positive_power=1.0
        ... )
        >>> round(float(loss([[1, -1, 2]], [[0.5, 0.5, 0.5]])), 4)  # (ln 2 + 1/2) / 3
        0.3977
    """

    function = staticmethod(generalized_robust)
    marks = "left out"
