"""EM: the entropy of the scores of unknown labels is raised; with pseudo-labels (APL) too."""

from __future__ import annotations

import keras
import tensorflow as tf

from spml_tf.labels import UNKNOWN
from spml_tf.losses.cross_entropy import known_binary_crossentropy, soft_cross_entropy
from spml_tf.losses.label_loss import LabelLoss, mean_over_classes
from spml_tf.losses.options import EntropyMaximizationOptions


def entropy_maximization(
    labels: tf.Tensor,
    logits: tf.Tensor,
    entropy_weight: float,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """EM: cross-entropy of the known labels less alpha times the entropy of the unknown scores.

    BCE of the known labels - (alpha/L) sum over z = -1 of H(f),
    H(f) = -f log f - (1 - f) log(1 - f), f = sigmoid(logit).
    Zhou et al., "Acknowledging the Unknown for Multi-Label Learning with Single Positive Labels"
    (ECCV 2022), without its pseudo-labels.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; 2 contributes nothing.
        logits: [B, L] float.
        entropy_weight: alpha, at least 0.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L; may be negative.

    Examples:
        >>> labels = tf.constant([[1, -1]])  # H(1/2) = ln 2
        >>> value = entropy_maximization(labels, tf.zeros([1, 2]), entropy_weight=0.1)[0]
        >>> round(float(value), 4)  # (1 - 0.1) ln 2 / 2
        0.3119
    """
    unknown = tf.cast(labels == UNKNOWN, logits.dtype)
    entropy = soft_cross_entropy(tf.sigmoid(logits), logits)
    known = known_binary_crossentropy(labels, logits, weights)
    return known - entropy_weight * mean_over_classes(unknown * entropy, weights)


@keras.saving.register_keras_serializable("spml_tf")
class EntropyMaximization(LabelLoss, EntropyMaximizationOptions):
    """`entropy_maximization` (EM) as a Keras loss.

    Args:
        entropy_weight: alpha, in [0, 1000].
        kwargs: as for `LabelLoss`.

    Examples:
        >>> loss = EntropyMaximization(entropy_weight=0.1)
        >>> round(float(loss([[1, -1]], [[0.5, 0.5]])), 4)  # (1 - 0.1) ln 2 / 2
        0.3119
    """

    function = staticmethod(entropy_maximization)
    marks = "left out"


def pseudo_labelled_entropy(
    labels: tf.Tensor,
    logits: tf.Tensor,
    targets: tf.Tensor,
    entropy_weight: float,
    pseudo_label_weight: float,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """EM with asymmetric pseudo-labels (APL): some unknown labels have a soft target.

    As `entropy_maximization`, but of an unknown label with a target t the term is
    (beta/L) [-t log f - (1 - t) log(1 - f)] in place of -(alpha/L) H(f).
    Zhou et al. (ECCV 2022).

    Args:
        labels: [B, L] in {1, 0, -1, 2}; 2 contributes nothing.
        logits: [B, L] float.
        targets: [B, L] float, in [0, 1], below 0 where there is none; known labels' do not count.
        entropy_weight: alpha, at least 0.
        pseudo_label_weight: beta, at least 0.
        weights: [B, L] float or None, factors of the terms.

    Returns:
        [B] float, the sum over classes divided by L; may be negative.

    Examples:
        >>> labels, targets = tf.constant([[1, -1, -1]]), tf.constant([[-1.0, 0.25, -1.0]])
        >>> value = pseudo_labelled_entropy(labels, tf.zeros([1, 3]), targets, 0.1, 0.5)[0]
        >>> round(float(value), 4)  # (1 + 0.5 - 0.1) ln 2 / 3, both parts of a target are ln 2
        0.3235
    """
    unknown = labels == UNKNOWN
    with_target = unknown & (targets >= 0)
    entropy = soft_cross_entropy(tf.sigmoid(logits), logits)
    pseudo = soft_cross_entropy(tf.maximum(targets, 0.0), logits)
    terms = tf.where(unknown, -entropy_weight * entropy, tf.zeros_like(entropy))
    terms = tf.where(with_target, pseudo_label_weight * pseudo, terms)
    return known_binary_crossentropy(labels, logits, weights) + mean_over_classes(terms, weights)
