"""A rule: an unknown label is marked once its score was high at several visits in a row."""

import tensorflow as tf

import spml_tf
from spml_tf.labels import EXPECTED, UNKNOWN


@spml_tf.register("steady")
class Steady(spml_tf.training.Rule):
    """Marks unknown labels that keep a high score; it counts the visits in a weight."""

    threshold: float = spml_tf.option(0.6, "Score from which a visit counts.", low=0, high=1)
    visits: int = spml_tf.option(2, "Visits in a row until a label is marked.", low=1, high=99)

    def prepare(self, facts):
        shape = (facts.num_images, facts.num_classes)
        self.high = self.state("high", shape, "int64", row_per_image=True)

    def mark(self, step):
        high = tf.gather(self.high.value, step.index) + 1
        high = tf.where(tf.stop_gradient(step.scores) >= self.threshold, high, 0)
        self.write(self.high, step.index, high)
        marked = (step.labels == UNKNOWN) & (high >= self.visits)
        return tf.where(marked, tf.constant(EXPECTED, tf.int8), step.labels)
