"""Losses of related work, to compare with: pure functions of labels [B, L] and logits [B, L].

Labels are 1 (positive), 0 (negative), -1 (unknown) and 2 (unknown, but marked by a rule of the
method). f = sigmoid(logit). Logarithms are exact, computed from the logits; public implementations
add small constants inside them. Whatever a method makes of unknown labels, a known negative always
has its full negative term.
"""

from __future__ import annotations

import math

import tensorflow as tf

from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE, UNKNOWN

# Label smoothing, Hill's margin and weight, SPLC's threshold, ASL's shift and exponent.
SMOOTHING = 0.1
MARGIN, HILL_WEIGHT = 1.0, 1.5
SPLC_THRESHOLD = 0.6
ASL_SHIFT, ASL_FOCUS = 0.05, 4
# Initial estimates of ROLE: of observed positives, of observed negatives, bound of the others.
ROLE_POSITIVE, ROLE_NEGATIVE, ROLE_UNKNOWN = 0.995, 0.005, 0.6


def smoothed_assume_negative(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """AN with label smoothing: the target is 0.9 for positives and 0.1 for all others.

    Cole et al. (CVPR 2021), who smooth both by eps = 0.1; Keras' smoothing would give 0.95 and
    0.05.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    positive = tf.cast(labels == POSITIVE, logits.dtype)
    target = SMOOTHING + (1 - 2 * SMOOTHING) * positive
    return _mean(_cross_entropy(target, logits))


def weak_assume_negative(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """WAN: as AN, but the negative terms of unknown labels weigh 1 / (L - 1).

    Mac Aodha et al. (ICCV 2019), in the form of Cole et al. (CVPR 2021).

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    weak = tf.constant(1.0 / max(int(logits.shape[-1]) - 1, 1), logits.dtype)
    weight = tf.where(labels == NEGATIVE, tf.ones_like(weak), weak)
    negative = weight * tf.nn.softplus(logits)
    return _mean(tf.where(labels == POSITIVE, tf.nn.softplus(-logits), negative))


def expected_positive_regularization(
    labels: tf.Tensor, logits: tf.Tensor, positives_per_image: float
) -> tf.Tensor:
    """EPR: known labels, and the batch's mean number of predicted positives is drawn to K.

    Cole et al. (CVPR 2021). The regulariser ((mean over the batch of sum_i f_i) - K)^2 / L^2 is one
    number for the batch; it is added to every image, so that the mean over images holds it once.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; -1 and 2 enter the regulariser only.
        logits: [B, L] float.
        positives_per_image: K, mean number of true positives per image.

    Returns:
        [B] float.
    """
    return _known(labels, logits) + _regularizer(tf.sigmoid(logits), positives_per_image)


def role(
    labels: tf.Tensor, logits: tf.Tensor, estimates: tf.Tensor, positives_per_image: float
) -> tf.Tensor:
    """ROLE: network and a table of estimated labels g teach each other, both under EPR.

    Cole et al. (CVPR 2021): half the sum of EPR of f, EPR of g, the cross-entropy of f against g
    and that of g against f; the target of a cross-entropy carries no gradient.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.
        estimates: [B, L] float, the logits of g for these images.
        positives_per_image: K.

    Returns:
        [B] float.
    """
    scores, estimated = tf.sigmoid(logits), tf.sigmoid(estimates)
    agreement = _cross_entropy(tf.stop_gradient(estimated), logits)
    agreement += _cross_entropy(tf.stop_gradient(scores), estimates)
    parts = _known(labels, logits) + _known(labels, estimates) + _mean(agreement)
    parts += _regularizer(scores, positives_per_image)
    return 0.5 * (parts + _regularizer(estimated, positives_per_image))


def role_estimates(labels: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Initial logits of ROLE's estimates.

    Args:
        labels: [N, L] in {1, 0, -1}.
        noise: [N, L] float in [-1, 1], uniform.

    Returns:
        [N, L] float: logit(0.995) for positives, logit(0.005) for negatives, logit(0.6) times the
        noise for unknown labels.
    """
    logits = [math.log(p / (1 - p)) for p in (ROLE_POSITIVE, ROLE_NEGATIVE, ROLE_UNKNOWN)]
    known = tf.where(labels == POSITIVE, logits[0], logits[1])
    return tf.where(labels == UNKNOWN, logits[2] * noise, tf.cast(known, noise.dtype))


def entropy_maximization(labels: tf.Tensor, logits: tf.Tensor, entropy_weight: float) -> tf.Tensor:
    """EM: known labels, and the entropy of the scores of unknown ones is raised.

    Zhou et al., "Acknowledging the Unknown" (ECCV 2022), without its pseudo-labels.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.
        entropy_weight: alpha.

    Returns:
        [B] float, the sum over classes divided by L; may be negative.
    """
    unknown = tf.cast((labels == UNKNOWN) | (labels == EXPECTED), logits.dtype)
    entropy = _cross_entropy(tf.sigmoid(logits), logits)
    return _known(labels, logits) - entropy_weight * _mean(unknown * entropy)


def hill(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Hill: a bounded loss on all that is not positive, which gives way where the score is high.

    Zhang et al., "Simple and Robust Loss Design for Multi-Label Learning with Missing Labels"
    (2021). Positives and labels marked 2 have the focal margin loss. Gradients flow through all
    factors.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    scores, shifted = tf.sigmoid(logits), logits - MARGIN
    positive = tf.square(tf.sigmoid(-shifted)) * tf.nn.softplus(-shifted)
    negative = (HILL_WEIGHT - scores) * tf.square(scores)
    return _mean(tf.where((labels == POSITIVE) | (labels == EXPECTED), positive, negative))


def asymmetric(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """ASL with gamma+ = 0, gamma- = 4 and a shift of 0.05 of the negatives' scores.

    Ridnik et al., "Asymmetric Loss for Multi-Label Classification" (ICCV 2021). As theirs does, it
    treats the focal weight p^4 as a constant in the gradient.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; all that is not 1 is a negative.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    shifted = tf.maximum(tf.sigmoid(logits) - ASL_SHIFT, 0.0)
    weight = tf.stop_gradient(shifted**ASL_FOCUS)
    negative = -weight * tf.math.log1p(-shifted)
    return _mean(tf.where(labels == POSITIVE, tf.nn.softplus(-logits), negative))


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

    Zhang et al. (2021), as `hill`.

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


def _cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Against targets in [0, 1], elementwise."""
    return target * tf.nn.softplus(-logits) + (1 - target) * tf.nn.softplus(logits)


def _known(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the known labels, [B], divided by L."""
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    target = tf.cast(labels == POSITIVE, logits.dtype)
    return _mean(tf.cast(known, logits.dtype) * _cross_entropy(target, logits))


def _regularizer(scores: tf.Tensor, positives_per_image: float) -> tf.Tensor:
    """R of EPR, a scalar."""
    predicted = tf.reduce_mean(tf.reduce_sum(scores, axis=-1))
    return tf.square((predicted - positives_per_image) / int(scores.shape[-1]))


def _mean(terms: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(terms, axis=-1)
