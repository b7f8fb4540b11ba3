"""The Keras model that trains a network, and the parts that methods are made of.

A file is imported when one of its names is first used: `options` and `methods` need no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from spml_tf.system.keras_import import require_tensorflow_backend

if TYPE_CHECKING:
    from spml_tf.training.masking import InformationGap as InformationGap
    from spml_tf.training.mixed_views import CutMix as CutMix
    from spml_tf.training.mixed_views import Mixup as Mixup
    from spml_tf.training.model import SPMLModel as SPMLModel
    from spml_tf.training.optimizers import GroupedOptimizer as GroupedOptimizer
    from spml_tf.training.optimizers import head_and_backbone as head_and_backbone
    from spml_tf.training.parts import Facts as Facts
    from spml_tf.training.parts import Part as Part
    from spml_tf.training.parts import Rule as Rule
    from spml_tf.training.parts import Step as Step
    from spml_tf.training.parts import Term as Term
    from spml_tf.training.pseudo_labels import PseudoLabels as PseudoLabels
    from spml_tf.training.recipes import Recipe as Recipe
    from spml_tf.training.rules import Confident as Confident
    from spml_tf.training.rules import ExpectedPositives as ExpectedPositives
    from spml_tf.training.rules import LargeLoss as LargeLoss
    from spml_tf.training.rules import LikelyPositives as LikelyPositives
    from spml_tf.training.rules import StoringRule as StoringRule
    from spml_tf.training.scheduled_terms import GeneralizedRobustTerm as GeneralizedRobustTerm
    from spml_tf.training.strong_views import StrongView as StrongView
    from spml_tf.training.terms import LabelTerm as LabelTerm
    from spml_tf.training.terms import Role as Role
    from spml_tf.training.terms import ScoreConsistency as ScoreConsistency
    from spml_tf.training.terms import SpatialConsistency as SpatialConsistency

# The names that each file of this folder gives.
_FILES = {
    "masking": ["InformationGap"],
    "mixed_views": ["CutMix", "Mixup"],
    "model": ["SPMLModel"],
    "optimizers": ["GroupedOptimizer", "head_and_backbone"],
    "parts": ["Facts", "Part", "Rule", "Step", "Term"],
    "pseudo_labels": ["PseudoLabels"],
    "recipes": ["Recipe"],
    "rules": ["Confident", "ExpectedPositives", "LargeLoss", "LikelyPositives", "StoringRule"],
    "scheduled_terms": ["GeneralizedRobustTerm"],
    "strong_views": ["StrongView"],
    "terms": ["LabelTerm", "Role", "ScoreConsistency", "SpatialConsistency"],
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}
__all__ = list(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name in _FILE_OF:
        require_tensorflow_backend()
        return getattr(importlib.import_module(f"spml_tf.training.{_FILE_OF[name]}"), name)
    raise AttributeError(f"module 'spml_tf.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
