"""The consistency losses: of scores (CL, eq. 6) and of heatmaps (SCL, eq. 7) with their averages.

Verelst et al., "Spatial Consistency Loss for Training Multi-Label Classifiers from Single-Label
Annotations" (WACV 2023).

Under a `tf.distribute` strategy the mean of their values over replicas is that of the whole batch.
"""

from __future__ import annotations

import tensorflow as tf

from spml_tf.system.replicas import mean_over_replicas


def score_consistency(
    scores: tf.Tensor,
    targets: tf.Tensor,
    counts: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """CL, eq. 6: mean |f^t - s^(t-1)| over classes and the images that were visited before.

    Args:
        scores: [B, L] float in [0, 1], with gradient.
        targets: [B, L] float in [0, 1]; no gradient flows into them.
        counts: [B] bool, images that have a target.
        weights: [B, L] float or None, factors of the distances; divided is by the number of images
            that count, whatever they weigh.

    Returns:
        scalar float, 0 where no image counts.

    Examples:
        >>> scores = tf.constant([[0.5, 0.5], [0.9, 0.9]])
        >>> targets = tf.constant([[0.25, 1.0], [0.0, 0.0]])
        >>> counts = tf.constant([True, False])
        >>> float(score_consistency(scores, targets, counts))  # (0.25 + 0.5) / 2
        0.375
    """
    return _masked_l1(scores, targets, counts, weights)


def spatial_consistency(
    maps: tf.Tensor,
    targets: tf.Tensor,
    counts: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """SCL, eq. 7: mean |sigmoid(F^t) - T^t(H^(t-1))| over classes and the samples that count.

    Args:
        maps: [B, G, G, L] float in [0, 1], with gradient.
        targets: [B, G, G, L] float in [0, 1]; no gradient flows into them.
        counts: [B, G, G] bool, samples whose target has been visited.
        weights: [B, L] float or None, factors of the distances; divided is by the number of samples
            that count, whatever they weigh.

    Returns:
        scalar float, 0 where no sample counts.

    Examples:
        >>> maps = tf.constant([0.25, 0.5, 0.75, 1.0], shape=(1, 2, 2, 1))
        >>> counts = tf.constant([True, True, True, False], shape=(1, 2, 2))
        >>> float(spatial_consistency(maps, tf.zeros_like(maps), counts))  # (0.25 + 0.5 + 0.75) / 3
        0.5
    """
    return _masked_l1(maps, targets, counts, _of_samples(weights))


def sparse_spatial_consistency(
    maps: tf.Tensor,
    targets: tf.Tensor,
    counts: tf.Tensor,
    num_classes: int,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """SCL, eq. 7, over some classes of each image: those left out add nothing (ours).

    Args:
        maps: [B, G, G, k] float in [0, 1], with gradient.
        targets: [B, G, G, k] float in [0, 1]; no gradient flows into them.
        counts: [B, G, G, k] bool, entries whose target has been visited.
        num_classes: L, by which the sum over classes is divided.
        weights: [B, k] float or None, factors of the distances, of the classes that are kept.

    Returns:
        scalar float, the mean over samples with an entry that counts, 0 where none does; with all
        classes in every entry equal to `spatial_consistency`.

    Examples:
        >>> maps = tf.constant([0.25, 0.75, 1.0, 1.0], shape=(1, 1, 2, 2))
        >>> counts = tf.constant([True, True, False, False], shape=(1, 1, 2, 2))
        >>> value = sparse_spatial_consistency(maps, tf.zeros_like(maps), counts, num_classes=4)
        >>> float(value)  # (0.25 + 0.75) / 4 of the one sample that counts
        0.25
    """
    distances = tf.abs(maps - tf.stop_gradient(targets)) * tf.cast(counts, maps.dtype)
    if weights is not None:
        distances *= _of_samples(weights)
    samples = tf.reduce_sum(tf.cast(tf.reduce_any(counts, axis=-1), maps.dtype))
    return mean_over_replicas(tf.reduce_sum(distances) / num_classes, samples)


def _masked_l1(
    values: tf.Tensor, targets: tf.Tensor, counts: tf.Tensor, weights: tf.Tensor | None
) -> tf.Tensor:
    distances = tf.abs(values - tf.stop_gradient(targets))
    if weights is not None:
        distances *= weights
    distances = tf.reduce_mean(distances, axis=-1)
    counted = tf.cast(counts, distances.dtype)
    return mean_over_replicas(tf.reduce_sum(distances * counted), tf.reduce_sum(counted))


def _of_samples(weights: tf.Tensor | None) -> tf.Tensor | None:
    """Weights [B, L] for maps [B, G, G, L]."""
    return None if weights is None else weights[:, None, None, :]
