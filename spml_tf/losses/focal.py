"""Losses whose terms fade where a label is easy or likely wrong: Hill, ASL, P-ASL."""

from __future__ import annotations

import keras
import tensorflow as tf

from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.losses.label_loss import LabelLoss, mean_over_classes, without_marked
from spml_tf.losses.options import PartialAsymmetricOptions

# Hill's margin and weight, ASL's shift and exponent.
MARGIN, HILL_WEIGHT = 1.0, 1.5
ASL_SHIFT, ASL_FOCUS = 0.05, 4


def hill(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Hill: a bounded loss on all that is not positive, which gives way where the score is high.

    (1/L) [sum over z in {1, 2} of -(1 - g)^2 log g + sum over z in {0, -1} of (1.5 - f) f^2],
    f = sigmoid(logit), g = sigmoid(logit - 1).
    Zhang et al., "Simple and Robust Loss Design for Multi-Label Learning with Missing Labels"
    (2021). Positives and labels marked 2 have the focal margin loss. Gradients flow through all
    factors.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> labels = tf.constant([[1, -1]])
        >>> logits = tf.constant([[1.0, 0.0]])  # g = 1/2 of the first, f = 1/2 of the second
        >>> round(float(hill(labels, logits)[0]), 4)  # (ln 2 / 4 + 1 / 4) / 2
        0.2116
    """
    scores, shifted = tf.sigmoid(logits), logits - MARGIN
    positive = tf.square(tf.sigmoid(-shifted)) * tf.nn.softplus(-shifted)
    negative = (HILL_WEIGHT - scores) * tf.square(scores)
    terms = tf.where((labels == POSITIVE) | (labels == EXPECTED), positive, negative)
    return mean_over_classes(terms, weights)


@keras.saving.register_keras_serializable("spml_tf")
class Hill(LabelLoss):
    """`hill` as a Keras loss. Arguments as for `LabelLoss`.

    Examples:
        >>> loss = Hill(from_logits=True)
        >>> round(float(loss([[1, -1]], [[1.0, 0.0]])), 4)  # (ln 2 / 4 + 1 / 4) / 2
        0.2116
    """

    function = staticmethod(hill)
    marks = "positives"


def asymmetric(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """ASL with gamma+ = 0, gamma- = 4 and a shift of 0.05 of the negatives' scores.

    (1/L) [sum over z = 1 of -log f + sum over z in {0, -1} of -p^4 log(1 - p)],
    f = sigmoid(logit), p = max(f - 0.05, 0).
    Ridnik et al., "Asymmetric Loss for Multi-Label Classification" (ICCV 2021). As theirs does, it
    treats the focal weight p^4 as a constant in the gradient.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; 2 contributes nothing.
        logits: [B, L] float.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> value = asymmetric(tf.constant([[1, -1]]), tf.zeros([1, 2]))[0]  # p = 0.45
        >>> round(float(value), 4)  # (ln 2 - 0.45^4 ln 0.55) / 2
        0.3588
    """
    shifted = tf.maximum(tf.sigmoid(logits) - ASL_SHIFT, 0.0)
    weight = tf.stop_gradient(shifted**ASL_FOCUS)
    negative = -weight * tf.math.log1p(-shifted)
    terms = tf.where(labels == POSITIVE, tf.nn.softplus(-logits), negative)
    return mean_over_classes(without_marked(terms, labels), weights)


@keras.saving.register_keras_serializable("spml_tf")
class Asymmetric(LabelLoss):
    """`asymmetric` (ASL) as a Keras loss. Arguments as for `LabelLoss`.

    Examples:
        >>> loss = Asymmetric()
        >>> round(float(loss([[1, -1]], [[0.5, 0.5]])), 4)  # (ln 2 - 0.45^4 ln 0.55) / 2
        0.3588
    """

    function = staticmethod(asymmetric)
    marks = "left out"


def partial_asymmetric(
    labels: tf.Tensor,
    logits: tf.Tensor,
    negative_focus: float = 3.0,
    unknown_focus: float = 4.0,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """P-ASL: as ASL, with a focus of its own for unknown labels; labels marked 2 are left out.

    (1/L) [sum over z = 1 of -log f + sum over z = 0 of -f^gn log(1 - f)
    + sum over z = -1 of -f^gu log(1 - f)], f = sigmoid(logit).
    Ben-Baruch et al., "Multi-Label Classification with Partial Annotations using Class-Aware
    Selective Loss" (CVPR 2022), without ASL's shift of the scores. The focal weight is a constant
    in the gradient, as in theirs.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; 2 contributes nothing.
        logits: [B, L] float.
        negative_focus: gn, at least 0.
        unknown_focus: gu, at least 0.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L.

    Examples:
        >>> labels = tf.constant([[1, 0, -1, 2]])
        >>> value = partial_asymmetric(labels, tf.zeros([1, 4]), 1.0, 2.0)[0]
        >>> round(float(value), 4)  # (1 + 1/2 + 1/4) ln 2 / 4
        0.3033
    """
    scores = tf.stop_gradient(tf.sigmoid(logits))
    negative = tf.nn.softplus(logits)
    terms = tf.where(labels == POSITIVE, tf.nn.softplus(-logits), tf.zeros_like(logits))
    terms = tf.where(labels == NEGATIVE, scores**negative_focus * negative, terms)
    terms = tf.where(labels == UNKNOWN, scores**unknown_focus * negative, terms)
    return mean_over_classes(terms, weights)


@keras.saving.register_keras_serializable("spml_tf")
class PartialAsymmetric(LabelLoss, PartialAsymmetricOptions):
    """`partial_asymmetric` (P-ASL) as a Keras loss.

    Args:
        negative_focus: gamma of known negatives.
        unknown_focus: gamma of unknown labels.
        kwargs: as for `LabelLoss`.

    Examples:
        >>> loss = PartialAsymmetric(negative_focus=1.0, unknown_focus=2.0)
        >>> round(float(loss([[1, 0, -1, 2]], [[0.5] * 4])), 4)  # (1 + 1/2 + 1/4) ln 2 / 4
        0.3033
    """

    function = staticmethod(partial_asymmetric)
    marks = "left out"
