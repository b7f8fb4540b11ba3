"""Weights of the training labels: of a batch, of `fit`, and those that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class LabelWeights:
    """The weights that hold for the labels of all batches, beside those of a batch's images.

    Args:
        num_images: N.
        num_classes: L.
    """

    def __init__(self, num_images: int, num_classes: int) -> None:
        self.num_images, self.num_classes = num_images, num_classes
        self._of_fit: NDArray[np.float32] | None = None
        self._kept: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def set_of_fit(self, class_weight: Mapping[int, float] | None) -> bool:
        """Takes the `class_weight` of `fit`; whether it is another one than before.

        Raises:
            ValueError: for what is no dict from class to number.
        """
        before, self._of_fit = self._of_fit, class_factors(class_weight, self.num_classes)
        if before is None or self._of_fit is None:
            return before is not self._of_fit
        return not np.array_equal(before, self._of_fit)

    def keep(self, images: NDArray[np.float32] | None, classes: NDArray[np.float32] | None) -> None:
        """Takes weights of images, [N], and of classes, [L], for all batches; None: all 1.

        Raises:
            ValueError: another number of images or classes, or weights that are no numbers from 0.
        """
        of_images, of_classes = (
            np.ones(count, np.float32) if given is None else np.asarray(given, np.float32)
            for given, count in ((images, self.num_images), (classes, self.num_classes))
        )
        if (of_images.shape, of_classes.shape) != ((self.num_images,), (self.num_classes,)):
            raise ValueError(
                f"weights of {of_images.shape} images and {of_classes.shape} classes do not fit "
                f"{self.num_images} images and {self.num_classes} classes"
            )
        check_numbers("weights of images", of_images)
        check_numbers("weights of classes", of_classes)
        self._kept = of_images, of_classes

    def of_batch(self, sample_weight: Any, index: tf.Tensor, labels: tf.Tensor) -> tf.Tensor | None:
        """All weights of a batch's labels multiplied, [B, L] float32; None where there are none.

        Args:
            sample_weight: [B], [B, 1] or [B, L] float, or None.
            index: [B] int64, the images' numbers in [0, N).
            labels: [B, L].
        """
        weight = label_weights(sample_weight, self._of_fit, labels)
        if self._kept is None:
            return weight
        of_images, of_classes = self._kept
        kept = label_weights(tf.gather(of_images, index), of_classes, labels)
        return kept if weight is None else weight * kept


def label_weights(
    sample_weight: Any, class_factors: NDArray[np.float32] | None, labels: tf.Tensor
) -> tf.Tensor | None:
    """Factors of the terms of each label.

    Args:
        sample_weight: [B], [B, 1] or [B, L] float, or None.
        class_factors: [L] float, or None.
        labels: [B, L].

    Returns:
        [B, L] float32, the product of both; None where there are neither.
    """
    if sample_weight is None and class_factors is None:
        return None
    weight = tf.ones(tf.shape(labels), tf.float32)
    if sample_weight is not None:
        given = tf.cast(sample_weight, tf.float32)
        if given.shape.rank is None:  # as of `tf.py_function`: [B] must not meet classes
            given = tf.reshape(given, [tf.shape(labels)[0], -1])
        weight *= given[:, None] if given.shape.rank == 1 else given
    return weight if class_factors is None else weight * class_factors


def class_factors(class_weight: Any, num_classes: int) -> NDArray[np.float32] | None:
    """The `class_weight` of `fit` as an array.

    Args:
        class_weight: dict from class to factor, 1 for those it lacks; or None.
        num_classes: L.

    Returns:
        [L] float32, or None.

    Raises:
        ValueError: for what is no such dict, and factors that are no numbers from 0.

    Examples:
        >>> class_factors({1: 2.5}, 3).tolist()
        [1.0, 2.5, 1.0]
    """
    if class_weight is None:
        return None
    if not isinstance(class_weight, Mapping) or not set(class_weight) <= set(range(num_classes)):
        raise ValueError(
            f"class_weight must be a dict from classes 0 to {num_classes - 1} to numbers. "
            f"Received: {class_weight}"
        )
    factors = np.array([class_weight.get(x, 1.0) for x in range(num_classes)], np.float32)
    check_numbers("class_weight", factors)
    return factors


def check_numbers(name: str, weights: NDArray[Any]) -> None:
    """Raises ValueError for weights, called `name`, that are no numbers from 0."""
    wrong = weights[~(np.isfinite(weights) & (weights >= 0))]
    if wrong.size:
        raise ValueError(f"{name} must be numbers from 0. Received: {wrong[0]:g}")
