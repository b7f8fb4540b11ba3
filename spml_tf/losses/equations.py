"""The classification losses (eqs. 1, 2, 5) and the consistency losses (eqs. 6, 7).

Every classification loss is a pure function of labels [B, L] and logits [B, L]; `methods` holds
their classes and names. Labels are 1 (positive), 0 (negative), -1 (unknown) and 2 (unknown, but
expected to be positive by the selection).
"""

from __future__ import annotations

import tensorflow as tf

from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE


def _cross_entropy(logits: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tf.Tensor:
    """1/L times the sum of -log f over `positive` and -log(1-f) over `negative`, per image."""
    positive, negative = tf.cast(positive, logits.dtype), tf.cast(negative, logits.dtype)
    terms = positive * tf.nn.softplus(-logits) + negative * tf.nn.softplus(logits)
    return tf.reduce_mean(terms, axis=-1)


def known_binary_crossentropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy on known labels only, eq. 1.

    Args:
        labels: [B, L] in {1, 0, -1, 2}; -1 and 2 contribute nothing.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    return _cross_entropy(logits, labels == POSITIVE, labels == NEGATIVE)


def assume_negative(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Every label that is not positive is a negative, eq. 2.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    return _cross_entropy(logits, labels == POSITIVE, labels != POSITIVE)


def expected_negative(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Unknown labels are negatives, but the expected positives among them are ignored, eq. 5.

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    ignored = (labels == POSITIVE) | (labels == EXPECTED)
    return _cross_entropy(logits, labels == POSITIVE, ~ignored)


def expected_positive(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """As `expected_negative`, but expected positives are trained as positives (Table 2, EP).

    Args:
        labels: [B, L] in {1, 0, -1, 2}.
        logits: [B, L] float.

    Returns:
        [B] float, the sum over classes divided by L.
    """
    positive = (labels == POSITIVE) | (labels == EXPECTED)
    return _cross_entropy(logits, positive, ~positive)


def score_consistency(scores: tf.Tensor, targets: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """CL, eq. 6: mean |f^t - s^(t-1)| over classes and the images that were visited before.

    Args:
        scores: [B, L] float in [0, 1], with gradient.
        targets: [B, L] float in [0, 1]; no gradient flows into them.
        counts: [B] bool, images that have a target.

    Returns:
        scalar float, 0 where no image counts.
    """
    return _masked_l1(scores, targets, counts)


def spatial_consistency(maps: tf.Tensor, targets: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """SCL, eq. 7: mean |sigmoid(F^t) - T^t(H^(t-1))| over classes and the samples that count.

    Args:
        maps: [B, G, G, L] float in [0, 1], with gradient.
        targets: [B, G, G, L] float in [0, 1]; no gradient flows into them.
        counts: [B, G, G] bool, samples whose target has been visited.

    Returns:
        scalar float, 0 where no sample counts.
    """
    return _masked_l1(maps, targets, counts)


def sparse_spatial_consistency(
    maps: tf.Tensor, targets: tf.Tensor, counts: tf.Tensor, num_classes: int
) -> tf.Tensor:
    """SCL, eq. 7, over some classes of each image: those left out add nothing (ours).

    Args:
        maps: [B, G, G, k] float in [0, 1], with gradient.
        targets: [B, G, G, k] float in [0, 1]; no gradient flows into them.
        counts: [B, G, G, k] bool, entries whose target has been visited.
        num_classes: L, by which the sum over classes is divided.

    Returns:
        scalar float, the mean over samples with an entry that counts, 0 where none does; with all
        classes in every entry equal to `spatial_consistency`.
    """
    distances = tf.abs(maps - tf.stop_gradient(targets)) * tf.cast(counts, maps.dtype)
    samples = tf.reduce_sum(tf.cast(tf.reduce_any(counts, axis=-1), maps.dtype))
    return tf.math.divide_no_nan(tf.reduce_sum(distances) / num_classes, samples)


def _masked_l1(values: tf.Tensor, targets: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    distances = tf.reduce_mean(tf.abs(values - tf.stop_gradient(targets)), axis=-1)
    weights = tf.cast(counts, distances.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(distances * weights), tf.reduce_sum(weights))
