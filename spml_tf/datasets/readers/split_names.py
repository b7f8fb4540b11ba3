"""The names of a data set's splits."""

from __future__ import annotations

from typing import NamedTuple

from spml_tf.system.errors import UserError


class SplitNames(NamedTuple):
    """Names of a data set's splits.

    Attributes:
        train: the split trained on unless another is asked for.
        val: the validation split, or "none" to hold out a part of the training split.
        test: the split the results are reported on, or "none".
    """

    train: str
    val: str
    test: str


class UnknownSplitError(UserError):
    """A data set has no split of the name that is asked for.

    Args:
        reason: which splits it has, and what was found.

    Attributes:
        reason: the same, for a message that names the flag.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"split: {reason}")
        self.reason = reason
