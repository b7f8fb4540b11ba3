"""A term that trains a strongly changed view by what the network says of the plain one: LAGC."""

from __future__ import annotations

from typing import ClassVar

import keras
import tensorflow as tf

from spml_tf.labels import NEGATIVE, POSITIVE
from spml_tf.losses.cross_entropy import soft_cross_entropy
from spml_tf.losses.label_loss import mean_over_classes
from spml_tf.system import replicas
from spml_tf.training.drawn_views import DrawnView, covered, view_logits
from spml_tf.training.options import StrongViewOptions
from spml_tf.training.parts import Step

_GREY = 127.5
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


@keras.saving.register_keras_serializable("spml_tf")
class StrongView(StrongViewOptions, DrawnView):
    """Cross-entropy of a strongly changed view against confident scores of the plain one.

    The first stage of LAGC (Xie et al., "Label-Aware Global Consistency for Multi-Label Learning
    with Single Positive Labels", NeurIPS 2022), without the plain view's AN, which is a term of
    its own: q is the score of the plain view, 1 for positives and 0 for known negatives; the target
    is 1 where q >= t, 0 where q < 1 - t, and other labels are left out. The mean is over the labels
    of the batch of all replicas that have a target, 0 where none has. No gradient flows through q.

    Ours: the second view is made of the batch's crops, by brightness, contrast, saturation and
    a grey square (cutout), drawn from seed, epoch and image. Batch normalisation sees both views.

    Args:
        threshold: t, in [0.5, 1].
        colour: brightness, contrast and saturation are multiplied by 1 - colour to 1 + colour.
        cutout: side of the square, in sides of the crop; its centre lies anywhere inside.
        kwargs: weight, start_epoch and name, as for `Term`.
    """

    reported_as: ClassVar[str] = "strong_view"
    salt: ClassVar[int] = 0x5EED
    numbers: ClassVar[int] = 5  # brightness, contrast, saturation, y and x of the square

    def compute(self, step: Step) -> tf.Tensor:
        logits = view_logits(step, self.views(step.image, self.draws_of_step(step)))
        targets, used = self.targets(step.labels, step.logits)
        of_images = mean_over_classes(used * soft_cross_entropy(targets, logits), step.weight)
        images = tf.cast(tf.shape(used)[0], tf.float32)
        share = replicas.mean_of_batch(tf.reduce_mean(mean_over_classes(used)), images)
        return tf.math.divide_no_nan(tf.reduce_mean(of_images), share)

    def targets(self, labels: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The targets of the second view and which labels have one.

        Args:
            labels: [B, L] int8 in {1, 0, -1, 2}.
            logits: [B, L] float32, of the plain view.

        Returns:
            targets: [B, L] float32, 0 or 1.
            used: [B, L] float32, 0 or 1.
        """
        scores = tf.stop_gradient(tf.sigmoid(logits))
        scores = tf.where(labels == POSITIVE, tf.ones_like(scores), scores)
        scores = tf.where(labels == NEGATIVE, tf.zeros_like(scores), scores)
        high = scores >= self.threshold
        low = (scores < 1 - self.threshold) | (labels == NEGATIVE)
        return tf.cast(high, tf.float32), tf.cast(high | low, tf.float32)

    def views(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Strongly changed images.

        Args:
            images: [B, S, S, 3] float, RGB in 0..255.
            draws: [B, 5] float32 in [0, 1): brightness, contrast, saturation, y and x.

        Returns:
            [B, S, S, 3] float32 in 0..255.
        """
        images = tf.cast(images, tf.float32)
        factors = 1 + self.colour * (2 * draws[:, :3] - 1)
        factors = tf.unstack(factors[:, :, None, None, None], axis=1)
        brightness, contrast, saturation = factors
        images *= brightness
        luma = tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)
        middle = tf.reduce_mean(luma, axis=(1, 2), keepdims=True)
        images, luma = (middle + contrast * (x - middle) for x in (images, luma))
        images = tf.clip_by_value(luma + saturation * (images - luma), 0.0, 255.0)
        square = covered(images, draws[:, 3], draws[:, 4], self.cutout)
        return tf.where(square, tf.constant(_GREY), images)
