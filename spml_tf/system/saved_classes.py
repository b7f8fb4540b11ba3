"""Lets Keras find the classes named in saved models although `import spml_tf` imports none.

Keras looks a class up by its registered name, and only importing the class's module registers it.
`import spml_tf` must stay quick, so it imports neither Keras nor these modules. Instead every name
of `CLASSES` gets a stand-in as soon as Keras is there; the module is imported when a file that is
being loaded asks for the class.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

# Module of spml_tf -> its classes that are registered as "spml_tf>NAME". The names stand in saved
# files: a class may move to another module, but not change its name.
CLASSES = {
    "banks.ema_bank": "EMABank",
    "banks.heatmap_bank": "HeatmapBank CompactHeatmapBank",
    "evaluation.average_precision": "MeanAveragePrecision",
    "networks.batch_norm": "FusedBatchNormalization",
    "networks.boost": "BoostLU",
    "networks.preprocessing": "ImagePreprocessing",
    "training.label_store": "LabelStore LabelEstimates",
    "losses": (
        "KnownBinaryCrossentropy AssumeNegative SmoothedAssumeNegative WeakAssumeNegative "
        "ExpectedNegative ExpectedPositive ExpectedPositiveRegularization EntropyMaximization "
        "Hill Asymmetric PartialAsymmetric GeneralizedRobust"
    ),
    "training.masking": "InformationGap",
    "training.mixed_views": "Mixup CutMix",
    "training.model": "SPMLModel",
    "training.optimizers": "GroupedOptimizer",
    "training.pseudo_labels": "PseudoLabels",
    "training.recipes": "Recipe",
    "training.rules": "ExpectedPositives LargeLoss Confident LikelyPositives",
    "training.scheduled_terms": "GeneralizedRobustTerm",
    "training.strong_views": "StrongView",
    "training.terms": "LabelTerm Role ScoreConsistency SpatialConsistency",
}


class _StandIn:
    """Stands for a class in Keras' table; loading a model asks a class for `from_config` only."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    @property
    def from_config(self) -> Any:
        """The class's own, whose module is imported now (and registers the class itself)."""
        own = getattr(importlib.import_module(self._module), self._name)
        restore: Callable[..., Any] = own.from_config
        return restore


def add_stand_ins(keras: Any) -> None:
    """Adds a stand-in of every class to the table of registered names of the module `keras`."""
    for module, names in CLASSES.items():
        for name in names.split():
            stand_in = _StandIn(f"spml_tf.{module}", name)
            keras.saving.get_custom_objects().setdefault(f"spml_tf>{name}", stand_in)
