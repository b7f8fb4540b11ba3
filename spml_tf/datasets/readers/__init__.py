"""Data sets: a table of readers, each returning `Examples`. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from spml_tf.datasets.readers import (
    arrays,
    coco,
    cub,
    digits,
    folder,
    imagenet,
    nuswide,
    prepared,
    tfds,
    voc,
)
from spml_tf.datasets.readers.examples import Examples, SplitNames
from spml_tf.system.errors import UserError

__all__ = ["READERS", "Examples", "Reader", "SplitNames", "find", "load"]


@dataclasses.dataclass(frozen=True)
class Reader:
    """A data set the command line knows by name.

    Attributes:
        load: (data_dir, split, **options) -> Examples; its keyword parameters are the options it
            takes, flags of the same names, and perhaps `seed`, for data that are made.
        splits: the splits' names, or a function (data_dir, **options) that looks them up.
        train_labels: what --train_labels is unless given: "single" where the labels are full,
            "full" where they are what an annotator gave, "stored" where both are there.
        needs_data_dir: whether a folder must be given.
        sizes: how many images a split has in the protocol of Cole et al. (CVPR 2021).
    """

    load: Callable[..., Examples]
    splits: SplitNames | Callable[..., SplitNames]
    train_labels: str = "single"
    needs_data_dir: bool = True
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def split_names(self, data_dir: str | None, options: Mapping[str, Any]) -> SplitNames:
        """The names of the splits in this folder, with the options the reader takes."""
        if isinstance(self.splits, SplitNames):
            return self.splits
        return self.splits(data_dir, **_taken(self.splits, options))

    def read(
        self, data_dir: str | None, split: str, seed: int, options: Mapping[str, Any]
    ) -> Examples:
        """Reads a split with the options given, None standing for not given.

        Raises:
            UserError: an option that this reader does not take, or as `load`.
        """
        known = _parameters(self.load)
        for name, value in options.items():
            if value is not None and name not in known:
                raise UserError(f"--{name}: this data set does not take it; leave it out")
        return self.load(data_dir, split, **_taken(self.load, {**options, "seed": seed}))


def _taken(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options given that a function takes."""
    known = _parameters(function)
    return {name: x for name, x in options.items() if x is not None and name in known}


def _parameters(function: Callable[..., Any]) -> set[str]:
    """Names of the parameters that can be given; those a partial has set are not options."""
    chosen = function.keywords if isinstance(function, functools.partial) else {}
    return set(inspect.signature(function).parameters).difference(chosen)


READERS: dict[str, Reader] = {
    "digits": Reader(digits.load, SplitNames("train", "val", "test"), needs_data_dir=False),
    "folder": Reader(folder.load, folder.splits, train_labels="full"),
    "voc": Reader(
        functools.partial(voc.load, year=2012),
        SplitNames("train", "none", "val"),
        sizes={"train": 5717, "val": 5823},
    ),
    "voc2007": Reader(
        functools.partial(voc.load, year=2007), SplitNames("trainval", "none", "test")
    ),
    "coco": Reader(
        functools.partial(coco.load, year=2014),
        SplitNames("train", "none", "val"),
        sizes={"train": 82081, "val": 40137},
    ),
    "coco2017": Reader(functools.partial(coco.load, year=2017), SplitNames("train", "none", "val")),
    "nuswide": Reader(
        nuswide.load, SplitNames("train", "none", "test"), sizes={"train": 150000, "test": 60260}
    ),
    "cub": Reader(
        cub.load, SplitNames("train", "none", "test"), sizes={"train": 5994, "test": 5794}
    ),
    "imagenet": Reader(imagenet.load, SplitNames("train", "none", "real"), train_labels="full"),
    "arrays": Reader(arrays.load, SplitNames("train", "none", "val"), train_labels="stored"),
    "prepared": Reader(prepared.load, prepared.splits, train_labels="stored"),
}


def find(dataset: str) -> Reader:
    """The reader of a data set.

    Args:
        dataset: a key of `READERS`, or "tfds:" and a name of TensorFlow Datasets.

    Raises:
        UserError: unknown data set.
    """
    if dataset.startswith("tfds:"):
        name = dataset.removeprefix("tfds:")
        load = functools.partial(tfds.load, name)
        return Reader(load, functools.partial(tfds.splits, name))
    if dataset not in READERS:
        known = ", ".join(READERS)
        raise UserError(f"--dataset={dataset}: unknown; the data sets are {known}, tfds:NAME")
    return READERS[dataset]


def load(
    dataset: str, data_dir: str | None, split: str, seed: int = 1200, **options: Any
) -> Examples:
    """Reads one split of a data set.

    Args:
        dataset: as for `find`.
        data_dir: the data set's folder; None for embedded data.
        split: one of the data set's splits.
        seed: seed of data that are generated; ignored by data sets that are read.
        **options: options of this data set's reader, such as `difficult` for VOC.

    Returns:
        The split's Examples.

    Raises:
        UserError: unknown data set, split or option, or data missing or malformed.
    """
    return find(dataset).read(data_dir, split, seed, options)
