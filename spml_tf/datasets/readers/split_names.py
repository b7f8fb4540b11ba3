"""The names of a data set's splits."""

from __future__ import annotations

from typing import NamedTuple


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
