"""What the losses of labels share: the Keras class around each, and the mean over classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.options import Options


class _Weighted(NamedTuple):
    """Labels with weights of their own, both [B, L], as `LabelLoss` hands them to its `call`."""

    labels: Any
    weights: Any


class LabelLoss(keras.losses.Loss, Options):
    """A Keras loss around a function of labels and logits; the base class of all losses here.

    y_true are labels [B, L] (images by classes) in {1 positive, 0 negative, -1 unknown, 2 unknown
    but marked by a rule}, of any integer, boolean or floating type. y_pred are [B, L] float, logits
    or probabilities. A subclass sets `function`, and declares the options that the function takes
    by `spml_tf.system.options.option`.

    Args:
        from_logits: whether y_pred are logits, any real numbers. Else they are probabilities in
            [0, 1], which are clipped to [epsilon, 1 - epsilon], epsilon =
            `keras.config.epsilon()`, and turned into logits.
        reduction: as for all Keras losses.
        name: as for all Keras losses.
        dtype: as for all Keras losses; None is float32.
        options: what the class declares.

    Raises:
        ValueError: for an option that may not stand; when called, for shapes that differ and,
            outside of `tf.function` and `fit`, for labels of another value and for probabilities
            outside [0, 1]; for a function that returns one number.

    Attributes:
        function: (labels, logits, **options, weights=None) -> [B], one value an image.
        marks: what it makes of labels marked 2, as "left out". Where it says so, a registered loss
            may follow a method that marks labels, as in "en+name".

    Examples:
        >>> class HalfNegative(LabelLoss):  # at logit 0, -log f = -log(1 - f) = ln 2 = 0.6931
        ...     @staticmethod
        ...     def function(labels, logits, weights=None):
        ...         weight = tf.where(labels == -1, 0.5, 1.0)
        ...         negative = weight * tf.nn.softplus(logits)
        ...         terms = tf.where(labels == 1, tf.nn.softplus(-logits), negative)
        ...         return mean_over_classes(terms, weights)
        >>> loss = HalfNegative(from_logits=True)
        >>> round(float(loss([[1, -1]], [[0.0, 0.0]])), 4)  # (1 + 0.5) ln 2 / 2
        0.5199
    """

    function: ClassVar[Callable[..., tf.Tensor]]
    marks: ClassVar[str] = ""

    if TYPE_CHECKING:  # arguments of the constructor, beside the options that subclasses declare
        from_logits: bool = False
        reduction: str | None = "sum_over_batch_size"
        name: str | None = None
        dtype: Any = None

    def __init__(
        self,
        from_logits: bool = False,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.from_logits = from_logits
        self.take_options(options)
        if options:
            raise TypeError(f"{type(self).__name__} takes no argument {next(iter(options))!r}")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The loss of a batch.

        Args:
            y_true: [B, L], labels.
            y_pred: [B, L] float.
            sample_weight: None; [B] or [B, 1], each image's weight, as for all Keras losses; or
                [B, L], each label's. The mean is over images and classes, whatever the weights.

        Returns:
            scalar float32, or [B] with the reduction None.
        """
        if sample_weight is not None:
            weights = tf.cast(tf.convert_to_tensor(sample_weight), self.dtype)
            if weights.shape.rank == 2 and weights.shape[-1] != 1:
                if self.reduction == "mean_with_sample_weight":
                    weights = tf.math.divide_no_nan(weights, tf.reduce_mean(weights))
                y_true, sample_weight = _Weighted(tf.convert_to_tensor(y_true), weights), None
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value an image, [B]; arguments as for `__call__`."""
        labels, weights = y_true if isinstance(y_true, _Weighted) else (y_true, None)
        labels, outputs = tf.convert_to_tensor(labels), tf.convert_to_tensor(y_pred)
        self._check(labels, outputs, weights)
        logits = outputs if self.from_logits else _logits(outputs)
        given = {} if weights is None else {"weights": weights}
        values = type(self).function(labels, logits, **self.options(), **given)
        if values.shape.rank == 0:
            raise ValueError(
                f"{type(self).__name__}: its function returns one number for a batch; it must "
                "return one value an image, [B]"
            )
        return values

    def get_config(self) -> dict[str, Any]:
        own = {"from_logits": self.from_logits, "dtype": self.dtype, **self.options()}
        return {**super().get_config(), **own}

    def _check(self, labels: tf.Tensor, outputs: tf.Tensor, weights: tf.Tensor | None) -> None:
        """Raises ValueError for what cannot be meant; reads values only where that is free."""
        name = type(self).__name__
        if not labels.shape.is_compatible_with(outputs.shape):
            raise ValueError(
                f"{name}: y_true has the shape {labels.shape} and y_pred {outputs.shape}; both "
                "must be [images, classes]"
            )
        if weights is not None:
            if not weights.shape.is_compatible_with(outputs.shape):
                raise ValueError(
                    f"{name}: sample_weight has the shape {weights.shape} and y_pred "
                    f"{outputs.shape}; give one weight an image, [B], or one a label, [B, L]"
                )
            if "weights" not in inspect.signature(type(self).function).parameters:
                raise ValueError(
                    f"{name}: sample_weight [B, L] needs a function that takes weights=None, and "
                    "this one does not; give one weight an image, [B]"
                )
        if not tf.executing_eagerly():
            return
        values = labels.numpy()
        wrong = values[~np.isin(values, (POSITIVE, NEGATIVE, UNKNOWN, EXPECTED))]
        if wrong.size:
            raise ValueError(
                f"{name}: y_true holds {wrong[0]:g}; labels are 1 (positive), 0 (negative), -1 "
                "(unknown) or 2 (unknown, but expected to be positive). Round soft labels, or "
                "make the unsure ones -1"
            )
        if not self.from_logits:
            values = outputs.numpy()
            wrong = values[(values < 0) | (values > 1)]
            if wrong.size:
                raise ValueError(
                    f"{name}: y_pred holds {wrong[0]:g}, which is no probability; give "
                    "from_logits=True for logits, or end the network in a sigmoid"
                )


def mean_over_classes(terms: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """The mean of a loss' terms over classes, (1/L) sum_i w_i t_i, for losses of your own too.

    Args:
        terms: [B, L] float, one term a label.
        weights: [B, L] float or None, which is 1 everywhere. Divided is by L, not by their sum.

    Returns:
        [B] float.

    Examples:
        >>> mean_over_classes(tf.constant([[1.0, 3.0]])).numpy().tolist()
        [2.0]
        >>> mean_over_classes(tf.constant([[1.0, 3.0]]), tf.constant([[1.0, 0.0]])).numpy().tolist()
        [0.5]
    """
    if weights is not None:
        terms = terms * weights
    return tf.reduce_mean(terms, axis=-1)


def without_marked(terms: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """A loss' terms [B, L] float with 0 where the label, [B, L], is marked 2: it is left out.

    Examples:
        >>> without_marked(tf.constant([[1.0, 3.0]]), tf.constant([[-1, 2]])).numpy().tolist()
        [[1.0, 0.0]]
    """
    return tf.where(labels == EXPECTED, tf.zeros_like(terms), terms)


def _logits(probabilities: tf.Tensor) -> tf.Tensor:
    epsilon = keras.config.epsilon()
    inside = tf.clip_by_value(probabilities, epsilon, 1 - epsilon)
    return tf.math.log(inside) - tf.math.log1p(-inside)
