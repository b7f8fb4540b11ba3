"""What terms share that train on a second view of each crop, drawn from seed, epoch and image."""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from spml_tf.banks.rounding import noise
from spml_tf.training.parts import Facts, Step, Term


class DrawnView(Term):
    """A term that makes a view of each crop from a few random numbers, and looks at its logits.

    Attributes:
        salt: keeps the draws apart from those of other terms and of stochastic rounding.
        numbers: how many are drawn for an image.
    """

    needs_images = True

    salt: ClassVar[int]
    numbers: ClassVar[int]

    def prepare(self, facts: Facts) -> None:
        self.seed, self.shard = facts.seed, facts.shard

    def draws(self, images: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """What the views of some images in an epoch are made from, [B, numbers] float32 in [0, 1).

        Args:
            images: [B] int64, numbers of the images in the whole data set.
            epoch: int64 scalar.
        """
        return noise(self.seed ^ self.salt, epoch, images, tf.constant([self.numbers]))

    def draws_of_step(self, step: Step) -> tf.Tensor:
        """`draws` of a batch."""
        worker, workers = self.shard
        return self.draws(step.index * workers + worker, step.epoch)


def view_logits(step: Step, views: tf.Tensor) -> tf.Tensor:
    """Logits of f, [B, L] float32 with gradient, of views [B, S, S, 3]."""
    assert step.network is not None
    return tf.reduce_mean(step.network(views, training=True), axis=(1, 2))


def covered(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor, side: tf.Tensor | float) -> tf.Tensor:
    """Which pixels a square covers, those whose middles lie in it.

    Args:
        images: [B, S, S, 3].
        y: [B] in [0, 1], of the square's centre.
        x: [B] in [0, 1].
        side: in sides of the image, [B, 1] or one for all.

    Returns:
        [B, S, S, 1] bool.
    """
    rows = _near(tf.shape(images)[1], y, side)
    columns = _near(tf.shape(images)[2], x, side)
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _near(size: tf.Tensor, centre: tf.Tensor, side: tf.Tensor | float) -> tf.Tensor:
    """Rows or columns within side / 2 of the centres [B], [B, size] bool."""
    places = (tf.cast(tf.range(size), tf.float32) + 0.5) / tf.cast(size, tf.float32)
    return tf.abs(places[None, :] - centre[:, None]) < side / 2
