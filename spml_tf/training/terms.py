"""Terms of the loss (eq. 8): a loss of the labels, ROLE, CL (eq. 6) and SCL (eq. 7)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf import losses
from spml_tf.banks.heatmap_bank import HeatmapBank, heatmap_bank
from spml_tf.system import replicas
from spml_tf.training.label_store import LabelEstimates
from spml_tf.training.options import (
    ConsistencyOptions,
    RoleOptions,
    SpatialConsistencyOptions,
)
from spml_tf.training.parts import Facts, Step, Term


@keras.saving.register_keras_serializable("spml_tf")
class LabelTerm(Term):
    """The mean of a Keras loss of labels and logits over the images of a batch.

    Args:
        loss: a loss of `spml_tf.losses`, or a Keras loss of your own that takes labels [B, L] in
            {1, 0, -1, 2} as y_true and logits [B, L] as y_pred. One that has `from_logits` is
            given logits, whatever it says. One whose `call` returns a value an image, [B], takes
            weights of images alone; one that returns [B, L] those of labels too. One that returns
            one number for a batch is refused on several devices.
        kwargs: weight, start_epoch and name, as for `Term`.

    Examples:
        >>> term = LabelTerm(loss=losses.AssumeNegative())
        >>> labels, logits = tf.constant([[1, -1]], tf.int8), tf.zeros([1, 2])
        >>> round(float(term.evaluate(labels, logits, None)), 4)  # ln 2
        0.6931
    """

    reported_as: ClassVar[str] = "classification"
    trains_labels: ClassVar[bool] = True

    def __init__(self, loss: keras.losses.Loss, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = _usable(loss)
        self._replaced: keras.losses.Loss | None = None

    def replace(self, loss: keras.losses.Loss) -> None:
        """Computes with another loss until `restore`; the first one stays its own."""
        given = _usable(loss)
        if self._replaced is None:
            self._replaced = self.loss
        self.loss = given

    def restore(self) -> None:
        """Computes with its own loss again."""
        if self._replaced is not None:
            self.loss, self._replaced = self._replaced, None

    @contextlib.contextmanager
    def with_own_loss(self) -> Iterator[None]:
        """Within it `loss` is its own, whatever stands in for it."""
        given = self.loss
        self.loss = given if self._replaced is None else self._replaced
        try:
            yield
        finally:
            self.loss = given

    def check_marks(self, loss: Any = None) -> None:
        """Raises ValueError where its loss, or another in its place, does not look at marks."""
        loss = self.loss if loss is None else loss
        if isinstance(loss, losses.LabelLoss) and not loss.marks:
            raise ValueError(
                f"{type(loss).__name__} does not look at what the rules mark; take "
                "ExpectedNegative, which leaves marked labels out, or ExpectedPositive, or say in "
                'the class what yours makes of them, as marks = "left out"'
            )

    def compute(self, step: Step) -> tf.Tensor:
        return self.value(step.labels, step.logits, step.weight)

    def evaluate(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        return self.value(labels, logits, weight)

    def value(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        """The loss of a batch, scalar float32; arguments as for `evaluate`."""
        if not isinstance(self.loss, losses.LabelLoss):
            weight = self._for_own_loss(labels, logits, weight)
        value = self.loss(labels, logits, sample_weight=weight)
        return value if replicas.count() == 1 else self._of_replica(value, logits, weight)

    def _of_replica(
        self, value: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None
    ) -> tf.Tensor:
        """The loss such that its mean, weighed by replicas' images, is that of the whole batch."""
        images = tf.cast(tf.shape(logits)[0], value.dtype)
        if self.loss.reduction == "sum":
            every = replicas.sum_of_replicas(images)
            return value * tf.math.divide_no_nan(every, images)
        value *= replicas.count()  # a Keras loss has divided its mean by that number
        if self.loss.reduction == "mean_with_sample_weight" and weight is not None:
            # It has divided by this replica's weights.
            total = tf.reduce_sum(tf.cast(weight, value.dtype))
            counted = tf.cast(tf.size(weight), value.dtype)
            whole = replicas.sum_of_replicas(tf.stack([total, counted]))
            value *= tf.math.divide_no_nan(total * whole[1], counted * whole[0])
        return value

    def _for_own_loss(
        self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None
    ) -> tf.Tensor | None:
        """Weights [B, L] of labels as a loss of one's own takes them.

        Raises:
            ValueError: on several replicas, for a loss that does not say what each image has.
        """
        if weight is None and replicas.count() == 1:
            return None
        seen = (tf.cast(x, self.loss.dtype) for x in (labels, logits))  # as by `__call__`
        rank = self.loss.call(*seen).shape.rank
        if rank == 0 and replicas.count() > 1:
            raise ValueError(
                f"{type(self.loss).__name__}: its call returns one number for a batch, which "
                "several devices share; let it return a value an image, [B], or a label, [B, L]"
            )
        if rank != 1 or weight is None:
            return weight
        of_images = weight[:, :1]
        alike = tf.debugging.assert_equal(
            weight, tf.broadcast_to(of_images, tf.shape(weight)),
            f"{type(self.loss).__name__} gives one value an image, and weights differ between the "
            "labels of one; let its call return [B, L], or inherit from spml_tf.losses.LabelLoss",
        )  # fmt: skip
        with tf.control_dependencies([alike] if alike is not None else []):
            return of_images[:, 0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LabelTerm:
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})


