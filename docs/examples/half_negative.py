"""A loss: the negative terms of unknown labels count in part, as the method `half_negative`."""

import tensorflow as tf

import spml_tf
from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE


@spml_tf.register("half_negative")
class HalfNegative(spml_tf.losses.LabelLoss):
    """AN whose negative terms of unknown labels have a weight; marked ones have none."""

    marks = "left out"

    unknown_weight: float = spml_tf.option(0.5, "Weight of unknown labels.", low=0, high=1)

    @staticmethod
    def function(labels, logits, unknown_weight, weights=None):
        weight = tf.where(labels == NEGATIVE, 1.0, unknown_weight)
        weight = tf.where(labels == EXPECTED, 0.0, weight)
        negative = weight * tf.nn.softplus(logits)
        terms = tf.where(labels == POSITIVE, tf.nn.softplus(-logits), negative)
        return spml_tf.losses.mean_over_classes(terms, weights)
