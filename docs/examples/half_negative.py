"""A loss that halves the negative terms of unknown labels, as the method `half_negative`."""

import keras
import tensorflow as tf

from spml_tf.labels import NEGATIVE, POSITIVE
from spml_tf.training import methods


def half_negative(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """AN whose negative terms of unknown labels weigh one half; [B] from [B, L] and [B, L]."""
    weight = tf.where(labels == NEGATIVE, 1.0, 0.5)
    negative = weight * tf.nn.softplus(logits)
    terms = tf.where(labels == POSITIVE, tf.nn.softplus(-logits), negative)
    return tf.reduce_mean(terms, axis=-1)


@keras.saving.register_keras_serializable("my_package")
class HalfNegative(methods.LabelLoss):
    """`half_negative` as a Keras loss."""

    function = staticmethod(half_negative)


methods.METHODS["half_negative"] = methods.Method(HalfNegative)