def _usable(loss: Any) -> keras.losses.Loss:
    """A loss as a term takes it, of logits; ValueError where it cannot be one of labels."""
    if not isinstance(loss, keras.losses.Loss):
        raise ValueError(f"loss must be a Keras loss. Received: {loss!r}")
    if type(loss).__module__.partition(".")[0] == "keras":
        raise ValueError(
            f"loss: Keras' own {type(loss).__name__} would compute with -1 (unknown); take a "
            "loss of spml_tf.losses or write one"
        )
    config = loss.get_config()
    if loss.reduction in (None, "none"):
        raise ValueError(
            f"loss: {type(loss).__name__} with reduction={loss.reduction!r} gives no single "
            "number to minimise; leave reduction out"
        )
    if config.get("from_logits") is False:
        loss = type(loss).from_config({**config, "from_logits": True})
    elif getattr(loss, "from_logits", None) is False:  # a loss that has no get_config
        given, loss = loss, object.__new__(type(loss))  # Keras' copies go through a file
        vars(loss).update(vars(given), from_logits=True)
    return loss


@keras.saving.register_keras_serializable("spml_tf")
class Role(RoleOptions, Term):
    """ROLE: network and a table of estimated labels teach each other (Cole et al., CVPR 2021).

    Args:
        positives_per_image: K.
        kwargs: name, as Keras has it.

    Attributes:
        estimates: the table, trained along with the network.
    """

    reported_as: ClassVar[str] = "classification"
    trains_labels: ClassVar[bool] = True

    def prepare(self, facts: Facts) -> None:
        self.estimates = LabelEstimates(
            facts.num_images, facts.num_classes, facts.seed, facts.shard, name="label_estimates"
        )

    def start(self, labels: NDArray[np.int8]) -> None:
        self.estimates.start(labels)

    def compute(self, step: Step) -> tf.Tensor:
        estimates = self.estimates.read(step.index)
        values = losses.role(
            step.labels, step.logits, estimates, self.positives_per_image, weights=step.weight
        )
        return tf.reduce_mean(values)

    def evaluate(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        """EPR: images that are not trained on have no estimates."""
        loss = losses.ExpectedPositiveRegularization(
            from_logits=True, positives_per_image=self.positives_per_image
        )
        return loss(labels, logits, sample_weight=weight) * replicas.count()


@keras.saving.register_keras_serializable("spml_tf")
class ScoreConsistency(ConsistencyOptions, Term):
    """CL, eq. 6: the scores of a crop against the running average of the image's scores.

    Args:
        weight: gamma of eq. 8.
        start_epoch: first epoch in which it counts.
        kwargs: name, as Keras has it.
    """

    reported_as: ClassVar[str] = "consistency"
    of_whole_batch: ClassVar[bool] = True
    needs_scores = True

    def compute(self, step: Step) -> tf.Tensor:
        return losses.score_consistency(
            step.scores, step.average, step.visited, weights=step.weight
        )


@keras.saving.register_keras_serializable("spml_tf")
class SpatialConsistency(SpatialConsistencyOptions, Term):
    """SCL, eq. 7: the heatmaps of a crop against the running average of the image's heatmaps.

    Args:
        weight: gamma of eq. 8.
        start_epoch: first epoch in which it counts.
        heatmap_size: W, cells per side of the heatmap bank; None means the network's G.
        heatmap_classes: classes of each image whose heatmaps are kept; None means all, see
            `banks.heatmap_bank.CompactHeatmapBank`.
        kwargs: name, as Keras has it.

    Attributes:
        bank: H of eq. 7.
    """

    reported_as: ClassVar[str] = "consistency"
    of_whole_batch: ClassVar[bool] = True

    # Others set an attribute; here it follows from an option, and nobody sets it.
    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        return self.heatmap_classes is not None

    def prepare(self, facts: Facts) -> None:
        if not (self.heatmap_size or facts.grid):
            raise ValueError(
                "the network takes images of any size, so that its grid is not known: give "
                "heatmap_size, or give the network an image_size"
            )
        self.bank: HeatmapBank = heatmap_bank(
            facts.num_images,
            facts.num_classes,
            self.heatmap_size or facts.grid,
            self.heatmap_classes,
            **facts.of_banks,
        )

    def compute(self, step: Step) -> tf.Tensor:
        return self.bank.consistency(step.maps, step.index, step.box, step.flip, step.weight)

    def after_step(self, step: Step, average: tf.Tensor | None) -> None:
        self.bank.update(step.maps, step.index, step.box, step.flip, average, step.labels)
