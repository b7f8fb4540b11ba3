"""Losses of labels and logits, and the consistency losses."""

from spml_tf.system.keras_import import require_tensorflow_backend

require_tensorflow_backend()
