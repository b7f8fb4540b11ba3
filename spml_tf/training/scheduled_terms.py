"""Terms of the loss that change with the epochs: GR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
import tensorflow as tf

from spml_tf import losses
from spml_tf.training.options import GeneralizedRobustOptions
from spml_tf.training.parts import Facts, Step, Term

if TYPE_CHECKING:
    from spml_tf.banks.ema_bank import EMABank


@keras.saving.register_keras_serializable("spml_tf")
class GeneralizedRobustTerm(GeneralizedRobustOptions, Term):
    """The GR loss, whose constants move with the epochs (Chen et al., IJCAI 2024).

    At epoch e, with T = `epochs` and n = `head_epochs`, w and b have gone (e - n - 1) / (T - n) of
    their way, mu and sigma (e - n) / (T - n). Both fractions stay in [0, 1].

    Args:
        epochs: T.
        head_epochs: n, first epochs without a change.
        slope_start, slope_end, offset_start, offset_end: w and b at first and at last.
        mean_start, mean_end, deviation_start, deviation_end: mu and sigma at first and at last.
        positive_power, negative_power: q2 and q3.
        kwargs: name, as Keras has it.

    Attributes:
        epoch: int64 scalar weight, the epoch of the last training step; evaluation computes with
            its constants.

    Examples:
        >>> term = GeneralizedRobustTerm(epochs=4)
        >>> {name: round(float(x), 3) for name, x in term.constants(tf.constant(3)).items()}
        {'slope': 1.0, 'offset': -2.0, 'mean': 0.725, 'deviation': 0.875}
    """

    reported_as: ClassVar[str] = "classification"
    trains_labels: ClassVar[bool] = True
    marks: ClassVar[str] = "left out"

    def prepare(self, facts: Facts) -> None:
        self.epoch = self.state("epoch", (), "int64", 1)

    def on_epoch(self, epoch: int, scores: EMABank | None) -> None:
        self.epoch.assign(epoch)

    def constants(self, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
        """w, b, mu and sigma of an epoch, float32 scalars by the names of the loss' arguments.

        Args:
            epoch: int scalar, counted from 1.
        """
        done = tf.cast(epoch - self.head_epochs, tf.float32)
        whole = max(self.epochs - self.head_epochs, 1)
        late, early = (tf.clip_by_value(x / whole, 0.0, 1.0) for x in (done - 1, done))
        fractions = {"slope": late, "offset": late, "mean": early, "deviation": early}
        found = {}
        for name, fraction in fractions.items():
            start, end = getattr(self, f"{name}_start"), getattr(self, f"{name}_end")
            found[name] = start + fraction * (end - start)
        return found

    def compute(self, step: Step) -> tf.Tensor:
        return self._value(step.labels, step.logits, step.weight, step.epoch)

    def evaluate(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        return self._value(labels, logits, weight, self.epoch.value)

    def _value(self, labels: Any, logits: Any, weight: Any, epoch: tf.Tensor) -> tf.Tensor:
        powers = {
            "positive_power": self.positive_power, "negative_power": self.negative_power,
        }  # fmt: skip
        values = losses.generalized_robust(
            labels, logits, **self.constants(epoch), **powers, weights=weight
        )
        return tf.reduce_mean(values)
