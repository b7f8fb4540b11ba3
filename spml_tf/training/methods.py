"""The methods by name: which loss, rules and terms each is made of. Needs no TensorFlow.

To add a method to the package, write its parts (a loss in `spml_tf/losses`, a rule in `rules`, a
term in `terms`) and its row in `METHODS`. Code outside of the package registers parts of its own
with `spml_tf.register`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from spml_tf.losses.options import (
    EntropyMaximizationOptions,
    PositivesPerImageOptions,
)
from spml_tf.system.options import Option, Options
from spml_tf.training.options import (
    ConfidentOptions,
    ConsistencyOptions,
    ExpectedPositivesOptions,
    LargeLossOptions,
    RoleOptions,
    SpatialConsistencyOptions,
)


@dataclasses.dataclass(frozen=True)
class PartOf:
    """A part of a method, before it is made.

    Attributes:
        part: the class, or where it is, as "module:Class".
        options: declares what it can be told.
        fixed: options that the method sets.
    """

    part: str | type
    options: type[Options] = Options
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def load(self) -> type:
        """The class."""
        if not isinstance(self.part, str):
            return self.part
        module, name = self.part.split(":")
        found: type = getattr(importlib.import_module(module), name)
        return found

    def flags(self) -> dict[str, Option]:
        """The options left open, by the names of their flags."""
        declared = self.options.declared()
        return {
            flag: declared[name]
            for flag, name in self.options.flags().items()
            if name not in self.fixed
        }

    def make(self, values: Mapping[str, Any]) -> Any:
        """The part, told what `values` hold of its options by their flags' names."""
        own = {name: values[flag] for flag, name in self.options.flags().items() if flag in values}
        return self.load()(**{**own, **self.fixed})


def _loss(name: str, options: type[Options] = Options) -> PartOf:
    return PartOf(f"spml_tf.losses:{name}", options)


def _rule(name: str, options: type[Options], **fixed: Any) -> PartOf:
    return PartOf(f"spml_tf.training.rules:{name}", options, fixed)


def _term(name: str, options: type[Options]) -> PartOf:
    return PartOf(f"spml_tf.training.terms:{name}", options)


_SELECTION = _rule("ExpectedPositives", ExpectedPositivesOptions)

# Names that --method may begin with.
METHODS: dict[str, tuple[PartOf, ...]] = {
    "bce": (_loss("KnownBinaryCrossentropy"),),
    "an": (_loss("AssumeNegative"),),
    "an_ls": (_loss("SmoothedAssumeNegative"),),
    "wan": (_loss("WeakAssumeNegative"),),
    "epr": (_loss("ExpectedPositiveRegularization", PositivesPerImageOptions),),
    "role": (_term("Role", RoleOptions),),
    "ll_r": (_loss("ExpectedNegative"), _rule("LargeLoss", LargeLossOptions)),
    "ll_ct": (_loss("ExpectedPositive"), _rule("LargeLoss", LargeLossOptions)),
    "ll_cp": (
        _loss("ExpectedPositive"),
        _rule("LargeLoss", LargeLossOptions, growing=False, lasting=True),
    ),
    "en": (_loss("ExpectedNegative"), _SELECTION),
    "ep": (_loss("ExpectedPositive"), _SELECTION),
    "em": (_loss("EntropyMaximization", EntropyMaximizationOptions),),
    "hill": (_loss("Hill"),),
    "splc": (_loss("Hill"), _rule("Confident", ConfidentOptions)),
    "asl": (_loss("Asymmetric"),),
}

# Names that may follow, each after a "+".
ADDITIONS: dict[str, PartOf] = {
    "cl": _term("ScoreConsistency", ConsistencyOptions),
    "scl": _term("SpatialConsistency", SpatialConsistencyOptions),
}


def parts_of(name: str) -> tuple[PartOf, ...]:
    """The parts of a method by its name, such as "en+scl".

    Args:
        name: a name of `METHODS`, alone or followed by names of `ADDITIONS`, each after a "+".

    Raises:
        ValueError: for any other name, listing those that exist.
    """
    first, *others = name.split("+")
    twice = len(set(others)) < len(others)
    if first not in METHODS or not all(other in ADDITIONS for other in others) or twice:
        raise ValueError(
            f"method must be one of {', '.join(METHODS)}, alone or followed by "
            f"{' or '.join(f'+{other}' for other in ADDITIONS)}. Received: {name!r}"
        )
    return (*METHODS[first], *(ADDITIONS[other] for other in others))


def flags_of(name: str) -> dict[str, Option]:
    """The options of a method's parts by the names of their flags.

    Raises:
        ValueError: for a name that is no method.
    """
    return {flag: found for part in parts_of(name) for flag, found in part.flags().items()}


def needs_k(name: str) -> bool:
    """Whether a method must know K, the mean number of positives per image."""
    return "positives_per_image" in flags_of(name)


def all_parts() -> Iterator[PartOf]:
    """Every part of every method, some more than once."""
    for parts in METHODS.values():
        yield from parts
    yield from ADDITIONS.values()
