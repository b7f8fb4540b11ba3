"""Data sets: a table of readers, each returning `Examples`. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from spml_tf.errors import UserError
from spml_tf.readers import digits, voc
from spml_tf.readers.examples import Examples

__all__ = ["READERS", "Examples", "Reader", "load"]


@dataclasses.dataclass(frozen=True)
class Reader:
    """A data set the command line knows by name.

    Attributes:
        load: (data_dir, split, seed) -> Examples.
        train_split: the split trained on unless another is asked for.
        val_split: the validation split, or None to hold out a part of the training split.
        test_split: the split the results are reported on.
        needs_data_dir: whether a folder must be given.
    """

    load: Callable[[str | None, str, int], Examples]
    train_split: str
    val_split: str | None
    test_split: str
    needs_data_dir: bool


READERS: dict[str, Reader] = {
    "digits": Reader(digits.load, "train", "val", "test", needs_data_dir=False),
    "voc": Reader(voc.load, "train", None, "val", needs_data_dir=True),
}


def load(dataset: str, data_dir: str | None, split: str, seed: int) -> Examples:
    """Reads one split of a data set.

    Args:
        dataset: a key of `READERS`.
        data_dir: the data set's folder; None for embedded data.
        split: one of the data set's splits.
        seed: seed of data that are generated; ignored by data sets that are read.

    Returns:
        The split's Examples.

    Raises:
        UserError: unknown data set or split, or data missing or malformed.
    """
    if dataset not in READERS:
        known = ", ".join(sorted(READERS))
        raise UserError(f"dataset: unknown data set {dataset!r}; the data sets are {known}")
    return READERS[dataset].load(data_dir, split, seed)
