"""Losses of labels and scores: each a function, and a Keras class of the same name in CamelCase.

`AssumeNegative(from_logits=True)` goes into `keras.Model.compile(loss=...)` as Keras' own losses
do; `assume_negative(labels, logits)` is what it computes for each image. The consistency losses are
functions only. A file is imported when one of its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from spml_tf.system.keras_import import require_tensorflow_backend

if TYPE_CHECKING:
    from spml_tf.losses.assume_negatives import AssumeNegative as AssumeNegative
    from spml_tf.losses.assume_negatives import SmoothedAssumeNegative as SmoothedAssumeNegative
    from spml_tf.losses.assume_negatives import WeakAssumeNegative as WeakAssumeNegative
    from spml_tf.losses.assume_negatives import assume_negative as assume_negative
    from spml_tf.losses.assume_negatives import smoothed_assume_negative as smoothed_assume_negative
    from spml_tf.losses.assume_negatives import weak_assume_negative as weak_assume_negative
    from spml_tf.losses.consistency import score_consistency as score_consistency
    from spml_tf.losses.consistency import sparse_spatial_consistency as sparse_spatial_consistency
    from spml_tf.losses.consistency import spatial_consistency as spatial_consistency
    from spml_tf.losses.cross_entropy import KnownBinaryCrossentropy as KnownBinaryCrossentropy
    from spml_tf.losses.cross_entropy import known_binary_crossentropy as known_binary_crossentropy
    from spml_tf.losses.entropy import EntropyMaximization as EntropyMaximization
    from spml_tf.losses.entropy import entropy_maximization as entropy_maximization
    from spml_tf.losses.entropy import pseudo_labelled_entropy as pseudo_labelled_entropy
    from spml_tf.losses.expected_labels import ExpectedNegative as ExpectedNegative
    from spml_tf.losses.expected_labels import ExpectedPositive as ExpectedPositive
    from spml_tf.losses.expected_labels import expected_negative as expected_negative
    from spml_tf.losses.expected_labels import expected_positive as expected_positive
    from spml_tf.losses.focal import Asymmetric as Asymmetric
    from spml_tf.losses.focal import Hill as Hill
    from spml_tf.losses.focal import PartialAsymmetric as PartialAsymmetric
    from spml_tf.losses.focal import asymmetric as asymmetric
    from spml_tf.losses.focal import hill as hill
    from spml_tf.losses.focal import partial_asymmetric as partial_asymmetric
    from spml_tf.losses.label_loss import LabelLoss as LabelLoss
    from spml_tf.losses.label_loss import mean_over_classes as mean_over_classes
    from spml_tf.losses.positive_regularization import (
        ExpectedPositiveRegularization as ExpectedPositiveRegularization,
    )
    from spml_tf.losses.positive_regularization import (
        expected_positive_regularization as expected_positive_regularization,
    )
    from spml_tf.losses.positive_regularization import role as role
    from spml_tf.losses.positive_regularization import role_estimates as role_estimates
    from spml_tf.losses.robust import GeneralizedRobust as GeneralizedRobust
    from spml_tf.losses.robust import generalized_robust as generalized_robust

# The names that each file of this folder gives. None is a file's own name, which would hide it.
_FILES = {
    "assume_negatives": [
        "AssumeNegative",
        "SmoothedAssumeNegative",
        "WeakAssumeNegative",
        "assume_negative",
        "smoothed_assume_negative",
        "weak_assume_negative",
    ],
    "consistency": ["score_consistency", "sparse_spatial_consistency", "spatial_consistency"],
    "cross_entropy": ["KnownBinaryCrossentropy", "known_binary_crossentropy"],
    "entropy": ["EntropyMaximization", "entropy_maximization", "pseudo_labelled_entropy"],
    "expected_labels": [
        "ExpectedNegative",
        "ExpectedPositive",
        "expected_negative",
        "expected_positive",
    ],
    "focal": [
        "Asymmetric",
        "Hill",
        "PartialAsymmetric",
        "asymmetric",
        "hill",
        "partial_asymmetric",
    ],
    "label_loss": ["LabelLoss", "mean_over_classes"],
    "positive_regularization": [
        "ExpectedPositiveRegularization",
        "expected_positive_regularization",
        "role",
        "role_estimates",
    ],
    "robust": ["GeneralizedRobust", "generalized_robust"],
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}
__all__ = list(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name in _FILE_OF:
        require_tensorflow_backend()
        return getattr(importlib.import_module(f"spml_tf.losses.{_FILE_OF[name]}"), name)
    raise AttributeError(f"module 'spml_tf.losses' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
