"""The flags of a command: fields of a dataclass that declare them, and absl's made of those."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from spml_tf.system import presets
from spml_tf.system.nearest import guess
from spml_tf.system.strategies import STRATEGIES

_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}
_DEVICES = "Several devices"


def flag_field(
    default: Any,
    text: str,
    kind: type = str,
    choices: tuple[str, ...] | None = None,
    group: str | None = None,
    required: bool = False,
    name: str | None = None,
    words: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    before: Callable[[str], Path] | None = None,
    listing: Callable[[], str] | None = None,
) -> Any:
    """A dataclass field that `cli.run` turns into a flag.

    Args:
        default: the flag's default; None means not given.
        text: what --help says.
        kind: str, int, float or bool.
        choices: the values allowed, None for any.
        group: heading of the flag in --help; None means the attribute `group` of the class that
            declares the field, and where it has none the flag stands first, without a heading.
        required: refuse a command line without it, or with an empty text.
        name: the flag's, where it is a word that Python keeps for itself; else the field's.
        words: texts that may stand in place of a float.
        low: the smallest number allowed, None for any; see `flag_checks.check_bounds`.
        high: the largest.
        before: the flagfile that a value names, which is read before what is given.
        listing: what is printed in place of the command where the flag is given.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": text,
            "kind": kind,
            "choices": choices,
            "group": group,
            "required": required,
            "name": name,
            "words": words,
            "low": low,
            "high": high,
            "before": before,
            "listing": listing,
        },
    )


def flag_name(options: type, field: str) -> str:
    """The flag of a field.

    Args:
        options: dataclass of `flag_field`s.
        field: the field's name.
    """
    return name_of(next(x for x in dataclasses.fields(options) if x.name == field))


def plugins_field() -> Any:
    """The dataclass field --plugins: `cli.run` loads them before it reads the other flags."""
    return flag_field(
        None,
        "FILE.py or MODULE,...: code of your own that registers losses, rules, terms, networks or "
        "data sets. It is RUN: name only files that you trust.",
    )


def preset_field() -> Any:
    """The dataclass field --preset, whose flagfile `cli.parse` reads before the given flags."""
    return flag_field(
        None,
        "Flagfile that comes with spml_tf, such as digits/en_scl. Flags beside it win.",
        before=presets.flagfile,
    )


def list_presets_field(found: Callable[[], Mapping[str, Path]]) -> Any:
    """The dataclass field --list_presets: `cli.parse` prints the list, and the command ends.

    Args:
        found: returns the files by name.
    """
    return flag_field(
        False,
        "List what comes with spml_tf, by name.",
        bool,
        listing=lambda: presets.listing(found()),
    )


def strategy_field() -> Any:
    """The dataclass field --strategy."""
    return flag_field(
        "none",
        "none: one device; mirrored: all GPUs of this machine; multi_worker: those of all "
        "processes that TF_CONFIG or Slurm tells of.",
        str,
        STRATEGIES,
        _DEVICES,
    )


def devices_field() -> Any:
    """The dataclass field --devices."""
    return flag_field(
        0,
        "Devices of each process, with a strategy; 0: all GPUs. Without a GPU, logical CPUs.",
        int,
        group=_DEVICES,
        low=0,
        high=1024,
    )


def workers_field() -> Any:
    """The dataclass field --workers."""
    return flag_field(
        0,
        "Start so many processes on this machine, with --strategy=multi_worker, and join what they "
        "print. Its GPUs are dealt out to them.",
        int,
        group=_DEVICES,
        low=0,
        high=1024,
    )


def word_field(choices: tuple[str, ...]) -> Any:
    """A dataclass field for the one word, without dashes, that says what a command does.

    Args:
        choices: the words allowed; the usage text explains them.
    """
    return dataclasses.field(default="", metadata={"word": choices})


class _NumberOrWord(flags.ArgumentParser[Any]):
    """Reads a float or one of some words."""

    syntactic_help = "a number or a word"

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__()
        self.words = words

    def parse(self, argument: Any) -> Any:
        if argument in self.words:
            return argument
        try:
            return float(argument)
        except ValueError:
            near = guess(argument, self.words)
            raise ValueError(f"must be a number or {' or '.join(self.words)}{near}") from None


class _Choice(flags.ArgumentParser[str]):
    """Reads one of some words."""

    syntactic_help = "one of some words"

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__()
        self.words = words

    def parse(self, argument: str) -> str:
        if argument not in self.words:
            near = guess(argument, self.words)
            raise ValueError(f"value should be one of <{'|'.join(self.words)}>{near}")
        return argument


def flag_fields(options: type) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that are flags; see `word_field` for the one that is none."""
    return [field for field in dataclasses.fields(options) if "word" not in field.metadata]


def name_of(field: dataclasses.Field[Any]) -> str:
    """The flag of a field."""
    name: str = field.metadata["name"] or field.name
    return name


def text_of(value: object) -> str:
    """A flag's value as a command line has it.

    Examples:
        >>> text_of(True), text_of(0.5), text_of("en+scl")
        ('true', '0.5', 'en+scl')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def words_of(options: Any, names: Collection[str] | None = None) -> list[str]:
    """The words of a command line that give these options; those at their defaults are left out.

    Args:
        options: a dataclass of `flag_field`s.
        names: of the fields that count; None: all.
    """
    return [
        f"--{name_of(field)}={text_of(value)}"
        for field in flag_fields(type(options))
        if (value := getattr(options, field.name)) != field.default
        and (names is None or field.name in names)
    ]


def define(values: flags.FlagValues, options: type) -> None:
    """Adds the flags of a dataclass to absl's."""
    for field in flag_fields(options):
        text, kind, choices = (field.metadata[x] for x in ("help", "kind", "choices"))
        default: Any = field.default
        if choices:
            flags.DEFINE(_Choice(choices), name_of(field), default, text, flag_values=values)
        elif field.metadata["words"]:
            parser = _NumberOrWord(field.metadata["words"])
            flags.DEFINE(parser, name_of(field), default, text, flag_values=values)
        else:
            _DEFINE[kind](name_of(field), default, text, flag_values=values)
