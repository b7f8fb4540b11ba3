"""Data sets: a table of readers, each returning `Examples`. Needs no TensorFlow.

A reader's module is imported when it is used, so that `--help` can list the data sets at once.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from spml_tf.datasets.readers.split_names import SplitNames, UnknownSplitError
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system import plugins
from spml_tf.system.errors import UserError
from spml_tf.system.nearest import guess

if TYPE_CHECKING:
    from spml_tf.datasets.readers.examples import Examples

__all__ = ["DEFAULT_SEED", "READERS", "Examples", "Reader", "SplitNames", "find", "load"]

# Of data that are made, of drawn labels and of the validation split, as published.
DEFAULT_SEED = 1200


def __getattr__(name: str) -> Any:
    if name == "Examples":
        return importlib.import_module("spml_tf.datasets.readers.examples").Examples
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclasses.dataclass(frozen=True)
class Reader:
    """A data set the command line knows by name; `spml_tf.register` adds one of your own.

    Attributes:
        source: a function load(data_dir, split, **options) that returns Examples, or the module of
            this folder that has one. Its other parameters are the options it takes, flags of the
            same names, and perhaps `seed`, for data that are made.
        splits: the splits' names; None where splits(data_dir, **options) of the module looks them
            up.
        train_labels: what --train_labels is unless given: "single" where the labels are full,
            "full" where they are what an annotator gave, "stored" where both are there.
        needs_data_dir: whether a folder must be given.
        chosen: parameters that the data set's name sets; they are no options.
        sizes: how many images a split has in the protocol of Cole et al. (CVPR 2021).
    """

    source: str | Callable[..., Examples]
    splits: SplitNames | None = None
    train_labels: str = "single"
    needs_data_dir: bool = True
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def split_names(self, data_dir: str | None, options: Mapping[str, Any]) -> SplitNames:
        """The names of the splits in this folder, with the options the reader takes."""
        if self.splits is not None:
            return self.splits
        look_up = self._function("splits")
        names: SplitNames = look_up(data_dir, **_taken(look_up, options))
        return names

    @property
    def takes_seed(self) -> bool:
        """Whether its data are made from a seed."""
        return "seed" in _parameters(self._function("load"))

    def read(
        self, data_dir: str | None, split: str, seed: int, options: Mapping[str, Any]
    ) -> Examples:
        """Reads a split with the options given, None standing for not given.

        Raises:
            UserError: an option that this reader does not take, as `load`, or a function of the
                user's fails; the message names its line.
        """
        read = self._function("load")
        known = _parameters(read)
        for name, value in options.items():
            if value is not None and name not in known:
                flag = value.given()[0] if isinstance(value, TableOptions) else name
                raise UserError(f"--{flag}: this data set does not take it; leave it out")
        taken = _taken(read, {**options, "seed": seed})
        if not isinstance(self.source, str):
            return _of_user(read, data_dir, split, taken)
        examples: Examples = read(data_dir, split, **taken)
        return examples

    def _function(self, name: str) -> functools.partial[Any]:
        if not isinstance(self.source, str):
            return functools.partial(self.source, **self.chosen)
        module = importlib.import_module(f"{__name__}.{self.source}")
        return functools.partial(getattr(module, name), **self.chosen)


def _of_user(
    read: functools.partial[Any], data_dir: str | None, split: str, taken: Mapping[str, Any]
) -> Examples:
    from spml_tf.datasets.readers.examples import Examples

    try:
        examples = read(data_dir, split, **taken)
    except UnknownSplitError:
        raise
    except Exception as error:
        raise UserError(f"--dataset: {plugins.told(error)}") from error
    if not isinstance(examples, Examples):
        raise UserError(
            f"--dataset: the plugin's reader returned {type(examples).__name__}; it must return "
            "spml_tf.datasets.readers.Examples"
        )
    return examples


def _taken(function: functools.partial[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options given that a function takes."""
    known = _parameters(function)
    return {name: x for name, x in options.items() if x is not None and name in known}


def _parameters(function: functools.partial[Any]) -> set[str]:
    """Names of the parameters that can be given; those a partial has set are not options."""
    return set(inspect.signature(function).parameters).difference(function.keywords)


READERS: dict[str, Reader] = {
    "digits": Reader("digits", SplitNames("train", "val", "test"), needs_data_dir=False),
    "folder": Reader("folder", train_labels="full"),
    "voc": Reader(
        "voc",
        SplitNames("train", "none", "val"),
        chosen={"year": 2012},
        sizes={"train": 5717, "val": 5823},
    ),
    "voc2007": Reader("voc", SplitNames("trainval", "none", "test"), chosen={"year": 2007}),
    "coco": Reader(
        "coco",
        SplitNames("train", "none", "val"),
        chosen={"year": 2014},
        sizes={"train": 82081, "val": 40137},
    ),
    "coco2017": Reader("coco", SplitNames("train", "none", "val"), chosen={"year": 2017}),
    "nuswide": Reader(
        "nuswide", SplitNames("train", "none", "test"), sizes={"train": 150000, "test": 60260}
    ),
    "cub": Reader("cub", SplitNames("train", "none", "test"), sizes={"train": 5994, "test": 5794}),
    "imagenet": Reader("imagenet", SplitNames("train", "none", "real"), train_labels="full"),
    "arrays": Reader("arrays", SplitNames("train", "none", "val"), train_labels="stored"),
    "prepared": Reader("prepared", train_labels="stored"),
}


def find(dataset: str) -> Reader:
    """The reader of a data set.

    Args:
        dataset: a key of `READERS`, or "tfds:" and a name of TensorFlow Datasets.

    Raises:
        UserError: unknown data set.
    """
    if dataset.startswith("tfds:"):
        return Reader("tfds", chosen={"dataset": dataset.removeprefix("tfds:")})
    if dataset not in READERS:
        known = ", ".join(READERS)
        near = guess(dataset, READERS)
        raise UserError(f"--dataset={dataset}: unknown; the data sets are {known}, tfds:NAME{near}")
    return READERS[dataset]


def load(
    dataset: str, data_dir: str | None, split: str, seed: int = DEFAULT_SEED, **options: Any
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
