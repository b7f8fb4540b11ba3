"""Methods as objects: the rules and terms that a name or a loss stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from spml_tf.system.nearest import guess
from spml_tf.training import methods
from spml_tf.training.options import AUTO, ModelOptions
from spml_tf.training.parts import Part, Rule, Term
from spml_tf.training.terms import LabelTerm


@keras.saving.register_keras_serializable("spml_tf")
@dataclasses.dataclass(frozen=True)
class Recipe:
    """A method as an object: its rules in their order, and its terms.

    Attributes:
        terms: of the loss, at least one of which trains the scores from the labels; a Keras loss
            stands for `terms.LabelTerm` of it.
        rules: applied one after the other to the labels of each batch.
    """

    terms: tuple[Any, ...]
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for name in ("terms", "rules"):
            _check_is_sequence(name, getattr(self, name))
        terms = tuple(
            LabelTerm(loss=x) if isinstance(x, keras.losses.Loss) else x for x in self.terms
        )
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "rules", tuple(self.rules))
        _check_kind(self.terms, Term)
        _check_kind(self.rules, Rule)
        _check_trains_labels(self.terms)
        _check_label_loss(self.terms)
        if self.rules:
            _check_marks(self.terms)
        check_reduction(self.terms, next((x.loss for x in _label_terms(self.terms)), None))
        _check_reported_names(self.terms)

    @property
    def parts(self) -> Iterator[Part]:
        """Rules, then terms."""
        yield from self.rules
        yield from self.terms

    def get_config(self) -> dict[str, Any]:
        """Terms and rules, serialized."""
        serialize = keras.saving.serialize_keras_object
        return {
            "terms": [serialize(x) for x in self.terms],
            "rules": [serialize(x) for x in self.rules],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Recipe:
        """The recipe that `get_config` describes."""
        deserialize = keras.saving.deserialize_keras_object
        return cls(*(tuple(deserialize(x) for x in config[name]) for name in ("terms", "rules")))


def _check_is_sequence(name: str, parts: Any) -> None:
    if not isinstance(parts, Sequence):
        raise ValueError(
            f"a recipe's {name} must be several, such as ({name[:-1]},). Received: {parts!r}"
        )


def _check_kind(parts: Sequence[Any], kind: type[Part]) -> None:
    for part in parts:
        if not isinstance(part, kind):
            raise ValueError(
                f"a recipe's {kind.__name__.lower()}s must be losses or {kind.__name__}s. "
                f"Received: {part!r}"
            )


def _check_trains_labels(terms: Sequence[Term]) -> None:
    if not any(term.trains_labels for term in terms):
        raise ValueError(
            "a recipe needs a term that trains on labels, such as a loss of spml_tf.losses. "
            f"Received: {[type(x).__name__ for x in terms]}"
        )


def _label_terms(terms: Sequence[Term]) -> list[LabelTerm]:
    return [term for term in terms if isinstance(term, LabelTerm)]


def _check_label_loss(terms: Sequence[Term]) -> None:
    """Terms that read `Step.label_loss` need a loss of labels beside them."""
    if _label_terms(terms):
        return
    for term in (x for x in terms if x.needs_label_loss):
        raise ValueError(
            f"{type(term).__name__} trains by a loss of labels, and the recipe has none; "
            "add a loss of spml_tf.losses"
        )


def _check_marks(terms: Sequence[Term]) -> None:
    """What the rules mark must mean something to the terms."""
    of_labels = _label_terms(terms)
    for term in of_labels:
        term.check_marks()
    trained = [term for term in terms if term.trains_labels]
    if not of_labels and not any(term.marks for term in trained):
        raise ValueError(
            f"{type(trained[0]).__name__} does not look at what the rules mark; leave the "
            'rules out, or say in the class what it makes of marks, as marks = "left out"'
        )


def check_reduction(terms: Sequence[Term], loss: keras.losses.Loss | None) -> None:
    """Refuses a loss of labels that divides away the shares by which mixed views weigh images.

    Args:
        terms: of a recipe.
        loss: of its labels; None where it has none.

    Raises:
        ValueError: for a mean over weights beside a term that reads `Step.label_loss`.
    """
    if loss is None or loss.reduction != "mean_with_sample_weight":
        return
    for term in (x for x in terms if x.needs_label_loss):
        raise ValueError(
            f"{type(term).__name__} weighs images by shares, which a loss with "
            f"reduction={loss.reduction!r} divides away; leave reduction out"
        )


def _check_reported_names(terms: Sequence[Term]) -> None:
    reported = [term.reported_as for term in terms if term.reported_as]
    if len(set(reported)) < len(reported):
        raise ValueError(
            f"two terms of a recipe report their value under one name: {reported}; leave one out, "
            "or in a subclass of one set the class attribute reported_as"
        )


def recipe_of(
    method: Any, values: Mapping[str, Any], positives_per_image: float | str | None = None
) -> Recipe:
    """The recipe that a method's name or object stands for.

    Args:
        method: a name such as "en+scl", a Keras loss, or a recipe.
        values: options of the parts by the names of their flags; only for a name.
        positives_per_image: K, for the parts that must know it; None: "auto" for a method that
            estimates it.

    Raises:
        ValueError: for a name that is no method, an option that none of its parts has or that may
            not stand, or an object of another kind.
    """
    if isinstance(method, str):
        if positives_per_image is None and methods.estimates_k(method):
            positives_per_image = AUTO
        if methods.needs_k(method) and positives_per_image is not None:
            values = {**values, "positives_per_image": positives_per_image}
        _check_options(method, values)
        made = [part.make(values) for part in methods.parts_of(method)]
        rules = tuple(x for x in made if isinstance(x, Rule))
        return Recipe(tuple(x for x in made if not isinstance(x, Rule)), rules)
    if values or positives_per_image is not None:
        first = next(iter(values), "positives_per_image")
        raise ValueError(
            f"{first} goes with the name of a method; tell it to the part itself: "
            f"method is {type(method).__name__}"
        )
    if isinstance(method, Recipe):
        return method
    if isinstance(method, keras.losses.Loss):
        return Recipe((method,))
    raise ValueError(
        "method must be a name, a loss of spml_tf.losses or a spml_tf.training.Recipe. "
        f"Received: {method!r}"
    )


def _check_options(method: str, values: Mapping[str, Any]) -> None:
    known = methods.flags_of(method)
    for flag, declared in known.items():
        if declared.required and values.get(flag) is None:
            if flag == "positives_per_image":
                raise ValueError(
                    f"method {method!r} needs positives_per_image, the mean number of true "
                    "positives per training image (count 50 images to estimate it, or give "
                    "'auto' to a method that selects)"
                )
            raise ValueError(f"method {method!r} needs {flag}: {declared.help}")
    for flag in values:
        if flag not in known:
            own = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"method {method!r} has no option {flag}; it has {own}"
                f"{guess(flag, {*known, *ModelOptions.declared()})}"
            )
