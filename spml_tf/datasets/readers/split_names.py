"""The names of a data set's splits."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from spml_tf.system.errors import UserError

# Those of data that come with no names of their own.
SPLITS = ("train", "val", "test")


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


def check_split(split: str, known: Collection[str], has: str) -> None:
    """Refuses a split that a data set has not.

    Args:
        split: the name that is asked for.
        known: the names of its splits.
        has: the message's words for the data set, such as "MS-COCO has".

    Raises:
        UnknownSplitError: `split` is not among `known`.
    """
    if split not in known:
        raise UnknownSplitError(f"{has} {', '.join(known)}, found {split!r}")
