"""Losses that use expected positives, labels marked 2 by a selection or a rule: EN (eq. 5), EP."""

from __future__ import annotations

import keras
import tensorflow as tf

from spml_tf.labels import EXPECTED, POSITIVE
from spml_tf.losses.cross_entropy import masked_cross_entropy
from spml_tf.losses.label_loss import LabelLoss
from spml_tf.losses.options import ExpectedNegativeOptions, ExpectedPositiveOptions


def expected_negative(
    labels: tf.Tensor,
    logits: tf.Tensor,
    weights: tf.Tensor | None = None,
    expected_weight: float = 0.0,
) -> tf.Tensor:
    """EN: unknown labels are negatives, but the expected positives among them are ignored.

    (1/L) [sum over z = 1 of -log f + sum over z in {0, -1} of -log(1 - f)], f = sigmoid(logit).
    Verelst et al. (WACV 2023), eq. 5. Where no label is 2 it is AN: something must mark them, as
    `SPMLModel` does. With a weight w (ours) the sum has w times -log(1 - f) over z = 2 too.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms.
        expected_weight: w in [0, 1], what labels marked 2 weigh as negatives; 1 is AN.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> labels = tf.constant([[1, -1, 2]])
        >>> logits = tf.math.log([[3.0, 1.0, 3.0]])  # f = 3/4, 1/2, 3/4
        >>> round(float(expected_negative(labels, logits)[0]), 4)  # (ln 4/3 + ln 2) / 3
        0.3269
    """
    marked = tf.cast(labels == EXPECTED, logits.dtype)
    positive = tf.cast(labels == POSITIVE, logits.dtype)
    negative = 1 - positive - (1 - expected_weight) * marked
    return masked_cross_entropy(logits, positive, negative, weights)


@keras.saving.register_keras_serializable("spml_tf")
class ExpectedNegative(LabelLoss, ExpectedNegativeOptions):
    """`expected_negative` (EN, eq. 5) as a Keras loss.

    Args:
        expected_weight: of labels marked 2 as negatives, in [0, 1].
        kwargs: as for `LabelLoss`.

    Examples:
        >>> loss = ExpectedNegative()
        >>> round(float(loss([[1, -1, 2]], [[0.75, 0.5, 0.75]])), 4)  # (ln 4/3 + ln 2) / 3
        0.3269
    """

    function = staticmethod(expected_negative)
    marks = "left out"


def expected_positive(
    labels: tf.Tensor,
    logits: tf.Tensor,
    weights: tf.Tensor | None = None,
    expected_target: float = 1.0,
) -> tf.Tensor:
    """EP: as `expected_negative`, but expected positives are trained as positives.

    (1/L) [sum over z in {1, 2} of -log f + sum over z in {0, -1} of -log(1 - f)],
    f = sigmoid(logit). Verelst et al. (WACV 2023), Table 2. With a target t below 1 (ours) the term
    of z = 2 is -t log f - (1 - t) log(1 - f).

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms.
        expected_target: t in [0, 1], the target of labels marked 2.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> labels = tf.constant([[1, -1, 2]])
        >>> logits = tf.math.log([[3.0, 1.0, 3.0]])  # f = 3/4, 1/2, 3/4
        >>> round(float(expected_positive(labels, logits)[0]), 4)  # (2 ln 4/3 + ln 2) / 3
        0.4228
    """
    marked = tf.cast(labels == EXPECTED, logits.dtype)
    positive = tf.cast(labels == POSITIVE, logits.dtype) + expected_target * marked
    return masked_cross_entropy(logits, positive, 1 - positive, weights)


@keras.saving.register_keras_serializable("spml_tf")
class ExpectedPositive(LabelLoss, ExpectedPositiveOptions):
    """`expected_positive` (Table 2, EP) as a Keras loss.

    Args:
        expected_target: of labels marked 2, in [0, 1].
        kwargs: as for `LabelLoss`.

    Examples:
        >>> loss = ExpectedPositive()
        >>> round(float(loss([[1, -1, 2]], [[0.75, 0.5, 0.75]])), 4)  # (2 ln 4/3 + ln 2) / 3
        0.4228
    """

    function = staticmethod(expected_positive)
    marks = "positives"
