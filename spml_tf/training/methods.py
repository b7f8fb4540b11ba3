"""The methods by name: which loss, rules and terms each is made of. Needs no TensorFlow.

To add a method to the package, write its parts (a loss in `spml_tf/losses`, a rule in `rules`, a
term in `terms`) and its row in `METHODS`. Code outside of the package registers parts of its own
with `spml_tf.register`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from spml_tf.losses.options import (
    EntropyMaximizationOptions,
    ExpectedNegativeOptions,
    ExpectedPositiveOptions,
    PartialAsymmetricOptions,
    PositivesPerImageOptions,
)
from spml_tf.system.nearest import nearest
from spml_tf.system.options import Option, Options
from spml_tf.training.options import (
    AUTO,
    ESTIMATED,
    ESTIMATED_BUDGETS,
    ConfidentOptions,
    ConsistencyOptions,
    CutMixOptions,
    GeneralizedRobustOptions,
    InformationGapOptions,
    LargeLossOptions,
    LikelyPositivesOptions,
    MixupOptions,
    ModelOptions,
    PseudoLabelsOptions,
    RecommendedSelectionOptions,
    RoleOptions,
    SelectionOptions,
    SpatialConsistencyOptions,
    StrongViewOptions,
)


@dataclasses.dataclass(frozen=True)
class PartOf:
    """A part of a method, before it is made.

    Attributes:
        part: the class, or where it is, as "module:Class".
        kind: a loss of labels and scores, by which other views can be trained too; a rule, which
            marks labels; or a term.
        options: declares what it can be told.
        fixed: options that the method sets.
        marks: what a loss or a term makes of labels that a rule marks, as "left out"; empty where
            it treats them as other unknown labels.
        needs_label_loss: whether it trains by the method's loss of labels and scores.
        trains: whether it may have weights of its own that are trained.
        reported_as: of terms of one kind, which one method cannot have two of, as their values
            would stand in logs under one name; empty where it does not matter.
    """

    part: str | type
    kind: Literal["loss", "rule", "term"]
    options: type[Options] = Options
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    marks: str = ""
    needs_label_loss: bool = False
    trains: bool = False
    reported_as: str = ""

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


def _loss(name: str, options: type[Options] = Options, marks: str = "") -> PartOf:
    return PartOf(f"spml_tf.losses:{name}", "loss", options, marks=marks)


def _rule(name: str, options: type[Options], file: str = "rules", **fixed: Any) -> PartOf:
    return PartOf(f"spml_tf.training.{file}:{name}", "rule", options, fixed)


def _term(
    name: str,
    options: type[Options],
    file: str = "terms",
    marks: str = "",
    needs_label_loss: bool = False,
    trains: bool = False,
    reported_as: str = "",
) -> PartOf:
    return PartOf(
        f"spml_tf.training.{file}:{name}",
        "term",
        options,
        marks=marks,
        needs_label_loss=needs_label_loss,
        trains=trains,
        reported_as=reported_as,
    )


# What a loss makes of labels that a rule marks.
_LEFT_OUT, _POSITIVES = "left out", "positives"

_SELECTION = _rule("ExpectedPositives", SelectionOptions)
_EN_LOSS = _loss("ExpectedNegative", ExpectedNegativeOptions, _LEFT_OUT)
_P_ASL = _loss("PartialAsymmetric", PartialAsymmetricOptions, _LEFT_OUT)

_SCL = _term("SpatialConsistency", SpatialConsistencyOptions, reported_as="consistency")
_STRONG = _term("StrongView", StrongViewOptions, "strong_views")
# How many labels `recommended` leaves out, see docs/recommended.md.
_MISSING: Mapping[str, Any] = {"budget": ESTIMATED, "multiple": AUTO}

# Names that --method may begin with.
METHODS: dict[str, tuple[PartOf, ...]] = {
    "bce": (_loss("KnownBinaryCrossentropy"),),
    "an": (_loss("AssumeNegative"),),
    "an_ls": (_loss("SmoothedAssumeNegative", marks=_LEFT_OUT),),
    "wan": (_loss("WeakAssumeNegative", marks=_LEFT_OUT),),
    "epr": (_loss("ExpectedPositiveRegularization", PositivesPerImageOptions),),
    "role": (_term("Role", RoleOptions, trains=True),),
    "ll_r": (_EN_LOSS, _rule("LargeLoss", LargeLossOptions)),
    "ll_ct": (
        _loss("ExpectedPositive", ExpectedPositiveOptions, _POSITIVES),
        _rule("LargeLoss", LargeLossOptions),
    ),
    "ll_cp": (
        _loss("ExpectedPositive", ExpectedPositiveOptions, _POSITIVES),
        _rule("LargeLoss", LargeLossOptions, growing=False, lasting=True),
    ),
    "en": (_EN_LOSS, _SELECTION),
    "ep": (_loss("ExpectedPositive", ExpectedPositiveOptions, _POSITIVES), _SELECTION),
    "em": (_loss("EntropyMaximization", EntropyMaximizationOptions, _LEFT_OUT),),
    "hill": (_loss("Hill", marks=_POSITIVES),),
    # Not the loss of the authors' public code, see docs/method.md.
    "splc": (_loss("Hill", marks=_POSITIVES), _rule("Confident", ConfidentOptions)),
    "asl": (_loss("Asymmetric", marks=_LEFT_OUT),),
    "gr": (_term("GeneralizedRobustTerm", GeneralizedRobustOptions, "scheduled_terms", _LEFT_OUT),),
    "em_apl": (_term("PseudoLabels", PseudoLabelsOptions, "pseudo_labels", _LEFT_OUT),),
    "p_asl": (_P_ASL,),
    "csl": (_P_ASL, _rule("LikelyPositives", LikelyPositivesOptions)),
    "ignore": (
        _EN_LOSS,
        _rule("InformationGap", InformationGapOptions, "masking"),
    ),
    "lagc": (_loss("AssumeNegative"), _STRONG),
    "recommended": (
        _EN_LOSS,
        _rule("ExpectedPositives", RecommendedSelectionOptions, **_MISSING),
        _SCL,
    ),
}

# Methods with BoostLU where the network is trained from scratch, and its factor.
_BOOSTED_FROM_SCRATCH: Mapping[str, float] = {"recommended": 5.0}

# Names that may follow, each after a "+".
ADDITIONS: dict[str, PartOf] = {
    "cl": _term("ScoreConsistency", ConsistencyOptions, reported_as="consistency"),
    "scl": _SCL,
    "strong": _STRONG,
    "mixup": _term("Mixup", MixupOptions, "mixed_views", needs_label_loss=True),
    "cutmix": _term("CutMix", CutMixOptions, "mixed_views", needs_label_loss=True),
}


def parts_of(name: str) -> tuple[PartOf, ...]:
    """The parts of a method by its name, such as "en+scl" or "en+gr+scl".

    Args:
        name: a name of `METHODS`, alone or followed by names of `ADDITIONS`, each after a "+".
            A second name of `METHODS` may stand directly after the first: its loss takes the place
            of the first's, and its rules follow the first's.

    Raises:
        ValueError: for any other name, listing those that exist; for a second method whose loss
            does not look at marks, and a first one that has no rule or shares one with the second;
            for two terms of one kind.
    """
    first, *others = name.split("+")
    second = others.pop(0) if others and others[0] in METHODS and others[0] not in ADDITIONS else ""
    twice = len(set(others)) < len(others)
    if first not in METHODS or not all(other in ADDITIONS for other in others) or twice:
        raise ValueError(
            f"method must be one of {', '.join(METHODS)}, alone or followed by "
            f"{' or '.join(f'+{other}' for other in ADDITIONS)}. Received: {name!r}"
            f"{_guess(name.split('+'))}"
        )
    own = _with_loss_of(first, second) if second else METHODS[first]
    added = tuple(ADDITIONS[other] for other in others)
    for other, part in zip(others, added, strict=True):
        if part in own:
            raise ValueError(f"method {name}: {first} has {other} already; leave it out")
        if part.needs_label_loss and not any(x.kind == "loss" for x in own):
            raise ValueError(
                f"method {name}: {other} trains a second view by the method's loss of labels, and "
                f"{first} has none of its own kind; leave it out"
            )
    _check_kinds(name, (*own, *added))
    return (*own, *added)


def _check_kinds(name: str, parts: Sequence[PartOf]) -> None:
    """Raises ValueError where two parts of the method are terms of one kind."""
    kinds = [part.reported_as for part in parts if part.reported_as]
    for kind in (x for x in kinds if kinds.count(x) > 1):
        several = [x for x, part in ADDITIONS.items() if part.reported_as == kind and part in parts]
        raise ValueError(
            f"method {name}: {' and '.join(several)} are both {kind} terms; choose one"
        )


def _guess(names: Sequence[str]) -> str:
    """Which method was probably meant by the parts of a name; or empty."""
    first, *others = names
    parts = [nearest(first, METHODS), *(nearest(x, {**ADDITIONS, **METHODS}) for x in others)]
    meant = "+".join(dict.fromkeys(part for part in parts if part is not None))
    return "" if None in parts else f"; did you mean {meant}?"


def _with_loss_of(first: str, second: str) -> tuple[PartOf, ...]:
    """The rules of a method with loss and rules of another."""
    rules = tuple(part for part in METHODS[first] if part.kind == "rule")
    if not rules:
        marking = ", ".join(
            x for x, parts in METHODS.items() if any(y.kind == "rule" for y in parts)
        )
        raise ValueError(
            f"method {first}+{second}: {first} marks no labels; before another method stands one "
            f"of {marking}"
        )
    if not any(part.marks for part in METHODS[second]):
        reading = ", ".join(x for x, parts in METHODS.items() if any(y.marks for y in parts))
        raise ValueError(
            f"method {first}+{second}: the loss of {second} does not look at what {first} marks; "
            f"after it may stand {reading}"
        )
    if {part.part for part in rules} & {part.part for part in METHODS[second]}:
        raise ValueError(f"method {first}+{second}: both have the same rule; {second} is enough")
    added = tuple(part for part in METHODS[first] if part in ADDITIONS.values())
    return (*rules, *METHODS[second], *added)


def flags_of(name: str) -> dict[str, Option]:
    """The options of a method's parts by the names of their flags.

    Raises:
        ValueError: for a name that is no method.
    """
    return {flag: found for part in parts_of(name) for flag, found in part.flags().items()}


def needs_k(name: str) -> bool:
    """Whether a method must know K, the mean number of positives per image."""
    return "positives_per_image" in flags_of(name)


def selects(name: str) -> bool:
    """Whether a method chooses expected positives from the score bank."""
    return any(issubclass(part.options, SelectionOptions) for part in parts_of(name))


def trains_weights(name: str) -> bool:
    """Whether a method may train weights beside the network's, such as ROLE's estimates."""
    return any(part.trains for part in parts_of(name))


def fixed_budget(name: str) -> str | None:
    """The --selection_budget that a method sets itself."""
    return next((x.fixed["budget"] for x in parts_of(name) if "budget" in x.fixed), None)


def estimates_k(name: str) -> bool:
    """Whether a method estimates K where it is told none."""
    return fixed_budget(name) in ESTIMATED_BUDGETS


def cam_boost(name: str, from_scratch: bool) -> float:
    """The factor of BoostLU that a method is trained with where none is given; 1 for none."""
    return _BOOSTED_FROM_SCRATCH.get(name.split("+")[0], 1.0) if from_scratch else 1.0


def all_parts() -> Iterator[PartOf]:
    """Every part of every method, some more than once."""
    for parts in METHODS.values():
        yield from parts
    yield from ADDITIONS.values()


def declared() -> dict[str, tuple[Option, type[Options], str]]:
    """What model and parts can be told, by flag: the option, its class and its name there."""
    found: dict[str, tuple[Option, type[Options], str]] = {}
    classes: list[type[Options]] = [ModelOptions, *(x.options for x in all_parts())]
    for options in classes:
        for flag, name in options.flags().items():
            option = options.declared()[name]
            known = found.setdefault(flag, (option, options, name))
            if option.words and not known[0].words:  # of two parts the one that takes more
                found[flag] = (option, *known[1:])
    return found


def declared_options() -> dict[str, Option]:
    """What model and parts can be told, by the names of the flags."""
    return {flag: option for flag, (option, *_) in declared().items()}


def derived(options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, with the options that follow from it.

    Args:
        options: by flag, in an order in which each may follow from those before it.
        given: by flag: epochs, from_scratch and linear_probe at least; None is not given.
    """
    values = dict(given)
    for name, option in options.items():
        if values.get(name) is None and option.in_runs is not None:
            values[name] = option.in_runs(values)
    return values
