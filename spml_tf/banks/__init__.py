"""Moving averages of each image's scores and heatmaps, and warping to and from crops."""

from spml_tf.system.keras_import import require_tensorflow_backend

require_tensorflow_backend()
