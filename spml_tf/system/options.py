"""Options that are declared once and reach constructors, checks, `get_config` and flags.

A class that inherits from `Options` declares each of its options as a class attribute:

    class Confident(Rule):
        threshold: float = option(0.6, "Score from which a label is marked.", low=0, high=1)

An instance has the value under the same name, the constructor takes it by keyword and checks it,
`get_config` keeps it, and the command line offers it as a flag. Needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

_MISSING = object()
_KINDS = {bool: "True or False", int: "a whole number", float: "a number"}


@dataclasses.dataclass(frozen=True)
class Option:
    """What is declared of an option; see `option`."""

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    flag: str | None = None
    in_runs: Callable[[Any], Any] | None = None
    scales: str | None = None
    check: Callable[[str, Any], None] | None = None
    words: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is _MISSING

    def checked(self, name: str, value: Any, kind: type = object) -> Any:
        """The value, if it may stand; of numbers and arrays of NumPy, Python's own.

        Args:
            name: what the message calls the option.
            value: None is allowed where it is the default.
            kind: bool, int and float are checked.

        Raises:
            ValueError: it is missing, of another type, out of bounds or none of the choices.
        """
        if value is _MISSING or (value is None and self.required):
            raise ValueError(f"{name} is missing: {self.help}")
        if value is None and self.default is None:
            return None
        value = plain(value)
        if isinstance(value, str) and value in self.words:
            return value
        if kind in _KINDS and not _is_a(kind, value):
            others = "".join(f" or {word}" for word in self.words)
            raise ValueError(f"{name}={value!r}: must be {_KINDS[kind]}{others}")
        if self.check is not None:
            self.check(name, value)
        elif self.choices is not None:
            if value not in self.choices:
                raise ValueError(f"{name}={value!r}: must be one of {', '.join(self.choices)}")
        elif self.low is not None or self.high is not None:
            low = -float("inf") if self.low is None else self.low
            high = float("inf") if self.high is None else self.high
            if not _is_a(float, value) or not low <= value <= high:
                raise ValueError(f"{name}={value!r}: must be from {low:g} to {high:g}")
        return value


def option(
    default: Any = _MISSING,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
    flag: str | None = None,
    in_runs: Callable[[Any], Any] | None = None,
    scales: str | None = None,
    check: Callable[[str, Any], None] | None = None,
    words: Sequence[str] = (),
) -> Any:
    """Declares an option of a class that inherits from `Options`.

    Args:
        default: what holds where nothing is given; left out, a value must be given.
        help: one or two sentences for `--help` and for messages.
        low: smallest number allowed.
        high: largest number allowed.
        choices: the texts allowed.
        flag: the flag's name; None: the class' `prefix`, an underscore and the option's name. An
            empty text: no flag.
        in_runs: computes the default of a training run from its other flags (a mapping of names
            to values), where it differs from `default`. `spml_tf.options_of_run` has epochs,
            from_scratch, linear_probe, warmup_epochs and selection_start_epoch alone.
        scales: how a short trial of a long run changes the value: "epochs" for an epoch's number,
            "rate" for an amount an epoch, None for neither.
        check: raises ValueError for a value that may not stand, called with the name and the value,
            in place of bounds and choices.
        words: texts that may stand in place of a number.
    """
    texts = None if choices is None else tuple(choices)
    return Option(default, help, low, high, texts, flag, in_runs, scales, check, tuple(words))


class Options:
    """A class whose options are declared by `option`.

    Attributes:
        prefix: begins the names of its flags.
        group: heading of its flags in `--help` and in the documentation.
    """

    prefix: ClassVar[str] = ""
    group: ClassVar[str] = ""

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """The options by their names, those of base classes first."""
        found: dict[str, Option] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                if isinstance(value, Option):
                    found[name] = value
                elif name in found:
                    del found[name]  # a subclass has fixed it
        return found

    @classmethod
    def flags(cls) -> dict[str, str]:
        """The names of the options by the names of their flags."""
        found = {}
        for name, declared in cls.declared().items():
            flag = declared.flag
            if flag is None:
                flag = f"{cls.prefix}_{name}" if cls.prefix else name
            if flag:
                found[flag] = name
        return found

    @classmethod
    def kind(cls, name: str) -> type:
        """The type of an option's value by its annotation, None aside."""
        hint: Any = type(cls.declared()[name].default)
        for base in cls.__mro__:
            annotation = vars(base).get("__annotations__", {}).get(name)
            if annotation is not None:  # read by itself: others of the class may name anything
                alone = {"__annotations__": {name: annotation}, "__module__": base.__module__}
                with contextlib.suppress(NameError):  # imported for type checkers only
                    hint = typing.get_type_hints(type(base.__name__, (), alone))[name]
                break
        if isinstance(hint, types.UnionType):
            hint = next(x for x in typing.get_args(hint) if x is not type(None))
        return typing.cast(type, typing.get_origin(hint) or hint)

    def take_options(self, given: dict[str, Any]) -> None:
        """Sets the options from keyword arguments, which are taken out of `given`.

        Raises:
            ValueError: for a value that may not stand.
        """
        for name, declared in self.declared().items():
            value = given.pop(name, declared.default)
            checked = declared.checked(f"{type(self).__name__}: {name}", value, self.kind(name))
            setattr(self, name, checked)

    def options(self) -> dict[str, Any]:
        """The options' values by their names."""
        return {name: plain(getattr(self, name)) for name in self.declared()}


def _is_a(kind: type, value: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, numbers.Integral if kind is int else numbers.Real)


def plain(value: Any) -> Any:
    """Lists, dicts and numbers as Python has them: Keras wraps those that layers hold."""
    if isinstance(value, Mapping):
        return {key: plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    return value.tolist() if hasattr(value, "tolist") else value  # of NumPy
