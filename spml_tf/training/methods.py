"""The methods by the names the command line knows: loss classes and the table `METHODS`.

To add a method, write its loss as a function of labels and logits and the thin class around it (in
`spml_tf.losses`), and its row in `METHODS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from spml_tf.losses import (
    AssumeNegative,
    Asymmetric,
    EntropyMaximization,
    ExpectedNegative,
    ExpectedPositive,
    ExpectedPositiveRegularization,
    Hill,
    KnownBinaryCrossentropy,
    SmoothedAssumeNegative,
    WeakAssumeNegative,
)
from spml_tf.training import marking

CONSISTENCIES = ("", "cl", "scl")


class Method(NamedTuple):
    """A row of the table of methods.

    Attributes:
        loss: class of the classification loss.
        options: arguments of the loss, which the model has under the same names.
        selects: whether it needs expected positives, chosen once an epoch by score.
        marks: (labels, logits, epoch, rate) -> labels with 2 where a rule of the method marks
            them, applied to each batch before the loss; rate is the model's `large_loss_rate`.
        keeps_marks: whether these marks stay for the rest of the training.
        estimates: whether it trains a table of label estimates beside the network (ROLE).
    """

    loss: type[keras.losses.Loss]
    options: tuple[str, ...] = ()
    selects: bool = False
    marks: Callable[..., tf.Tensor] | None = None
    keeps_marks: bool = False
    estimates: bool = False

    @property
    def needs_k(self) -> bool:
        """Whether K, the mean number of positives per image, must be known."""
        return self.selects or "positives_per_image" in self.options


def _confident(labels: tf.Tensor, logits: tf.Tensor, epoch: tf.Tensor, rate: float) -> tf.Tensor:
    return marking.mark_confident(labels, logits, epoch)


_GROWING = functools.partial(marking.mark_large_losses, growing=True)
_STEADY = functools.partial(marking.mark_large_losses, growing=False)
_EPR = Method(ExpectedPositiveRegularization, options=("positives_per_image",))

METHODS: dict[str, Method] = {
    "bce": Method(KnownBinaryCrossentropy),
    "an": Method(AssumeNegative),
    "an_ls": Method(SmoothedAssumeNegative),
    "wan": Method(WeakAssumeNegative),
    "epr": _EPR,
    "role": _EPR._replace(estimates=True),
    "ll_r": Method(ExpectedNegative, marks=_GROWING),
    "ll_ct": Method(ExpectedPositive, marks=_GROWING),
    "ll_cp": Method(ExpectedPositive, marks=_STEADY, keeps_marks=True),
    "en": Method(ExpectedNegative, selects=True),
    "ep": Method(ExpectedPositive, selects=True),
    "em": Method(EntropyMaximization, options=("entropy_weight",)),
    "hill": Method(Hill),
    "splc": Method(Hill, marks=_confident),
    "asl": Method(Asymmetric),
}


def parse_method(name: str) -> tuple[Method, str]:
    """Reads a method's name such as "en+scl".

    Args:
        name: a row of `METHODS`, alone or followed by "+cl" or "+scl".

    Returns:
        The row and the consistency loss, "" (none), "cl" or "scl".

    Raises:
        ValueError: for any other name, listing those that exist.
    """
    base, _, consistency = name.partition("+")
    if base not in METHODS or consistency not in CONSISTENCIES or name.endswith("+"):
        raise ValueError(
            f"method must be one of {', '.join(METHODS)}, alone or followed by +cl or +scl. "
            f"Received: {name!r}"
        )
    return METHODS[base], consistency


def check_positives_per_image(name: str, positives_per_image: float | None) -> None:
    """Raises ValueError where a method needs K, the mean number of positives, and has none."""
    if parse_method(name)[0].needs_k and not positives_per_image:
        raise ValueError(
            f"method {name!r} needs positives_per_image, the mean number of true positives "
            "per training image (count 50 images to estimate it)"
        )
