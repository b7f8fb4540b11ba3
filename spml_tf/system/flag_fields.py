"""The flags of a command, made of the fields of its options; see `cli.flag_field`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from absl import flags

from spml_tf.system.nearest import guess

_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


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
    """The fields of a dataclass that are flags; see `cli.word_field` for the one that is none."""
    return [field for field in dataclasses.fields(options) if "word" not in field.metadata]


def name_of(field: dataclasses.Field[Any]) -> str:
    """The flag of a field."""
    name: str = field.metadata["name"] or field.name
    return name


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
