"""Terms that train on mixtures of two of the batch's crops: mixup and CutMix."""

from __future__ import annotations

from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
from scipy.special import betaincinv

from spml_tf.training.drawn_views import DrawnView, covered, view_logits
from spml_tf.training.options import CutMixOptions, MixupOptions
from spml_tf.training.parts import Facts, Step

# Shares are drawn among so many, of equal probability.
_SHARES = 4096


class _MixedView(DrawnView):
    """A second view, in which each crop is mixed with that of another image of the batch.

    The loss is the method's own, share * loss(labels of the crop) + (1 - share) * loss(labels of
    the other), so that unknown labels stay unknown and marked ones mean what they mean elsewhere.

    Ours: the mixture is a view of its own, as costly as the plain one. Scores, heatmaps, banks and
    the other terms are those of the plain view, whose crop belongs to one image.

    Under a `tf.distribute` strategy the other image is one of the same replica.
    """

    needs_label_loss = True
    numbers: ClassVar[int] = 3  # the share, and y and x of CutMix' square

    alpha: float

    def prepare(self, facts: Facts) -> None:
        super().prepare(facts)
        quantiles = (np.arange(_SHARES) + 0.5) / _SHARES
        self.shares = betaincinv(self.alpha, self.alpha, quantiles).astype(np.float32)

    def compute(self, step: Step) -> tf.Tensor:
        assert step.label_loss is not None
        images = tf.cast(step.image, tf.float32)
        mixed, share = self.mixed(images, tf.roll(images, 1, 0), self.draws_of_step(step))
        logits = view_logits(step, mixed)
        weight = tf.ones_like(logits) if step.weight is None else step.weight
        share = share[:, None]
        own = step.label_loss(step.labels, logits, share * weight)
        labels, weight = tf.roll(step.labels, 1, 0), tf.roll(weight, 1, 0)
        return own + step.label_loss(labels, logits, (1 - share) * weight)

    def drawn_shares(self, draws: tf.Tensor) -> tf.Tensor:
        """Shares [B] float32 in [0, 1] of Beta(alpha, alpha), from draws [B] in [0, 1)."""
        return tf.gather(tf.constant(self.shares), tf.cast(draws * _SHARES, tf.int32))

    def mixed(
        self, images: tf.Tensor, others: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixtures of images, and the share of the first in each.

        Args:
            images: [B, S, S, 3] float32.
            others: [B, S, S, 3] float32.
            draws: [B, 3] float32 in [0, 1): of the share, y and x.

        Returns:
            mixed: [B, S, S, 3] float32.
            share: [B] float32 in [0, 1].
        """
        raise NotImplementedError


@keras.saving.register_keras_serializable("spml_tf")
class Mixup(MixupOptions, _MixedView):
    """Mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018).

    The view is share * crop + (1 - share) * other crop, the share drawn of Beta(alpha, alpha) for
    each image by seed, epoch and image. See `_MixedView` for the loss.

    Args:
        alpha: above 0; small: mixtures that are nearly one of the two.
        kwargs: weight, start_epoch and name, as for `Term`.

    Examples:
        >>> term = Mixup(alpha=1.0)
        >>> image, other = tf.fill([1, 2, 2, 3], 100.0), tf.zeros([1, 2, 2, 3])
        >>> term.prepare(Facts(num_images=1, num_classes=1, grid=1))
        >>> mixed, share = term.mixed(image, other, tf.constant([[0.25, 0.0, 0.0]]))
        >>> round(float(share[0]), 2), round(float(mixed[0, 0, 0, 0]))
        (0.25, 25)
    """

    reported_as: ClassVar[str] = "mixup"
    salt: ClassVar[int] = 0x3137

    def mixed(
        self, images: tf.Tensor, others: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        share = self.drawn_shares(draws[:, 0])
        factor = share[:, None, None, None]
        return factor * images + (1 - factor) * others, share


@keras.saving.register_keras_serializable("spml_tf")
class CutMix(CutMixOptions, _MixedView):
    """CutMix (Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features", ICCV 2019).

    A square of the other crop lies on the crop, at the same place. Its sides are
    sqrt(1 - drawn share) of the crop's, its centre lies anywhere inside; the share of the loss is
    what the crop keeps. Drawn as for `Mixup`.

    Args:
        alpha: above 0; 1: every area is as likely.
        kwargs: weight, start_epoch and name, as for `Term`.
    """

    reported_as: ClassVar[str] = "cutmix"
    salt: ClassVar[int] = 0xC07

    def mixed(
        self, images: tf.Tensor, others: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        side = tf.sqrt(1 - self.drawn_shares(draws[:, 0]))
        square = covered(images, draws[:, 1], draws[:, 2], side[:, None])
        kept = 1 - tf.reduce_mean(tf.cast(square, tf.float32), axis=(1, 2, 3))
        return tf.where(square, others, images), kept
