"""A term: heatmaps pay for each cell that lights up."""

import tensorflow as tf

import spml_tf


@spml_tf.register("sparse_maps")
class SparseMaps(spml_tf.training.Term):
    """The mean of all heatmaps, or of the classes that are not annotated."""

    weight: float = spml_tf.option(0.1, "Factor of the mean heatmap.", low=0, high=1e6)
    annotated: bool = spml_tf.option(False, "Whether annotated classes pay too.")

    def compute(self, step):
        pays = (
            tf.ones_like(step.logits) if self.annotated else tf.cast(step.labels != 1, tf.float32)
        )
        return tf.reduce_mean(step.maps * pays[:, None, None, :])
