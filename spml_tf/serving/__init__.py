"""Predictions on photos by a finished run or an export: what `python -m spml_tf.predict` writes.

`load_run` and `load` give a `Classifier`, its `predict` gives `Predictions`.
"""

from spml_tf.serving.classifier import Classifier
from spml_tf.serving.loading import load, load_run
from spml_tf.serving.predictions import Predictions

__all__ = ["Classifier", "Predictions", "load", "load_run"]
