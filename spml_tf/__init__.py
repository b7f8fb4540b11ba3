"""Multi-label image classification from single positive labels, in TensorFlow and Keras.

Expected Negative and Spatial Consistency losses of Verelst et al. (WACV 2023), and what surrounds
them. Submodules are imported when first used, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
from typing import Any

from spml_tf.system import keras_import

__version__ = "0.1.0"

_EXPORTS = {
    "SPMLModel": "training.model", "load_network": "networks", "UserError": "system.errors",
    "MeanAveragePrecision": "evaluation.average_precision", "register": "registration",
    "option": "system.options", "from_paths": "datasets.tensors", "with_index": "datasets.tensors",
    "load": "serving", "load_run": "serving", "options_of_run": "training.run_options",
}  # fmt: skip
_MODULES = (
    "banks", "datasets", "evaluation", "figures", "labels", "losses", "networks", "pages", "plans",
    "runs", "serving", "training",
)  # fmt: skip
__all__ = ["__version__", *_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"spml_tf.{name}")
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"spml_tf.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'spml_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


keras_import.watch()
