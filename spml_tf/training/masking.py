"""A rule that asks the network again with all but the given label's region removed: IGNORE."""

from __future__ import annotations

import keras
import tensorflow as tf

from spml_tf.labels import EXPECTED, POSITIVE, UNKNOWN
from spml_tf.system import replicas
from spml_tf.system.private_api import outside_strategy
from spml_tf.training.options import InformationGapOptions
from spml_tf.training.parts import Facts, Rule, Step


@keras.saving.register_keras_serializable("spml_tf")
class InformationGap(Rule, InformationGapOptions):
    """Marks unknown labels whose logit changes once only the given label's region is seen.

    Song et al., "IGNORE: Information Gap-Based False Negative Loss Rejection for Single Positive
    Multi-Label Learning" (ECCV 2024). Of an image with one positive all is set to the colour that
    the network's scaling maps to 0, as theirs is after normalisation (see
    `networks.preprocessing.zero_colour`), but where that label's class activation map, scaled to
    [0, 1], is above `threshold`. An unknown label is marked where its logit differs from that of
    the masked image by more than the average gap of positives, and is above the average logit of
    its class. Both averages follow the batches of all replicas from the first epoch on.

    Ours: both passes are in inference mode, so that the statistics of batch normalisation see whole
    images only; the first batch sets the averages; images with several positives stay whole and do
    not count in the average gap; the loss is divided by all labels, theirs by those that are kept.
    The paper's strongly augmented view and further terms are not here.

    Args:
        threshold: of the scaled map, in [0, 1).
        momentum: of the averages, in [0, 1).
        warmup_epochs: epochs without marks.
        kwargs: name, as Keras has it.

    Attributes:
        gap: float32 scalar weight, average gap of positives; below 0 before the first.
        average: float32 [L] weight, average logits of the classes.
        steps: int64 scalar weight, steps that the averages have seen.
    """

    needs_images = True

    def prepare(self, facts: Facts) -> None:
        self.zero_colour = facts.zero_colour
        with outside_strategy(), tf.device("CPU:0"):
            self.gap = self.state("gap", (), "float32", -1)
            self.average = self.state("average", (facts.num_classes,), "float32")
            self.steps = self.state("steps", (), "int64")

    def mark(self, step: Step) -> tf.Tensor:
        assert step.network is not None
        maps = tf.stop_gradient(step.network(step.image))
        masked = self.masked(step.image, maps, step.labels)
        logits = tf.reduce_mean(maps, axis=(1, 2))
        without = tf.reduce_mean(tf.stop_gradient(step.network(masked)), axis=(1, 2))
        gaps = tf.abs(logits - without)
        gap, average = self._follow(step.labels, gaps, logits)
        marked = (step.labels == UNKNOWN) & (gaps > gap) & (logits > average)
        marked &= (step.epoch > self.warmup_epochs) & (gap >= 0)  # else there is no average yet
        return tf.where(marked, tf.constant(EXPECTED, step.labels.dtype), step.labels)

    def masked(self, images: tf.Tensor, maps: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Images of which only the region of the one positive label is left.

        Args:
            images: [B, S, S, 3] float.
            maps: [B, G, G, L] float, F.
            labels: [B, L] int8 in {1, 0, -1, 2}.

        Returns:
            [B, S, S, 3] float; images with no positive or with several stay whole.
        """
        positive = tf.cast(labels == POSITIVE, maps.dtype)
        given = tf.einsum("byxl,bl->byx", maps, positive)[..., None]
        low = tf.reduce_min(given, axis=(1, 2, 3), keepdims=True)
        high = tf.reduce_max(given, axis=(1, 2, 3), keepdims=True)
        scaled = tf.math.divide_no_nan(given - low, high - low)
        region = tf.image.resize(scaled, tf.shape(images)[1:3]) > self.threshold
        kept = region | ~_single(positive)[:, :, None, None]
        return tf.where(kept, images, tf.constant(self.zero_colour(), images.dtype))

    def _follow(
        self, labels: tf.Tensor, gaps: tf.Tensor, logits: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Moves the averages by a batch, [B, L] each, and returns the gap and the logits' [L]."""
        positive = tf.cast(labels == POSITIVE, tf.float32)
        positive *= tf.cast(_single(positive), tf.float32)  # the others were not masked
        images = tf.cast(tf.shape(labels)[0], tf.float32)
        sums = tf.stack([tf.reduce_sum(positive), tf.reduce_sum(positive * gaps), images])
        sums = replicas.sum_of_replicas(tf.concat([sums, tf.reduce_sum(logits, axis=0)], axis=0))
        positives, of_gaps, images = sums[0], sums[1], sums[2]
        old_gap, old = self.gap.value, self.average.value
        momentum = tf.where(old_gap < 0, 0.0, self.momentum)
        gap = momentum * old_gap + (1 - momentum) * tf.math.divide_no_nan(of_gaps, positives)
        gap = tf.where(positives > 0, gap, old_gap)
        momentum = tf.where(self.steps.value == 0, 0.0, self.momentum)
        average = momentum * old + (1 - momentum) * sums[3:] / images
        replicas.once_a_process(self._store, gap[None], average[None])
        return gap, average

    def _store(self, gaps: tf.Tensor, averages: tf.Tensor) -> None:
        """Keeps the averages, [R] and [R, L], which are alike on all R replicas."""
        self.gap.value.assign(gaps[0])
        self.average.value.assign(averages[0])
        self.steps.value.assign_add(1)


def _single(positive: tf.Tensor) -> tf.Tensor:
    """[B, 1] bool: which images of [B, L] positives have exactly one."""
    return tf.reduce_sum(positive, axis=1, keepdims=True) == 1
